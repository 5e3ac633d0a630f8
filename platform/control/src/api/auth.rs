//! Who sends a request: the bearer token.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::HeaderValue;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use platform_model::{Role, Scope};
use sha2::{Digest as _, Sha256};

use super::Api;
use crate::problem::{ApiError, Code};

/// Who the holder of the node's own token is.
const ADMIN: &str = "admin-token";

/// Who sent a request.
#[derive(Debug, Clone)]
pub(super) struct Principal {
    /// The id of the token.
    pub(super) id: Arc<str>,
    /// What it is over.
    pub(super) scope: Scope,
    /// What it may do there.
    pub(super) role: Role,
}

/// The hash of the token.
#[derive(Clone)]
pub(super) struct Token([u8; 32]);

impl Token {
    pub(super) fn new(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Compares in a time that says nothing about where a difference is: hashes are compared, and all of their bytes.
    fn is(&self, given: &[u8]) -> bool {
        let given: [u8; 32] = Sha256::digest(given).into();
        let difference = self
            .0
            .iter()
            .zip(given)
            .fold(0, |all, (a, b)| all | (a ^ b));
        std::hint::black_box(difference) == 0
    }
}

/// Lets a request pass that has a token, and tells those behind whose.
pub(super) async fn authenticate(
    State(api): State<Api>,
    mut request: Request,
    next: Next,
) -> Response {
    let header = request
        .headers()
        .get(AUTHORIZATION)
        .map(HeaderValue::as_bytes);
    let error = match header.map(bearer) {
        Some(Some(given)) if api.token.is(given) => {
            request.extensions_mut().insert(Principal {
                id: ADMIN.into(),
                scope: Scope::Node,
                role: Role::Admin,
            });
            return next.run(request).await;
        }
        Some(Some(_)) => ApiError::new(
            Code::TokenWrong,
            "the token is not the one of this node: take it from the file admin-token in the node's data folder",
        ),
        Some(None) => ApiError::new(
            Code::TokenMissing,
            "the header authorization has no bearer token: send authorization: Bearer TOKEN",
        ),
        None => ApiError::new(
            Code::TokenMissing,
            "send the header authorization: Bearer TOKEN; the token is in the file admin-token in the node's data \
             folder",
        ),
    };
    let mut response = error.into_response();
    let bearer = HeaderValue::from_static("Bearer");
    response.headers_mut().insert(WWW_AUTHENTICATE, bearer);
    response
}

/// The token of a header; the scheme is not case-sensitive.
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(7)?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_and_no_other() {
        let token = Token::new("secret");
        assert!(token.is(b"secret"));
        assert!(!token.is(b"Secret") && !token.is(b"secre") && !token.is(b""));
    }

    #[test]
    fn bearer_headers() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bearer  abc "), Some(&b"abc"[..]));
        assert_eq!(bearer(b"Basic abc"), None);
        assert_eq!(bearer(b"Bearer "), None);
    }
}
