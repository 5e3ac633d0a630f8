//! What a tenant has: kept beside the things themselves and changed together with them, so that a quota is one look-up.

use platform_model::TenantName;
use serde::{Deserialize, Serialize};

use super::{Key, Record};

/// How much a tenant has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRecord {
    /// The tenant.
    pub tenant: TenantName,
    /// Its apps.
    pub apps: u64,
    /// The deployments of all its apps.
    pub deployments: u64,
    /// Bytes of its components, and of what was compiled of them.
    pub disk_bytes: u64,
    /// Tokens of the tenant and of its apps.
    #[serde(default)]
    pub tokens: u64,
}

impl UsageRecord {
    /// That of a tenant that has nothing.
    #[must_use]
    pub fn none(tenant: &TenantName) -> Self {
        Self {
            tenant: tenant.clone(),
            apps: 0,
            deployments: 0,
            disk_bytes: 0,
            tokens: 0,
        }
    }

    /// The key of a tenant's usage.
    #[must_use]
    pub fn at(tenant: &TenantName) -> Key<Self> {
        Key::of(&[tenant.as_str()])
    }
}

impl Record for UsageRecord {
    const KIND: &'static str = "usage";

    fn key(&self) -> Key<Self> {
        Self::at(&self.tenant)
    }
}
