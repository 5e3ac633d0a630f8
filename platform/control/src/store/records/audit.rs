//! The audit log: every change that was asked for, once for the node and once for the tenant that it was about.
//!
//! Keys count down, so that a scan has the latest first.

use platform_model::{Audit, TenantName};
use serde::{Deserialize, Serialize};

use super::{Key, Prefix, Record};

/// The place of a line in the log: nanoseconds of the Unix clock, and never the same twice in one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AuditId(pub u64);

impl AuditId {
    /// As the last part of a key: twenty digits that count down.
    fn part(self) -> String {
        format!("{:020}", u64::MAX - self.0)
    }

    /// The cursor after which a page has all lines that are older.
    #[must_use]
    pub fn cursor(self) -> String {
        self.part()
    }
}

/// A line of the node's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Its place.
    pub id: AuditId,
    /// The line.
    #[serde(flatten)]
    pub audit: Audit,
}

impl Record for AuditRecord {
    const KIND: &'static str = "audit";

    fn key(&self) -> Key<Self> {
        Key::of(&[&self.id.part()])
    }
}

/// A line of a tenant's log: the same as that of the node's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantAuditRecord {
    /// The tenant whose log it is in.
    pub log: TenantName,
    /// Its place.
    pub id: AuditId,
    /// The line.
    #[serde(flatten)]
    pub audit: Audit,
}

impl TenantAuditRecord {
    /// The log of a tenant.
    #[must_use]
    pub fn of(tenant: &TenantName) -> Prefix<Self> {
        Prefix::of(&[tenant.as_str()])
    }
}

impl Record for TenantAuditRecord {
    const KIND: &'static str = "tenant-audit";

    fn key(&self) -> Key<Self> {
        Key::of(&[self.log.as_str(), &self.id.part()])
    }
}
