//! Domains: what tenants say is theirs, whose it is proved to be, certificates, and what is done to obtain them.

use platform_model::{CertificateInfo, DomainOptions, HostName, TenantName};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{Key, Prefix, Record};
use crate::sealing::Sealed;

/// A domain that a tenant has added. Several tenants may have added one; it is proved to be that of one of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainRecord {
    /// The tenant.
    pub tenant: TenantName,
    /// The domain.
    pub domain: HostName,
    /// What a TXT record has to hold to prove it. It is no secret, and another one for each tenant.
    pub token: String,
    /// When it was added.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it was proved.
    #[serde(with = "time::serde::rfc3339::option")]
    pub proved_at: Option<OffsetDateTime>,
    /// What it is to be.
    pub options: DomainOptions,
}

impl DomainRecord {
    /// The key of a tenant's domain.
    #[must_use]
    pub fn at(tenant: &TenantName, domain: &HostName) -> Key<Self> {
        Key::of(&[tenant.as_str(), domain.as_str()])
    }

    /// The domains of a tenant.
    #[must_use]
    pub fn of(tenant: &TenantName) -> Prefix<Self> {
        Prefix::of(&[tenant.as_str()])
    }
}

impl Record for DomainRecord {
    const KIND: &'static str = "domain";

    fn key(&self) -> Key<Self> {
        Self::at(&self.tenant, &self.domain)
    }
}

/// Whose a domain is proved to be: there is one record of a domain, and so one tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainOwnerRecord {
    /// The domain.
    pub domain: HostName,
    /// The tenant.
    pub tenant: TenantName,
}

impl DomainOwnerRecord {
    /// The key of a domain.
    #[must_use]
    pub fn at(domain: &HostName) -> Key<Self> {
        Key::of(&[domain.as_str()])
    }
}

impl Record for DomainOwnerRecord {
    const KIND: &'static str = "domain-owner";

    fn key(&self) -> Key<Self> {
        Self::at(&self.domain)
    }
}

/// The certificate of a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRecord {
    /// The tenant that the domain belongs to.
    pub tenant: TenantName,
    /// The domain.
    pub domain: HostName,
    /// What it says.
    pub info: CertificateInfo,
    /// The chain as PEM.
    pub chain: String,
    /// The private key as PEM, sealed.
    pub key: Sealed,
}

impl CertificateRecord {
    /// The key of a domain's certificate.
    #[must_use]
    pub fn at(tenant: &TenantName, domain: &HostName) -> Key<Self> {
        Key::of(&[tenant.as_str(), domain.as_str()])
    }

    /// The certificates of a tenant's domains.
    #[must_use]
    pub fn of(tenant: &TenantName) -> Prefix<Self> {
        Prefix::of(&[tenant.as_str()])
    }
}

impl Record for CertificateRecord {
    const KIND: &'static str = "certificate";

    fn key(&self) -> Key<Self> {
        Self::at(&self.tenant, &self.domain)
    }
}

/// When a domain's certificate is to be obtained, and how it went so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuanceRecord {
    /// The tenant that the domain belongs to.
    pub tenant: TenantName,
    /// The domain.
    pub domain: HostName,
    /// When it is tried next.
    #[serde(with = "time::serde::rfc3339")]
    pub next_at: OffsetDateTime,
    /// How often in a row it failed.
    pub failures: u32,
    /// Why it failed last.
    pub last_error: Option<String>,
}

impl IssuanceRecord {
    /// The key of a domain's issuance.
    #[must_use]
    pub fn at(tenant: &TenantName, domain: &HostName) -> Key<Self> {
        Key::of(&[tenant.as_str(), domain.as_str()])
    }

    /// Those of a tenant's domains.
    #[must_use]
    pub fn of(tenant: &TenantName) -> Prefix<Self> {
        Prefix::of(&[tenant.as_str()])
    }
}

impl Record for IssuanceRecord {
    const KIND: &'static str = "issuance";

    fn key(&self) -> Key<Self> {
        Self::at(&self.tenant, &self.domain)
    }
}

/// The node's account with a certificate authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcmeAccountRecord {
    /// SHA-256 of the URL of the authority's directory, in hexadecimal digits.
    pub id: String,
    /// The URL.
    pub directory: String,
    /// The account with its key as JSON, sealed.
    pub credentials: Sealed,
}

impl AcmeAccountRecord {
    /// The key of an account.
    #[must_use]
    pub fn at(id: &str) -> Key<Self> {
        Key::of(&[id])
    }
}

impl Record for AcmeAccountRecord {
    const KIND: &'static str = "acme-account";

    fn key(&self) -> Key<Self> {
        Self::at(&self.id)
    }
}
