//! Domains of a tenant: proved to be its own, then served, with or without a certificate.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::{HostName, Secret, TenantName, secret};

/// Most domains of a tenant, proved or not.
pub const MAX_DOMAINS: usize = 100;

/// Longest chain of certificates, and longest key, in bytes of PEM.
pub const MAX_PEM: usize = 64 << 10;

/// Longest time that clients may be told to remember to come over TLS, in seconds: two years.
const MAX_AGE: u64 = 63_072_000;

/// Why a domain is not possible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// A name of the node's own.
    #[error(
        "{0} is below localhost: apps have such hosts of themselves, a domain is a name in DNS"
    )]
    Local(HostName),
    /// A time that is too long.
    #[error("hsts.max_age_seconds is {0}: it may be from 0 to {MAX_AGE}")]
    MaxAge(u64),
}

/// `Strict-Transport-Security`, RFC 6797: what clients are told over TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HstsOptions {
    /// How long clients are to remember it, in seconds; 0 makes them forget it. Up to two years.
    #[schema(minimum = 0, maximum = 63_072_000)]
    pub max_age_seconds: u64,
    /// Whether it holds for names below the domain too. False by default.
    #[serde(default)]
    pub include_subdomains: bool,
}

/// What a domain is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DomainOptions {
    /// Whether requests over plain HTTP are sent to HTTPS, from when there is a certificate on. False by default.
    pub https_redirect: bool,
    /// What clients are told over TLS. Nothing by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hsts: Option<HstsOptions>,
    /// Whether the node obtains and renews a certificate, where it has a certificate authority and none was uploaded. True
    /// by default.
    pub acme: bool,
}

impl Default for DomainOptions {
    fn default() -> Self {
        Self {
            https_redirect: false,
            hsts: None,
            acme: true,
        }
    }
}

impl DomainOptions {
    /// Checks what the types alone do not, for a domain with this name.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self, domain: &HostName) -> Result<(), DomainError> {
        if domain.is_local() {
            return Err(DomainError::Local(domain.clone()));
        }
        match &self.hsts {
            Some(hsts) if hsts.max_age_seconds > MAX_AGE => {
                Err(DomainError::MaxAge(hsts.max_age_seconds))
            }
            _ => Ok(()),
        }
    }
}

/// How a domain can be proved: one of the two is enough.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Proof {
    /// The name of a TXT record.
    pub txt_name: String,
    /// What the record has to hold.
    pub txt_value: String,
    /// A URL that is asked over plain HTTP; redirects are not followed.
    pub http_url: String,
    /// What has to be answered there with the status 200, and nothing else.
    pub http_body: String,
}

/// Where a certificate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CertificateSource {
    /// Somebody uploaded it.
    Uploaded,
    /// The node obtained it, and renews it.
    Acme,
}

/// The certificate of a domain, without its key, which is never given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CertificateInfo {
    /// Where it comes from.
    pub source: CertificateSource,
    /// The names that it is for.
    pub names: Vec<String>,
    /// From when it is valid.
    #[serde(with = "time::serde::rfc3339")]
    pub not_before: OffsetDateTime,
    /// Until when it is valid.
    #[serde(with = "time::serde::rfc3339")]
    pub not_after: OffsetDateTime,
    /// SHA-256 of the certificate, in hexadecimal digits.
    pub sha256: String,
}

/// What the node does to obtain or renew a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Issuance {
    /// When it tries next.
    #[serde(with = "time::serde::rfc3339")]
    pub next_at: OffsetDateTime,
    /// How often in a row it failed.
    pub failures: u32,
    /// Why it failed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// A domain of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Domain {
    /// Its name.
    pub domain: HostName,
    /// The tenant.
    pub tenant: TenantName,
    /// When it was added.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it was proved to be the tenant's; left out where it is not, and then it serves nothing.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "time::serde::rfc3339::option"
    )]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub proved_at: Option<OffsetDateTime>,
    /// How it can be proved.
    pub proof: Proof,
    /// What it is to be.
    pub options: DomainOptions,
    /// Its certificate, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateInfo>,
    /// What the node does to obtain or renew a certificate, where that is the node's to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuance: Option<Issuance>,
}

/// A certificate to be served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateRequest {
    /// The chain as PEM: the domain's own certificate first, then those of the authorities, without the root.
    #[schema(max_length = 65536)]
    pub chain: String,
    /// The private key of the first certificate as PEM, not encrypted.
    #[serde(serialize_with = "secret::expose")]
    #[schema(max_length = 65536)]
    pub key: Secret,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_have_defaults_and_bounds() {
        let options: DomainOptions = serde_json::from_str("{}").unwrap();
        assert_eq!(options, DomainOptions::default());
        assert!(options.acme && !options.https_redirect);
        let name: HostName = "shop.example".parse().unwrap();
        assert_eq!(options.check(&name), Ok(()));
        let local: HostName = "shop.localhost".parse().unwrap();
        assert!(options.check(&local).is_err());
        let hsts = |seconds: u64| {
            let text = format!(r#"{{"hsts":{{"max_age_seconds":{seconds}}}}}"#);
            serde_json::from_str::<DomainOptions>(&text).unwrap()
        };
        assert_eq!(hsts(MAX_AGE).check(&name), Ok(()));
        assert_eq!(
            hsts(MAX_AGE + 1).check(&name),
            Err(DomainError::MaxAge(MAX_AGE + 1))
        );
    }
}
