//! The description of the API is the API, and the documentation of problems is the code.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::*;

/// Set to write the files that the tests compare.
const BLESS: &str = "CLOISTER_BLESS";

/// The description as it is in the code.
pub(super) async fn document() -> Value {
    let client = Client::new().await;
    let (_, document) = client.api.endpoints().finish(method_not_allowed);
    serde_json::to_value(&document).unwrap()
}

/// Each operation of a description: its path, its method, and what is said of it.
pub(super) fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    let all = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().iter();
        methods.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    });
    all.filter(|(_, method, _)| *method != "parameters")
        .collect()
}

/// Compares a committed file with what it is made from, or writes it.
fn compare(path: &str, made: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os(BLESS).is_some() {
        std::fs::write(&path, made).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(
        committed == made,
        "{} is not what the code says: run the tests with {BLESS}=1 and look at the difference",
        path.display()
    );
}

#[tokio::test]
async fn the_committed_description_is_that_of_the_code() {
    let mut text = serde_json::to_string_pretty(&document().await).unwrap();
    text.push('\n');
    compare("openapi.json", &text);
}

#[tokio::test]
async fn every_operation_is_described_and_has_a_name_of_its_own() {
    let document = document().await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let tags = document["tags"].as_array().unwrap();
    let tags: HashSet<_> = tags.iter().map(|tag| &tag["name"]).collect();
    let mut ids = HashSet::new();
    for (path, method, operation) in operations(&document) {
        let what = format!("{method} {path}");
        assert!(
            ids.insert(operation["operationId"].as_str().unwrap()),
            "{what}"
        );
        assert!(!operation["summary"].as_str().unwrap().is_empty(), "{what}");
        for tag in operation["tags"].as_array().unwrap() {
            assert!(tags.contains(tag), "{what}: {tag}");
        }
        assert!(operation["security"].is_array(), "{what}");
        let named = path.matches('{').count();
        let parameters = operation["parameters"].as_array();
        let in_path = parameters.map_or(0, |all| all.iter().filter(|p| p["in"] == "path").count());
        assert_eq!(named, in_path, "{what}: parameters of the path");
    }
}

#[tokio::test]
async fn every_reference_leads_somewhere() {
    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(object) => {
                found.extend(object.get("$ref").and_then(Value::as_str));
                object.values().for_each(|value| references(value, found));
            }
            Value::Array(array) => array.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = document().await;
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 5);
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[tokio::test]
async fn the_description_is_served_without_a_token() {
    let client = Client::new().await;
    let request = Request::get("/v1/openapi.json")
        .body(Body::empty())
        .unwrap();
    let (status, body) = json_of(client.send(request).await).await;
    assert_eq!(status, 200);
    let committed: Value = serde_json::from_str(include_str!("../../../openapi.json")).unwrap();
    assert!(body == committed);
}

/// The table of problems between two marks of API.md.
#[test]
fn the_documented_problems_are_those_of_the_code() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/API.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (begin, end) = ("<!-- problems: begin -->\n", "<!-- problems: end -->");
    let (before, rest) = text.split_once(begin).unwrap();
    let (old, after) = rest.split_once(end).unwrap();
    // What to do is written by hand, and kept.
    let advice: BTreeMap<_, _> = old
        .lines()
        .filter_map(|line| {
            let mut cells = line.split('|').map(str::trim);
            let code = cells.nth(1)?.trim_matches('`');
            Some((code, cells.nth(2)?))
        })
        .collect();
    let mut table = "| code | status | what | what to do |\n|---|---|---|---|\n".to_owned();
    for code in Code::ALL {
        let (status, word, title) = code.entry();
        let advice = advice.get(word).copied().unwrap_or_default();
        let bless = std::env::var_os(BLESS).is_some();
        assert!(
            bless || !advice.is_empty(),
            "{word}: API.md does not say what to do"
        );
        table += &format!("| `{word}` | {} | {title} | {advice} |\n", status.as_u16());
    }
    compare("API.md", &format!("{before}{begin}{table}{end}{after}"));
}
