//! Requests that came with an `Idempotency-Key` and were carried out: asked again with the key, they are not again.

use platform_model::TenantName;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{Key, Prefix, Record};
use crate::sealing::Sealed;

/// First part of the keys of tokens that are of no tenant; no tenant has such a name.
const NODE: &str = "-";

/// Names a request that is to be carried out once: who sent it, and a hash of the key that it came with.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OnceKey {
    /// The tenant of the token, where it is of one.
    pub tenant: Option<TenantName>,
    /// The token's id.
    pub who: String,
    /// SHA-256 of the `Idempotency-Key`, in hexadecimal digits.
    pub key: String,
}

/// A request that was carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyRecord {
    /// Who sent it, with which key.
    pub once: OnceKey,
    /// SHA-256 of method, path and body, in hexadecimal digits.
    pub fingerprint: String,
    /// When it was carried out.
    #[serde(with = "time::serde::rfc3339")]
    pub done_at: OffsetDateTime,
    /// What was answered, sealed: it may have a token in it. None where the node ended between the change and the answer.
    pub answer: Option<Sealed>,
}

impl IdempotencyRecord {
    /// The key of a request.
    #[must_use]
    pub fn at(once: &OnceKey) -> Key<Self> {
        let tenant = once.tenant.as_ref().map_or(NODE, TenantName::as_str);
        Key::of(&[tenant, &once.who, &once.key])
    }

    /// The requests of all tokens of a tenant.
    #[must_use]
    pub fn of(tenant: &TenantName) -> Prefix<Self> {
        Prefix::of(&[tenant.as_str()])
    }
}

impl Record for IdempotencyRecord {
    const KIND: &'static str = "idempotency";

    fn key(&self) -> Key<Self> {
        Self::at(&self.once)
    }
}
