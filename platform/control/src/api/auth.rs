//! Who sends a request: the bearer token, which is the node's own or one that was made.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use platform_model::{Role, Scope};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use time::OffsetDateTime;

use super::Api;
use crate::engine::Refused;
use crate::problem::{ApiError, Code};
use crate::store::records::TokenRecord;

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
    /// What it is for.
    pub(super) label: Option<String>,
    /// Until when it is good, where it is not the node's own.
    pub(super) expires_at: Option<OffsetDateTime>,
}

impl Principal {
    /// The holder of the node's own token.
    fn admin() -> Self {
        Self {
            id: ADMIN.into(),
            scope: Scope::Node,
            role: Role::Admin,
            label: None,
            expires_at: None,
        }
    }
}

impl From<TokenRecord> for Principal {
    fn from(record: TokenRecord) -> Self {
        Self {
            id: record.id.to_string().into(),
            scope: record.scope,
            role: record.role,
            label: record.label,
            expires_at: Some(record.expires_at),
        }
    }
}

/// The hash of the node's own token.
#[derive(Clone)]
pub(super) struct Token([u8; 32]);

impl Token {
    pub(super) fn new(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Compares in a time that says nothing about where a difference is.
    fn is(&self, given: &[u8]) -> bool {
        let given: [u8; 32] = Sha256::digest(given).into();
        self.0.ct_eq(&given).into()
    }
}

/// Lets a request pass that has a token, and tells those behind whose.
pub(super) async fn authenticate(
    State(api): State<Api>,
    mut request: Request,
    next: Next,
) -> Response {
    let found = match principal(&api, request.headers()).await {
        Ok(principal) => match api.rates.as_deref() {
            Some(rates) => rates.request(&principal.id).map(|()| principal),
            None => Ok(principal),
        },
        Err(error) if error.code == Code::TokenWrong => {
            let rates = api.rates.as_deref();
            let counted = rates.map(|rates| rates.failure(address(&request)));
            Err(counted.and_then(Result::err).unwrap_or(error))
        }
        Err(error) => Err(error),
    };
    match found {
        Ok(principal) => {
            request.extensions_mut().insert(principal);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

/// The address that a request came from, where it came over a network.
pub(super) fn address(request: &Request) -> Option<IpAddr> {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    peer.map(|ConnectInfo(address)| address.ip())
}

/// Whose token a request has.
async fn principal(api: &Api, headers: &HeaderMap) -> Result<Principal, ApiError> {
    let header = headers.get(AUTHORIZATION);
    let Some(header) = header.map(HeaderValue::as_bytes) else {
        return Err(ApiError::new(
            Code::TokenMissing,
            "send the header authorization: Bearer TOKEN; the node's own is in the file admin-token in its data folder",
        ));
    };
    let given = bearer(header).ok_or_else(|| {
        let detail =
            "the header authorization has no bearer token: send authorization: Bearer TOKEN";
        ApiError::new(Code::TokenMissing, detail)
    })?;
    if api.token.is(given) {
        return Ok(Principal::admin());
    }
    let wrong = || {
        ApiError::new(
            Code::TokenWrong,
            "the token is none of this node, or was revoked: the node's own is in the file admin-token in its data folder",
        )
    };
    let text = std::str::from_utf8(given).map_err(|_| wrong())?;
    match api.engine.token_of(text).await? {
        Ok(record) => Ok(record.into()),
        Err(Refused::Wrong) => Err(wrong()),
        Err(Refused::Expired(when)) => {
            let detail = format!("the token expired at {when}: have another one made");
            Err(ApiError::new(Code::TokenExpired, detail))
        }
    }
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
