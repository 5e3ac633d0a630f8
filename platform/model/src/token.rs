//! Tokens of the API: who may do what, until when.
//!
//! A token is written `clo_ID_SECRET`. The id is public and names it in lists and in the audit log; the secret is 256 random
//! bits, which the node shows once and does not keep.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::schema::{self, schema};
use crate::{AppName, Role, Scope, Secret, TenantName, secret};

/// How a token begins, so that one that got lost is found by those who look for such.
const PREFIX: &str = "clo_";

/// Longest own part of an id, in characters.
const MAX_ID: usize = 32;

/// Longest label, in characters.
pub const MAX_LABEL: usize = 100;

/// How long a token is good where nothing is said, in seconds: 90 days.
pub const DEFAULT_LIFETIME: u64 = 90 * 86_400;

/// How long a token can be good at the most, in seconds: ten years.
pub const MAX_LIFETIME: u64 = 3_653 * 86_400;

/// The text is no id of a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not the id of a token: those of a node are written ID, those of a tenant TENANT.ID"
)]
pub struct TokenIdError(String);

/// The id of a token: `ID`, or `TENANT.ID` where it is of a tenant or one of its apps.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId {
    tenant: Option<TenantName>,
    own: String,
}

impl TokenId {
    /// The id of a token of a tenant, or of the node. `own` is of `a-z` and `0-9`.
    ///
    /// # Errors
    /// When `own` is not.
    pub fn new(tenant: Option<TenantName>, own: &str) -> Result<Self, TokenIdError> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if (1..=MAX_ID).contains(&own.len()) && own.bytes().all(fits) {
            let own = own.to_owned();
            Ok(Self { tenant, own })
        } else {
            Err(TokenIdError(own.chars().take(80).collect()))
        }
    }

    /// The tenant, where it is not of the node.
    #[must_use]
    pub fn tenant(&self) -> Option<&TenantName> {
        self.tenant.as_ref()
    }

    /// What tells it from the others of the tenant, or of the node.
    #[must_use]
    pub fn own(&self) -> &str {
        &self.own
    }

    /// The token with this id and a secret, as it is sent.
    #[must_use]
    pub fn with_secret(&self, secret: &Secret) -> Secret {
        Secret::new(format!("{PREFIX}{self}_{}", secret.expose()))
    }

    /// Splits a token into its id and its secret; `None` where it is none.
    #[must_use]
    pub fn of_token(token: &str) -> Option<(Self, Secret)> {
        let (id, secret) = token.strip_prefix(PREFIX)?.split_once('_')?;
        let id = id.parse().ok()?;
        (!secret.is_empty()).then(|| (id, Secret::new(secret)))
    }
}

impl FromStr for TokenId {
    type Err = TokenIdError;

    fn from_str(text: &str) -> Result<Self, TokenIdError> {
        let wrong = || TokenIdError(text.chars().take(80).collect());
        let (tenant, own) = match text.split_once('.') {
            Some((tenant, own)) => (Some(tenant.parse().map_err(|_| wrong())?), own),
            None => (None, text),
        };
        Self::new(tenant, own).map_err(|_| wrong())
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tenant {
            Some(tenant) => f.pad(&format!("{tenant}.{}", self.own)),
            None => f.pad(&self.own),
        }
    }
}

impl Serialize for TokenId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TokenId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

schema!(
    TokenId,
    "TokenId",
    schema::text(
        "The public id of a token.",
        "^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\.)?[a-z0-9]{1,32}$",
        "acme.k3v9x2m7q1",
    )
);

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// Its id.
    pub id: TokenId,
    /// What it is over.
    pub scope: Scope,
    /// What its holder may do there.
    pub role: Role,
    /// What it is for, in the words of whoever made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Who made it: the id of a token, or `admin-token`.
    pub created_by: String,
    /// Until when it is good.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
}

/// A token that was made, with the text that is sent. It is not shown again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreatedToken {
    /// What is known of it.
    #[serde(flatten)]
    pub info: Token,
    /// `clo_ID_SECRET`.
    #[serde(serialize_with = "secret::expose")]
    pub token: Secret,
}

