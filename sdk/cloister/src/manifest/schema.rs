//! The schema of manifests, and the keys that are not in it.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema as _, ToSchema as _};

use super::Manifest;

/// Where schemas of parts are, as utoipa has them, and as JSON Schema has them.
const COMPONENTS: &str = "#/components/schemas/";
const DEFINITIONS: &str = "#/$defs/";

/// How much alike two keys are that may be meant for each other, from 0 to 1.
const ALIKE: f64 = 0.75;

/// A key that is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unknown {
    /// The table that it is in, such as `app.shop`.
    table: String,
    key: String,
    /// The keys that there are.
    known: Vec<String>,
}

impl Unknown {
    /// The key that was meant.
    fn meant(&self) -> Option<&str> {
        let key = self.key.replace('-', "_");
        let likeness = |known: &String| match known.starts_with(&key) {
            true => 1.0,
            false => strsim::jaro_winkler(known, &key),
        };
        let known = self.known.iter().map(|known| (likeness(known), known));
        let known = known.filter(|(likeness, _)| *likeness >= ALIKE);
        let best = known.max_by(|(a, _), (b, _)| a.total_cmp(b));
        best.map(|(_, known)| known.as_str())
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.table.is_empty() {
            write!(f, "{}: ", self.table)?;
        }
        write!(f, "{:?} is no key: ", self.key)?;
        match self.meant() {
            Some(meant) => write!(f, "did you mean {meant:?}?"),
            None => write!(f, "there are {}", self.known.join(", ")),
        }
    }
}

/// The JSON Schema of manifests.
pub(super) fn document() -> Value {
    let mut parts: Vec<(String, RefOr<Schema>)> = Vec::new();
    Manifest::schemas(&mut parts);
    let parts: BTreeMap<_, _> = parts.into_iter().collect();
    let mut document = json!(Manifest::schema());
    if let Some(object) = document.as_object_mut() {
        let dialect = "https://json-schema.org/draft/2020-12/schema";
        object.insert("$schema".to_owned(), dialect.into());
        object.insert("title".to_owned(), super::FILE.into());
        object.insert("$defs".to_owned(), json!(parts));
    }
    relink(&mut document);
    document
}

/// Points references at where the parts are.
fn relink(value: &mut Value) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(reference)) = object.get_mut("$ref") {
                *reference = reference.replace(COMPONENTS, DEFINITIONS);
            }
            object.values_mut().for_each(relink);
        }
        Value::Array(items) => items.iter_mut().for_each(relink),
        _ => {}
    }
}

/// The first key that the schema does not have.
pub(super) fn unknown(table: &toml::Table) -> Option<Unknown> {
    let document = document();
    look(table, &document, &document, "")
}

fn look(table: &toml::Table, schema: &Value, document: &Value, path: &str) -> Option<Unknown> {
    let schema = followed(schema, document);
    let known = schema["properties"].as_object();
    for (key, value) in table {
        let below = known
            .and_then(|known| known.get(key))
            .unwrap_or(&schema["additionalProperties"]);
        let closed = known.is_some() && !below.is_object();
        if closed {
            let known = known.into_iter().flatten().map(|(key, _)| key.clone());
            return Some(Unknown {
                table: path.to_owned(),
                key: key.clone(),
                known: known.collect(),
            });
        }
        let path = match path {
            "" => key.clone(),
            path => format!("{path}.{key}"),
        };
        if let Some(table) = value.as_table()
            && let Some(found) = look(table, below, document, &path)
        {
            return Some(found);
        }
    }
    None
}

/// The schema that one refers to, directly or as the one that is not `null`.
fn followed<'a>(schema: &'a Value, document: &'a Value) -> &'a Value {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.strip_prefix(DEFINITIONS).unwrap_or(name);
        return followed(&document["$defs"][name], document);
    }
    let choices = ["allOf", "oneOf", "anyOf"].iter();
    let mut choices = choices
        .filter_map(|word| schema[*word].as_array())
        .flatten();
    match choices.find(|choice| choice["type"] != "null") {
        Some(choice) => followed(choice, document),
        None => schema,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Set, the committed schema is written anew.
    const BLESS: &str = "CLOISTER_BLESS";

    #[test]
    fn the_committed_schema_is_that_of_the_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/cloister.schema.json");
        let made = serde_json::to_string_pretty(&document()).unwrap() + "\n";
        if std::env::var_os(BLESS).is_some() {
            std::fs::write(path, &made).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap();
        assert!(
            committed == made,
            "{path} is not what the code says: run the tests with {BLESS}=1"
        );
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let text = document.to_string();
        assert!(!text.contains(COMPONENTS));
        for part in text.split(DEFINITIONS).skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(document["$defs"][name].is_object(), "{name}");
        }
    }
}
