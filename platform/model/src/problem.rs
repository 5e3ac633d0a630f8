//! Errors as RFC 9457 describes them, with a stable code.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The media type of a problem.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// An error as clients see it: `code` is stable, `detail` says what happened and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A URI for the kind of problem; `urn:cloister:problem:CODE`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of problem in a few words, the same for each of its kind.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time, and what to do.
    pub detail: String,
    /// The kind of problem as a stable word for programs, such as `app-not-found`.
    pub code: String,
    /// The request that it happened to, where it has an id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl Problem {
    /// A problem of the kind `code`.
    #[must_use]
    pub fn new(status: u16, code: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:cloister:problem:{code}"),
            title: title.to_owned(),
            status,
            detail: detail.into(),
            code: code.to_owned(),
            request_id: None,
        }
    }

    /// The same problem with the id of the request that it happened to.
    #[must_use]
    pub fn with_request_id(mut self, id: impl Into<String>) -> Self {
        self.request_id = Some(id.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_the_members_of_the_rfc() {
        let problem = Problem::new(404, "app-not-found", "No such app", "there is no app shop")
            .with_request_id("r1");
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!(json["type"], "urn:cloister:problem:app-not-found");
        assert_eq!(json["status"], 404);
        assert_eq!(json["code"], "app-not-found");
        assert_eq!(json["request_id"], "r1");
        assert_eq!(serde_json::from_value::<Problem>(json).unwrap(), problem);
    }
}
