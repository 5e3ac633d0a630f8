//! Domains of tenants: added, proved, set, deleted.
//!
//! Any tenant may add any domain; whose it is, is decided by a proof, and then it is that tenant's alone. So nobody can keep
//! a domain from whom it belongs to, and adding one tells nothing of other tenants.
//!
//! Changes of domains take turns, all of them: what is served is what was committed last.

use std::collections::BTreeMap;
use std::sync::Arc;

use platform_model::domain::MAX_DOMAINS;
use platform_model::{
    AppName, CertificateInfo, CertificateSource, Domain, DomainError, DomainOptions, HostName,
    Issuance, List, TenantName,
};
use time::OffsetDateTime;

use super::serving::ServedDomain;
use super::{
    CertificateProblem, DeployError, Engine, Expected, Origin, TenantError, Unexpected,
    certificates, tenants,
};
use crate::proof::{Unproved, proof_of};
use crate::store::records::{
    CertificateRecord, DomainOwnerRecord, DomainRecord, IssuanceRecord, Prefix, RoutesRecord,
    Stored,
};
use crate::store::{Change, Records, StoreError};

/// Random bytes of a token.
const TOKEN: usize = 16;

/// Why a domain was not changed.
#[derive(Debug, thiserror::Error)]
pub enum DomainsError {
    /// The tenant has not added it.
    #[error("the tenant has no domain {0}: add it first")]
    Unknown(HostName),
    /// It is not possible.
    #[error(transparent)]
    Domain(#[from] DomainError),
    /// The tenant has too many.
    #[error("the tenant has {MAX_DOMAINS} domains, and no more are possible: delete one first")]
    TooMany,
    /// There is no proof.
    #[error("{0} is not proved: {1}")]
    ProofFailed(HostName, Unproved),
    /// It is not proved yet.
    #[error("{0} is not proved to be the tenant's: verify it first")]
    Unproved(HostName),
    /// It is proved to be another tenant's.
    #[error(
        "{0} is in use on this node already: take it out where it is, or ask the operator of the node"
    )]
    Taken(HostName),
    /// An app has routes on it.
    #[error("the app {1} has a route on {0}: take it out first")]
    InUse(HostName, AppName),
    /// The certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateProblem),
    /// It has no certificate.
    #[error("{0} has no certificate")]
    NoCertificate(HostName),
    /// The node does not obtain certificates for it.
    #[error("the node obtains no certificate for {0}: {1}")]
    NotIssued(HostName, &'static str),
    /// It is not as the caller has seen it.
    #[error(transparent)]
    Unexpected(#[from] Unexpected),
    /// The tenant is not there.
    #[error(transparent)]
    Tenant(#[from] TenantError),
    /// There is no randomness.
    #[error("the system gives no random bytes: {0}")]
    Random(#[from] getrandom::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Engine {
    /// The domains of a tenant, a page of them.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn domains(
        &self,
        tenant: &TenantName,
        after: Option<String>,
        limit: usize,
    ) -> Result<List<Domain>, StoreError> {
        let (prefix, issues) = (DomainRecord::of(tenant), self.certifier.is_some());
        self.ask(move |records| {
            let page = records.page(&prefix, after.as_deref(), limit)?;
            let items = page.items.into_iter();
            let items = items.map(|stored| shown(records, stored.record, issues));
            Ok(List {
                items: items.collect::<Result<_, _>>()?,
                next: page.next,
            })
        })
        .await
    }

    /// A domain of a tenant.
    ///
    /// # Errors
    /// When the tenant has not added it.
    pub async fn domain(
        &self,
        tenant: &TenantName,
        domain: &HostName,
    ) -> Result<Stored<Domain>, DomainsError> {
        let (key, issues) = (DomainRecord::at(tenant, domain), self.certifier.is_some());
        let name = domain.clone();
        self.with_records(move |records| {
            let found = records.get(&key)?;
            let Stored { record, revision } = found.ok_or(DomainsError::Unknown(name))?;
            let record = shown(records, record, issues)?;
            Ok(Stored { record, revision })
        })
        .await
    }

    /// Adds a domain to a tenant, or sets what one is to be; tells whether it was added.
    ///
    /// # Errors
    /// Why it was not; nothing was changed then.
    pub async fn set_domain(
        &self,
        origin: &Origin,
        tenant: &TenantName,
        domain: &HostName,
        expected: Expected,
        options: DomainOptions,
    ) -> Result<(Stored<Domain>, bool), DomainsError> {
        options.check(domain)?;
        let token = token()?;
        let _turn = self.domain_turn.lock().await;
        let (key, now) = (DomainRecord::at(tenant, domain), origin.time());
        let (t, d, creates) = (tenant.clone(), domain.clone(), origin.creates_tenants());
        let issues = self.certifier.is_some();
        let plan = move |change: &mut Change<'_>| {
            let before = change.stored(&key)?;
            expected.check(before.as_ref().map(|stored| stored.revision))?;
            tenants::need(change, &t, now, creates)?;
            let added = before.is_none();
            if added {
                let all = change
                    .records()
                    .page(&DomainRecord::of(&t), None, MAX_DOMAINS)?;
                if all.items.len() >= MAX_DOMAINS {
                    return Err(DomainsError::TooMany);
                }
            }
            let before = before.map(|stored| stored.record);
            let mut record = before.clone().unwrap_or_else(|| DomainRecord {
                tenant: t.clone(),
                domain: d.clone(),
                token: token.clone(),
                created_at: now,
                proved_at: None,
                options: options.clone(),
            });
            record.options = options.clone();
            if before.as_ref() != Some(&record) {
                change.put(&record)?;
                plan_issuance(change, &record, issues, now)?;
            }
            Ok((record, added))
        };
        let (record, added) = self.change(origin, plan).await?;
        if record.proved_at.is_some() {
            self.serve_stored(&record).await?;
        }
        Ok((self.domain(tenant, domain).await?, added))
    }

    /// Looks for a proof that a domain is the tenant's, where there was none yet.
    ///
    /// # Errors
    /// That there is none, or that it is another tenant's.
    pub async fn verify_domain(
        &self,
        origin: &Origin,
        tenant: &TenantName,
        domain: &HostName,
    ) -> Result<Stored<Domain>, DomainsError> {
        let found = self.domain(tenant, domain).await?;
        if found.record.proved_at.is_some() {
            return Ok(found);
        }
        let proof = found.record.proof;
        let proved = self.prover.prove(domain, &proof).await;
        proved.map_err(|error| DomainsError::ProofFailed(domain.clone(), error))?;
        let _turn = self.domain_turn.lock().await;
        let (key, owner) = (
            DomainRecord::at(tenant, domain),
            DomainOwnerRecord {
                domain: domain.clone(),
                tenant: tenant.clone(),
            },
        );
        let (now, issues) = (origin.time(), self.certifier.is_some());
        let plan = move |change: &mut Change<'_>| {
            let domain = &owner.domain;
            let record = change.get(&key)?;
            // It may have been deleted, and added again, since it was looked at.
            let record = record.filter(|record| record.token == proof.txt_value);
            let record = record.ok_or_else(|| DomainsError::Unknown(domain.clone()))?;
            let other = change.get(&DomainOwnerRecord::at(domain))?;
            if other.is_some_and(|other| other != owner) {
                return Err(DomainsError::Taken(domain.clone()));
            }
            let record = DomainRecord {
                proved_at: Some(record.proved_at.unwrap_or(now)),
                ..record
            };
            change.put(&owner)?;
            change.put(&record)?;
            plan_issuance(change, &record, issues, now)?;
            Ok(record)
        };
        let record = self.change(origin, plan).await?;
        self.serve_stored(&record).await?;
        tracing::info!(%tenant, %domain, "domain proved");
        self.domain(tenant, domain).await
    }

    /// Deletes a domain with its certificate.
    ///
    /// # Errors
    /// When it is not there, or an app has a route on it.
    pub async fn delete_domain(
        &self,
        origin: &Origin,
        tenant: &TenantName,
        domain: &HostName,
    ) -> Result<(), DomainsError> {
        let _turn = self.domain_turn.lock().await;
        let (key, d) = (DomainRecord::at(tenant, domain), domain.clone());
        let plan = move |change: &mut Change<'_>| {
            let record = change.get(&key)?;
            let record = record.ok_or_else(|| DomainsError::Unknown(d.clone()))?;
            let all = change.records().all(&RoutesRecord::of(&record.tenant))?;
            let uses = |routes: &RoutesRecord| routes.routes.iter().any(|r| r.host == d);
            if let Some(routes) = all.into_iter().find(uses) {
                return Err(DomainsError::InUse(d.clone(), routes.app));
            }
            delete(change, &record);
            Ok(record.proved_at.is_some())
        };
        if self.change(origin, plan).await? {
            self.serve_domain(domain, None);
        }
        Ok(())
    }

    /// Serves a domain that is proved as it is stored. The caller has the turn of the domains.
    pub(super) async fn serve_stored(&self, record: &DomainRecord) -> Result<(), DomainsError> {
        let key = CertificateRecord::at(&record.tenant, &record.domain);
        let stored = self.ask(move |records| records.get(&key)).await?;
        let certificate = stored.map(|stored| stored.record);
        let served = self.served(record.clone(), certificate).await;
        self.serve_domain(&record.domain, Some(served));
        if let Some(certifier) = &self.certifier {
            certifier.wake();
        }
        Ok(())
    }

    /// A domain as it is served. One whose certificate does not open is served without, and the node's log says so.
    async fn served(
        &self,
        record: DomainRecord,
        certificate: Option<CertificateRecord>,
    ) -> ServedDomain {
        let keys = self.keyring.keys().await;
        let opened = certificate.and_then(|certificate| {
            let opened = certificates::open(&keys, &certificate);
            let told = |error| tracing::error!(domain = %record.domain, %error, "certificate cannot be served");
            opened.map_err(told).ok().map(Arc::new)
        });
        ServedDomain {
            tenant: record.tenant,
            options: record.options,
            certificate: opened,
        }
    }

    /// Sets the routes and the domains that the store knows, when the node starts.
    pub(super) async fn set_hosts_at_start(&self) -> Result<(), DeployError> {
        let all = |records: &Records| {
            let routes = records.all::<RoutesRecord>(&Prefix::all())?;
            let domains = records.all::<DomainRecord>(&Prefix::all())?;
            Ok((
                routes,
                domains,
                records.all::<CertificateRecord>(&Prefix::all())?,
            ))
        };
        let (routes, domains, certificates) = self.ask(all).await?;
        for RoutesRecord {
            tenant,
            app,
            routes,
        } in routes
        {
            self.set_routes_at_start(&(tenant, app), routes);
        }
        let certificates = certificates.into_iter();
        let mut certificates: BTreeMap<_, _> = certificates
            .map(|record| ((record.tenant.clone(), record.domain.clone()), record))
            .collect();
        for record in domains.into_iter().filter(|d| d.proved_at.is_some()) {
            let certificate = certificates.remove(&(record.tenant.clone(), record.domain.clone()));
            let domain = record.domain.clone();
            let served = self.served(record, certificate).await;
            self.set_domain_at_start(domain, served);
        }
        Ok(())
    }
}

