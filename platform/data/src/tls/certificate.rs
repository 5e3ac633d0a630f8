//! A certificate with its chain and its key, read and checked.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// Longest chain, in certificates.
const MAX_CHAIN: usize = 10;

/// Why a certificate or its key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// No certificate in the text.
    #[error("there is no certificate: give the chain as PEM, the host's own certificate first")]
    NoCertificate,
    /// More than one would send.
    #[error("the chain has more than {MAX_CHAIN} certificates: leave the root out")]
    TooLong,
    /// A certificate that cannot be read.
    #[error("the certificate cannot be read: {0}")]
    Unreadable(String),
    /// No key in the text, or one that cannot be read.
    #[error("there is no private key: give one as PEM, PKCS #8, SEC 1 or PKCS #1, not encrypted")]
    NoKey,
    /// A key of a kind that is not supported.
    #[error(
        "the private key cannot be used (RSA from 2048 bits, ECDSA P-256 or P-384, Ed25519): {0}"
    )]
    Key(String),
    /// The key of another certificate.
    #[error("the private key is not that of the first certificate of the chain")]
    Mismatch,
    /// No name that a client could ask for.
    #[error("the certificate names no host (subjectAltName)")]
    NoName,
}

/// A certificate with its chain and its key, made for serving.
#[derive(Debug, Clone)]
pub struct Certificate {
    pub(super) key: Arc<CertifiedKey>,
    names: Vec<String>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

impl Certificate {
    /// Reads a chain, the host's own certificate first, and the key of that one; both PEM.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|error| CertificateError::Unreadable(error.to_string()))?;
        if chain.len() > MAX_CHAIN {
            return Err(CertificateError::TooLong);
        }
        let own = chain.first().ok_or(CertificateError::NoCertificate)?;
        let unreadable =
            |error: x509_cert::der::Error| CertificateError::Unreadable(error.to_string());
        let own = x509_cert::Certificate::from_der(own).map_err(unreadable)?;
        let own = own.tbs_certificate();
        let names = own.get_extension::<SubjectAltName>().map_err(unreadable)?;
        let names = names.map(|(_, names)| names.0).unwrap_or_default();
        let names: Vec<String> = names
            .into_iter()
            .filter_map(|name| match name {
                GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase()),
                _ => None,
            })
            .collect();
        if names.is_empty() {
            return Err(CertificateError::NoName);
        }
        let validity = own.validity();
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| CertificateError::NoKey)?;
        let key = CertifiedKey::from_der(chain, key, &ring::default_provider());
        let key = key.map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => CertificateError::Mismatch,
            error => CertificateError::Key(error.to_string()),
        })?;
        Ok(Self {
            key: Arc::new(key),
            names,
            not_before: validity.not_before.to_system_time().into(),
            not_after: validity.not_after.to_system_time().into(),
        })
    }

    /// The names that it is for, in lower case; `*.NAME` stands for each name one label below.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether it is for a host.
    #[must_use]
    pub fn covers(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let below = host.split_once('.').map(|(_, rest)| rest);
        self.names.iter().any(|name| {
            *name == host
                || name
                    .strip_prefix("*.")
                    .is_some_and(|name| below == Some(name))
        })
    }

    /// The host's own certificate, DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        self.key.cert.first().map_or(&[], AsRef::as_ref)
    }

    /// From when it is valid.
    #[must_use]
    pub fn not_before(&self) -> OffsetDateTime {
        self.not_before
    }

    /// Until when it is valid.
    #[must_use]
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn made(names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn names_and_times_are_read() {
        let (chain, key) = made(&["Shop.example", "*.shop.example", "192.0.2.1"]);
        let certificate = Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        assert_eq!(certificate.names(), ["shop.example", "*.shop.example"]);
        for (host, covered) in [
            ("SHOP.example", true),
            ("a.shop.example", true),
            ("a.b.shop.example", false),
            ("example", false),
            ("192.0.2.1", false),
        ] {
            assert_eq!(certificate.covers(host), covered, "{host}");
        }
        assert_eq!(certificate.not_before().year(), 1975);
        assert_eq!(certificate.not_after().year(), 4096);
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        let (chain, key) = made(&["a.example"]);
        let (_, other) = made(&["a.example"]);
        let (nameless, its_key) = made(&["192.0.2.1"]);
        let long = chain.repeat(MAX_CHAIN + 1);
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let read = |chain: &str, key: &str| {
            Certificate::from_pem(chain.as_bytes(), key.as_bytes()).map(|_| ())
        };
        assert_eq!(read("", &key), Err(CertificateError::NoCertificate));
        assert_eq!(read(&long, &key), Err(CertificateError::TooLong));
        assert_eq!(read(&chain, ""), Err(CertificateError::NoKey));
        assert_eq!(read(&chain, &chain), Err(CertificateError::NoKey));
        assert_eq!(read(&chain, &other), Err(CertificateError::Mismatch));
        assert_eq!(read(&nameless, &its_key), Err(CertificateError::NoName));
        assert!(matches!(
            read(garbage, &key),
            Err(CertificateError::Unreadable(_))
        ));
    }
}
