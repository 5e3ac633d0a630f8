//! Certificates of domains: checked, their keys sealed, served.

use platform_data::{Certificate, CertificateError};
use platform_model::domain::MAX_PEM;
use platform_model::{
    CertificateInfo, CertificateRequest, CertificateSource, Domain, HostName, Secret, TenantName,
};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{DomainsError, Engine, Origin, domains};
use crate::keyring::Sealing;
use crate::sealing::{Keys, Place, SealError, Sealed};
use crate::store::Change;
use crate::store::records::{CertificateRecord, DomainRecord, IssuanceRecord, Stored};

/// Why a certificate is not served.
#[derive(Debug, thiserror::Error)]
pub enum CertificateProblem {
    /// It is too long.
    #[error("the {0} has more than {MAX_PEM} bytes")]
    TooLong(&'static str),
    /// It or its key cannot be used.
    #[error(transparent)]
    Unusable(#[from] CertificateError),
    /// It is not for the domain.
    #[error("the certificate is for {1}, not for {0}")]
    OtherName(HostName, String),
    /// It is no longer valid.
    #[error("the certificate has expired ({0})")]
    Expired(String),
    /// It is not valid yet.
    #[error("the certificate is not valid before {0}")]
    Early(String),
    /// The key cannot be sealed or opened.
    #[error("the key of the certificate: {0}")]
    Seal(#[from] SealError),
}

/// Reads and checks a certificate for a domain, at a time.
pub(super) fn check(
    domain: &HostName,
    chain: &str,
    key: &Secret,
    source: CertificateSource,
    now: OffsetDateTime,
) -> Result<CertificateInfo, CertificateProblem> {
    for (what, text) in [("chain", chain), ("key", key.expose())] {
        if text.len() > MAX_PEM {
            return Err(CertificateProblem::TooLong(what));
        }
    }
    let read = Certificate::from_pem(chain.as_bytes(), key.expose().as_bytes())?;
    let told = |time: OffsetDateTime| time.format(&Rfc3339).unwrap_or_default();
    if !read.covers(domain.as_str()) {
        let names = read.names().join(", ");
        return Err(CertificateProblem::OtherName(domain.clone(), names));
    }
    if read.not_after() <= now {
        return Err(CertificateProblem::Expired(told(read.not_after())));
    }
    if read.not_before() > now {
        return Err(CertificateProblem::Early(told(read.not_before())));
    }
    let hash = Sha256::digest(read.der());
    Ok(CertificateInfo {
        source,
        names: read.names().to_vec(),
        not_before: read.not_before(),
        not_after: read.not_after(),
        sha256: hash.iter().map(|byte| format!("{byte:02x}")).collect(),
    })
}

/// When a certificate is to be renewed: a third of its life before its end.
pub(super) fn renewal(info: &CertificateInfo) -> OffsetDateTime {
    info.not_after - (info.not_after - info.not_before) / 3
}

/// What the key of a certificate is sealed for.
fn place<'a>(tenant: &'a TenantName, domain: &'a HostName) -> [&'a str; 3] {
    ["certificate", tenant.as_str(), domain.as_str()]
}

/// A certificate as it is stored.
pub(super) fn record(
    keys: &Sealing,
    tenant: &TenantName,
    domain: &HostName,
    info: CertificateInfo,
    (chain, key): (String, &Secret),
) -> Result<CertificateRecord, SealError> {
    Ok(CertificateRecord {
        tenant: tenant.clone(),
        domain: domain.clone(),
        info,
        chain,
        key: keys.seal(Place(&place(tenant, domain)), key)?,
    })
}

/// Opens the key of a certificate.
fn open_key(keys: &Keys, record: &CertificateRecord) -> Result<Secret, SealError> {
    keys.open(Place(&place(&record.tenant, &record.domain)), &record.key)
}

/// Opens a certificate that is stored.
///
/// # Errors
/// When its key does not open, or it cannot be used.
pub(crate) fn open(
    keys: &Keys,
    record: &CertificateRecord,
) -> Result<Certificate, CertificateProblem> {
    let key = open_key(keys, record)?;
    let read = Certificate::from_pem(record.chain.as_bytes(), key.expose().as_bytes());
    Ok(read?)
}

/// The certificate with its key under the current key of the node; none where it is, or it does not open.
pub(super) fn reseal(
    keys: &Keys,
    record: &CertificateRecord,
) -> Result<Option<CertificateRecord>, SealError> {
    if record.key.key == keys.current() {
        return Ok(None);
    }
    let opened = open_key(keys, record)?;
    let key: Sealed = keys.seal(Place(&place(&record.tenant, &record.domain)), &opened)?;
    let record = record.clone();
    Ok(Some(CertificateRecord { key, ..record }))
}

impl Engine {
    /// Serves a domain with a certificate, in place of the one that it has.
    ///
    /// # Errors
    /// Why it is not; the domain has the one that it had then.
    pub async fn set_certificate(
        &self,
        origin: &Origin,
        tenant: &TenantName,
        domain: &HostName,
        request: CertificateRequest,
    ) -> Result<Stored<Domain>, DomainsError> {
        let source = CertificateSource::Uploaded;
        let CertificateRequest { chain, key } = request;
        self.need_proved(tenant, domain).await?;
        let info = check(domain, &chain, &key, source, OffsetDateTime::now_utc())?;
        let _turn = self.domain_turn.lock().await;
        // Held until the key is stored: see `Keyring`.
        let keys = self.keyring.sealing().await;
        let record = record(&keys, tenant, domain, info, (chain, &key));
        let record = record.map_err(CertificateProblem::from)?;
        let plan = move |change: &mut Change<'_>| {
            let of = proved(change, &record.tenant, &record.domain)?;
            change.put(&record)?;
            change.delete(&IssuanceRecord::at(&record.tenant, &record.domain));
            Ok::<_, DomainsError>(of)
        };
        let of = self.change(origin, plan).await?;
        drop(keys);
        self.serve_stored(&of).await?;
        self.domain(tenant, domain).await
    }

    /// Serves a domain without its certificate; the node then obtains one, where that is its to do.
    ///
    /// # Errors
    /// When there is none.
    pub async fn delete_certificate(
        &self,
        origin: &Origin,
        tenant: &TenantName,
        domain: &HostName,
    ) -> Result<(), DomainsError> {
        let _turn = self.domain_turn.lock().await;
        let (t, d, now) = (tenant.clone(), domain.clone(), origin.time());
        let issues = self.certifier.is_some();
        let plan = move |change: &mut Change<'_>| {
            let of = change.get(&DomainRecord::at(&t, &d))?;
            let of = of.ok_or_else(|| DomainsError::Unknown(d.clone()))?;
            let key = CertificateRecord::at(&t, &d);
            if change.get(&key)?.is_none() {
                return Err(DomainsError::NoCertificate(d.clone()));
            }
            change.delete(&key);
            change.delete(&IssuanceRecord::at(&t, &d));
            domains::plan_issuance(change, &of, issues, now)?;
            Ok(of)
        };
        let of = self.change(origin, plan).await?;
        self.serve_stored(&of).await
    }

    /// Demands that a domain is proved, before work is done that would be in vain.
    async fn need_proved(
        &self,
        tenant: &TenantName,
        domain: &HostName,
    ) -> Result<(), DomainsError> {
        let found = self.domain(tenant, domain).await?;
        match found.record.proved_at {
            Some(_) => Ok(()),
            None => Err(DomainsError::Unproved(domain.clone())),
        }
    }
}

/// A domain that is proved, within a change.
pub(super) fn proved(
    change: &mut Change<'_>,
    tenant: &TenantName,
    domain: &HostName,
) -> Result<DomainRecord, DomainsError> {
    match change.get(&DomainRecord::at(tenant, domain))? {
        None => Err(DomainsError::Unknown(domain.clone())),
        Some(record) if record.proved_at.is_none() => Err(DomainsError::Unproved(domain.clone())),
        Some(record) => Ok(record),
    }
}
