//! Tenants.

use platform_model::{Policy, Quotas, TenantName};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{Key, Record};

/// A tenant as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantRecord {
    /// Its name.
    pub tenant: TenantName,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// What it may have.
    #[serde(default)]
    pub quotas: Quotas,
    /// What all its apps together may take at the router.
    #[serde(default)]
    pub policy: Policy,
}

impl TenantRecord {
    /// A tenant with the default quotas and no policy.
    #[must_use]
    pub fn new(tenant: TenantName, created_at: OffsetDateTime) -> Self {
        Self {
            tenant,
            created_at,
            quotas: Quotas::default(),
            policy: Policy::default(),
        }
    }

    /// The key of a tenant.
    #[must_use]
    pub fn at(tenant: &TenantName) -> Key<Self> {
        Key::of(&[tenant.as_str()])
    }
}

impl Record for TenantRecord {
    const KIND: &'static str = "tenant";

    fn key(&self) -> Key<Self> {
        Self::at(&self.tenant)
    }
}
