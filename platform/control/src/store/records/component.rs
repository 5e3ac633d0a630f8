//! Components that tenants have uploaded.

use platform_model::{Digest, TenantName};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{Key, Prefix, Record};

/// A component that a tenant has uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentRecord {
    /// The tenant.
    pub tenant: TenantName,
    /// The component.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Size in bytes of what was compiled of it; 0 before it was.
    #[serde(default)]
    pub artifact_bytes: u64,
    /// Name of the file that was compiled of it, in the folder of artifacts; none before it was.
    #[serde(default)]
    pub artifact: Option<String>,
    /// When it was uploaded, the last time.
    #[serde(with = "time::serde::rfc3339")]
    pub uploaded_at: OffsetDateTime,
}

impl ComponentRecord {
    /// The key of a tenant's component.
    #[must_use]
    pub fn at(tenant: &TenantName, digest: &Digest) -> Key<Self> {
        Key::of(&[tenant.as_str(), &digest.hex()])
    }

    /// The components of a tenant.
    #[must_use]
    pub fn of(tenant: &TenantName) -> Prefix<Self> {
        Prefix::of(&[tenant.as_str()])
    }

    /// What it takes on the disk, in bytes.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.size.saturating_add(self.artifact_bytes)
    }
}

impl Record for ComponentRecord {
    const KIND: &'static str = "component";

    fn key(&self) -> Key<Self> {
        Self::at(&self.tenant, &self.digest)
    }
}