/// A domain as the API shows it. `issues`: the node obtains certificates.
fn shown(records: &Records, record: DomainRecord, issues: bool) -> Result<Domain, StoreError> {
    let DomainRecord { tenant, domain, .. } = &record;
    let certificate = records.get(&CertificateRecord::at(tenant, domain))?;
    let issuance = match issues {
        true => records.get(&IssuanceRecord::at(tenant, domain))?,
        false => None,
    };
    Ok(Domain {
        proof: proof_of(domain, &record.token),
        domain: record.domain,
        tenant: record.tenant,
        created_at: record.created_at,
        proved_at: record.proved_at,
        options: record.options,
        certificate: certificate.map(|stored| stored.record.info),
        issuance: issuance.map(|Stored { record, .. }| Issuance {
            next_at: record.next_at,
            failures: record.failures,
            last_error: record.last_error,
        }),
    })
}

/// Sees to it that a certificate is obtained for a domain where that is the node's to do, and not where it is not. What is
/// planned already stays as it is.
pub(super) fn plan_issuance(
    change: &mut Change<'_>,
    record: &DomainRecord,
    issues: bool,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let (tenant, domain) = (&record.tenant, &record.domain);
    let certificate = change.get(&CertificateRecord::at(tenant, domain))?;
    let key = IssuanceRecord::at(tenant, domain);
    let planned = change.get(&key)?.is_some();
    let wanted = record.proved_at.is_some()
        && record.options.acme
        && !certificate.as_ref().is_some_and(|c| is_uploaded(&c.info));
    if !wanted && planned {
        change.delete(&key);
    } else if wanted && !planned && issues {
        change.put(&IssuanceRecord {
            tenant: tenant.clone(),
            domain: domain.clone(),
            next_at: certificate.map_or(now, |c| certificates::renewal(&c.info).max(now)),
            failures: 0,
            last_error: None,
        })?;
    }
    Ok(())
}

/// Whether a certificate is not the node's to renew.
pub(super) fn is_uploaded(info: &CertificateInfo) -> bool {
    info.source == CertificateSource::Uploaded
}

/// Deletes a domain with all that is its.
fn delete(change: &mut Change<'_>, record: &DomainRecord) {
    let DomainRecord { tenant, domain, .. } = record;
    if record.proved_at.is_some() {
        change.delete(&DomainOwnerRecord::at(domain));
    }
    change.delete(&DomainRecord::at(tenant, domain));
    change.delete(&CertificateRecord::at(tenant, domain));
    change.delete(&IssuanceRecord::at(tenant, domain));
}

/// Deletes the domains of a tenant that is deleted; those that were served.
pub(super) fn delete_all(
    change: &mut Change<'_>,
    tenant: &TenantName,
) -> Result<Vec<HostName>, StoreError> {
    let all = change.records().all(&DomainRecord::of(tenant))?;
    let mut served = Vec::new();
    for record in all {
        delete(change, &record);
        served.extend(record.proved_at.map(|_| record.domain));
    }
    Ok(served)
}

/// A token that nobody can guess.
fn token() -> Result<String, getrandom::Error> {
    let mut bytes = [0; TOKEN];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
