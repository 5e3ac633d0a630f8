//! Lists in pages: `?limit=N&after=CURSOR`, where the cursor is the `next` of the page before.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use utoipa::IntoParams;

/// Items of a page where the client does not say how many.
const DEFAULT: usize = 100;

/// Most items of a page.
const MOST: usize = 1_000;

/// Longest cursor, in characters: none that was given is longer.
const CURSOR: usize = 512;

/// Which page of a list is wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// How many items at most; 100 by default.
    #[serde(default, deserialize_with = "limit")]
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// The `next` of the page before. It means nothing by itself.
    #[serde(default, deserialize_with = "cursor")]
    #[param(max_length = 512)]
    pub(super) after: Option<String>,
}

impl PageQuery {
    /// Items of the page.
    pub(super) fn limit(&self) -> usize {
        self.limit.unwrap_or(DEFAULT)
    }
}

fn limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    let limit = usize::deserialize(deserializer)?;
    if (1..=MOST).contains(&limit) {
        return Ok(Some(limit));
    }
    let why = format!("limit may be from 1 to {MOST}");
    Err(D::Error::custom(why))
}

fn cursor<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let cursor = String::deserialize(deserializer)?;
    if cursor.chars().count() <= CURSOR {
        return Ok(Some(cursor));
    }
    let why = format!("after has at most {CURSOR} characters");
    Err(D::Error::custom(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        let read = |text: &str| serde_json::from_str::<PageQuery>(text);
        assert_eq!(read("{}").unwrap().limit(), 100);
        assert_eq!(read(r#"{"limit": 1000}"#).unwrap().limit(), 1_000);
        assert!(read(r#"{"limit": 0}"#).is_err() && read(r#"{"limit": 1001}"#).is_err());
        let long = "x".repeat(513);
        assert!(read(&format!(r#"{{"after": "{long}"}}"#)).is_err());
    }
}
