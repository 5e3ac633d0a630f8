//! Entity tags: an answer has the revision of what it shows, and a change can be made to depend on it.

use axum::Json;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::header::{ETAG, IF_MATCH};
use http::request::Parts;
use http::{HeaderName, HeaderValue};
use serde::Serialize;
use utoipa::IntoParams;

use crate::engine::Expected;
use crate::problem::{ApiError, Code};
use crate::store::Revision;

/// JSON with its entity tag.
pub(super) struct Tagged<T>(pub(super) Revision, pub(super) T);

impl<T: Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        (tag(self.0), Json(self.1)).into_response()
    }
}

/// The header for a revision.
fn tag(revision: Revision) -> [(HeaderName, HeaderValue); 1] {
    let text = format!("\"{revision}\"");
    let value = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("\"0\""));
    [(ETAG, value)]
}

/// `If-Match`: which state of a thing a change is meant for.
#[derive(IntoParams)]
#[into_params(names("If-Match"), parameter_in = Header)]
pub(super) struct IfMatch(
    /// The `etag` of an answer: the change is made only if the thing is still as it was then. `*`: only if it is there.
    #[param(value_type = Option<String>)]
    pub(super) Expected,
);

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let mut revisions = Vec::new();
        let mut given = false;
        for value in parts.headers.get_all(IF_MATCH) {
            given = true;
            let text = value.to_str().map_err(|_| invalid())?.trim();
            if text == "*" {
                return Ok(Self(Expected::Existing));
            }
            for tag in text.split(',') {
                revisions.extend(read(tag.trim()).ok_or_else(invalid)?);
            }
        }
        Ok(Self(match given {
            false => Expected::Anything,
            true => Expected::OneOf(revisions),
        }))
    }
}

/// The revision of an entity tag. A tag that this API never gave fits nothing: no revision. `None` where it is no tag.
fn read(tag: &str) -> Option<Option<Revision>> {
    let (weak, strong) = match tag.strip_prefix("W/") {
        Some(rest) => (true, rest),
        None => (false, tag),
    };
    let inside = strong.strip_prefix('"')?.strip_suffix('"')?;
    if inside.contains('"') {
        return None;
    }
    // A weak tag never matches here (RFC 9110, 13.1.1).
    Some(inside.parse().ok().map(Revision).filter(|_| !weak))
}

fn invalid() -> ApiError {
    ApiError::new(
        Code::EtagInvalid,
        "if-match is * or entity tags in quotes, as the header etag of an answer has them",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn parse(values: &[&str]) -> Result<Expected, ApiError> {
        let mut request = http::Request::builder();
        for value in values {
            request = request.header(IF_MATCH, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let read = IfMatch::from_request_parts(&mut parts, &()).await;
        read.map(|IfMatch(expected)| expected)
    }

    #[tokio::test]
    async fn headers() {
        assert_eq!(parse(&[]).await, Ok(Expected::Anything));
        assert_eq!(parse(&["*"]).await, Ok(Expected::Existing));
        let some = Expected::OneOf(vec![Revision(3), Revision(4)]);
        assert_eq!(parse(&["\"3\", \"4\""]).await, Ok(some.clone()));
        assert_eq!(parse(&["\"3\"", "\"4\""]).await, Ok(some));
        // Another server's tag and a weak one fit nothing.
        let none = Expected::OneOf(Vec::new());
        assert_eq!(parse(&["\"abc\""]).await, Ok(none.clone()));
        assert_eq!(parse(&["W/\"3\""]).await, Ok(none));
        for bad in ["", "3", "\"3", "\"3\" \"4\""] {
            assert_eq!(
                parse(&[bad]).await.unwrap_err().code,
                Code::EtagInvalid,
                "{bad}"
            );
        }
    }
}
