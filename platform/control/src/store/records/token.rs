//! Tokens of the API. Their secrets are not stored, only a hash.

use platform_model::{Role, Scope, TenantName, Token, TokenId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{Key, Prefix, Record};

/// First part of the keys of tokens of the node; no tenant has such a name.
const NODE: &str = "-";

/// A token as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Its id.
    pub id: TokenId,
    /// SHA-256 of its secret, in hexadecimal digits. The secret has 256 random bits: a hash that takes long would add
    /// nothing.
    pub hash: String,
    /// What it is over: the node, or the tenant of the id, or an app of that.
    pub scope: Scope,
    /// What its holder may do there.
    pub role: Role,
    /// What it is for.
    pub label: Option<String>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Who made it.
    pub created_by: String,
    /// Until when it is good.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
}

impl TokenRecord {
    /// The key of a token.
    #[must_use]
    pub fn at(id: &TokenId) -> Key<Self> {
        let tenant = id.tenant().map_or(NODE, TenantName::as_str);
        Key::of(&[tenant, id.own()])
    }

    /// The tokens of a tenant, or of the node.
    #[must_use]
    pub fn of(tenant: Option<&TenantName>) -> Prefix<Self> {
        Prefix::of(&[tenant.map_or(NODE, TenantName::as_str)])
    }

    /// The token as the API gives it.
    #[must_use]
    pub fn token(self) -> Token {
        Token {
            id: self.id,
            scope: self.scope,
            role: self.role,
            label: self.label,
            created_at: self.created_at,
            created_by: self.created_by,
            expires_at: self.expires_at,
        }
    }
}

impl Record for TokenRecord {
    const KIND: &'static str = "token";

    fn key(&self) -> Key<Self> {
        Self::at(&self.id)
    }
}