/// Why the content of a [`TokenRequest`] is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenRequestError {
    /// It would be good for no time, or for too long.
    #[error("expires_in_seconds is {0}: it may be from 1 to {MAX_LIFETIME}")]
    Lifetime(u64),
    /// The label is too long, or has control characters.
    #[error(
        "label has {0} characters, some of them control characters perhaps: at most {MAX_LABEL} printable ones are possible"
    )]
    Label(usize),
    /// An app was named where there is none.
    #[error("app: a token of the node is not of an app; make it a token of the app's tenant")]
    App,
}

/// The token that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// What its holder may do.
    pub role: Role,
    /// The one app that it is over, which need not be there yet. Left out, it is over the whole tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<AppName>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 100)]
    pub label: Option<String>,
    /// How long it is good, in seconds. 90 days by default; up to ten years.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 315619200)]
    pub expires_in_seconds: Option<u64>,
}

impl TokenRequest {
    /// One with a role and the defaults.
    #[must_use]
    pub fn new(role: Role) -> Self {
        Self {
            role,
            app: None,
            label: None,
            expires_in_seconds: None,
        }
    }

    /// How long it is to be good, in seconds.
    #[must_use]
    pub fn lifetime(&self) -> u64 {
        self.expires_in_seconds.unwrap_or(DEFAULT_LIFETIME)
    }

    /// Checks what the types alone do not.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), TokenRequestError> {
        let lifetime = self.lifetime();
        if !(1..=MAX_LIFETIME).contains(&lifetime) {
            return Err(TokenRequestError::Lifetime(lifetime));
        }
        let label = self.label.as_deref().unwrap_or_default();
        let length = label.chars().count();
        if length > MAX_LABEL || label.chars().any(char::is_control) {
            return Err(TokenRequestError::Label(length));
        }
        Ok(())
    }
}

/// Who the sender of a request is: the answer of `GET /v1/whoami`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Whoami {
    /// The id of the token; `admin-token` for the node's own.
    pub id: String,
    /// What the token is over.
    pub scope: Scope,
    /// What its holder may do there.
    pub role: Role,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Until when it is good; left out for the node's own.
    #[serde(
        default,
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub expires_at: Option<OffsetDateTime>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_tokens() {
        for text in ["abc123", "acme.x7", "a-b.c"] {
            let id: TokenId = text.parse().unwrap();
            assert_eq!(id.to_string(), text);
            let token = id.with_secret(&Secret::new("5ec_ret"));
            assert_eq!(token.expose(), format!("clo_{text}_5ec_ret"));
            let (again, secret) = TokenId::of_token(token.expose()).unwrap();
            assert_eq!((again, secret.expose()), (id, "5ec_ret"));
        }
        for bad in [
            "", "A", "a b", "acme.", ".x", "Acme.x", "a/b.c", "a.b.c", "x_y", "-",
        ] {
            assert!(bad.parse::<TokenId>().is_err(), "{bad}");
        }
        for bad in ["", "clo_", "clo_x", "clo_x_", "x_y_z", "clo__x"] {
            assert!(TokenId::of_token(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn requests_are_checked() {
        let request: TokenRequest = serde_json::from_str(r#"{"role":"deploy"}"#).unwrap();
        assert_eq!(request, TokenRequest::new(Role::Deploy));
        assert_eq!((request.check(), request.lifetime()), (Ok(()), 7_776_000));
        let expires_in_seconds = Some(0);
        let none = TokenRequest {
            expires_in_seconds,
            ..request.clone()
        };
        assert_eq!(none.check(), Err(TokenRequestError::Lifetime(0)));
        let label = Some("a\nb".to_owned());
        let lines = TokenRequest { label, ..request };
        assert_eq!(lines.check(), Err(TokenRequestError::Label(3)));
        assert!(serde_json::from_str::<TokenRequest>(r#"{"role":"root"}"#).is_err());
    }
}
