//! Obtains certificates by ACME for the domains whose certificates are the node's to obtain, and renews them: a third of their
//! life before their end, or later and later again where it fails.
//!
//! When it is tried next, and why it failed last, is a record: a node that starts goes on where the one before it was.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use instant_acme::Account;
use platform_model::{CertificateSource, Domain, HostName, Secret, TenantName};
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{CertificateProblem, DomainsError, Engine, Origin, SecretError, certificates, domains};
use crate::acme::{self, Acme, AcmeError};
use crate::sealing::{Keys, Place, SealError};
use crate::store::records::{
    AcmeAccountRecord, CertificateRecord, DomainRecord, IssuanceRecord, Prefix, Stored,
};
use crate::store::{Change, StoreError};

/// Certificates that are obtained at the same time.
const AT_ONCE: usize = 4;

/// Time for one certificate.
const TIME: Duration = Duration::from_secs(300);

/// Time after the first failure; it doubles with each that follows, up to the longest.
const BACKOFF: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(12 * 3_600);

/// How often it is looked at where nothing asks for it sooner.
const PERIOD: Duration = Duration::from_secs(3_600);

/// Characters of an error that are kept.
const MAX_ERROR: usize = 500;

/// Obtains certificates.
pub(super) struct Certifier {
    acme: Acme,
    wanted: Notify,
    /// Held while it is made or opened: there is one account.
    account: tokio::sync::Mutex<Option<Account>>,
}

/// Why a certificate was not obtained.
#[derive(Debug, thiserror::Error)]
enum CertifyError {
    #[error(transparent)]
    Acme(#[from] AcmeError),
    #[error("the account with the certificate authority: {0}")]
    Seal(#[from] SealError),
    #[error("the certificate that was issued: {0}")]
    Certificate(#[from] CertificateProblem),
    #[error(transparent)]
    Domain(#[from] DomainsError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Certifier {
    pub(super) fn new(acme: Acme) -> Self {
        Self {
            acme,
            wanted: Notify::new(),
            account: tokio::sync::Mutex::default(),
        }
    }

    /// Has it look at what is to be done now.
    pub(super) fn wake(&self) {
        self.wanted.notify_one();
    }
}

/// A domain whose certificate is being obtained.
type Busy = (TenantName, HostName);

impl Engine {
    /// Obtains and renews certificates until `stop` is cancelled. Does nothing where the node has no certificate authority.
    pub async fn certify(self: Arc<Self>, stop: CancellationToken) {
        let Some(certifier) = &self.certifier else {
            return;
        };
        if let Err(error) = self.plan_issuances().await {
            tracing::error!(%error, "could not look which certificates are to be obtained");
        }
        let (mut busy, mut running) = (BTreeSet::<Busy>::new(), JoinSet::new());
        loop {
            let wait = self.begin_due(&mut busy, &mut running).await;
            tokio::select! {
                () = stop.cancelled() => return,
                () = certifier.wanted.notified() => {}
                () = tokio::time::sleep(wait) => {}
                Some(done) = running.join_next() => match done {
                    Ok(done) => _ = busy.remove(&done),
                    // A bug, which the node's log has; it is tried again with the others.
                    Err(_) => busy.clear(),
                },
            }
        }
    }

    /// Begins what is due and not under way; the time until there is more.
    async fn begin_due(
        self: &Arc<Self>,
        busy: &mut BTreeSet<Busy>,
        running: &mut JoinSet<Busy>,
    ) -> Duration {
        let all = self.ask(|records| records.all::<IssuanceRecord>(&Prefix::all()));
        let mut all = all.await.unwrap_or_else(|error| {
            tracing::error!(%error, "could not look which certificates are to be obtained");
            Vec::new()
        });
        all.sort_by_key(|record| record.next_at);
        let now = OffsetDateTime::now_utc();
        for record in all {
            let key = (record.tenant.clone(), record.domain.clone());
            if busy.contains(&key) {
                continue;
            }
            if record.next_at > now {
                let wait = Duration::try_from(record.next_at - now).unwrap_or_default();
                return wait.min(PERIOD);
            }
            if busy.len() >= AT_ONCE {
                // Whichever ends first goes on.
                return PERIOD;
            }
            busy.insert(key.clone());
            let engine = Arc::clone(self);
            running.spawn(async move {
                engine.obtain(record).await;
                key
            });
        }
        PERIOD
    }

    /// Sees to it that there is a plan for every domain that needs one: the node may have no certificate authority before.
    async fn plan_issuances(&self) -> Result<(), StoreError> {
        let _turn = self.domain_turn.lock().await;
        self.with_records(|records| {
            let now = OffsetDateTime::now_utc();
            for record in records.all::<DomainRecord>(&Prefix::all())? {
                records.change(|change| domains::plan_issuance(change, &record, true, now))?;
            }
            Ok(())
        })
        .await
    }

    /// Has a certificate obtained now, as it was not planned.
    ///
    /// # Errors
    /// When it is not the node's to obtain.
    pub async fn renew_certificate(
        &self,
        origin: &Origin,
        tenant: &TenantName,
        domain: &HostName,
    ) -> Result<Stored<Domain>, DomainsError> {
        let none = |why| DomainsError::NotIssued(domain.clone(), why);
        let certifier = self.certifier.as_ref();
        let certifier = certifier
            .ok_or_else(|| none("it has no certificate authority (cloisterd --acme-directory)"))?;
        let turn = self.domain_turn.lock().await;
        let (t, d, now) = (tenant.clone(), domain.clone(), origin.time());
        let plan = move |change: &mut Change<'_>| {
            certificates::proved(change, &t, &d)?;
            let Some(record) = change.get(&IssuanceRecord::at(&t, &d))? else {
                return Ok(false);
            };
            let next_at = now;
            change.put(&IssuanceRecord { next_at, ..record })?;
            Ok::<_, DomainsError>(true)
        };
        if !self.change(origin, plan).await? {
            return Err(none(
                "its certificate was uploaded, or its option acme is off",
            ));
        }
        drop(turn);
        certifier.wake();
        self.domain(tenant, domain).await
    }

    /// Obtains a certificate, and writes down how it went.
    async fn obtain(&self, planned: IssuanceRecord) {
        let (tenant, domain) = (planned.tenant.clone(), planned.domain.clone());
        let obtained = tokio::time::timeout(TIME, self.try_obtain(&tenant, &domain)).await;
        self.serve_challenge(&domain, None);
        let error = match obtained {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => AcmeError::Timeout(TIME).to_string(),
        };
        let failures = planned.failures.saturating_add(1);
        tracing::warn!(%tenant, %domain, %error, failures, "no certificate was obtained");
        let later = OffsetDateTime::now_utc() + backoff(failures);
        let last_error = Some(error.chars().take(MAX_ERROR).collect());
        let key = IssuanceRecord::at(&tenant, &domain);
        let write = move |change: &mut Change<'_>| {
            let Some(found) = change.get(&key)? else {
                // Nobody wants it any more.
                return Ok(());
            };
            // What was asked for while this was tried is not put off by it.
            let asked = found.next_at != planned.next_at;
            change.put(&IssuanceRecord {
                next_at: if asked { found.next_at } else { later },
                failures,
                last_error: last_error.clone(),
                ..found
            })
        };
        let written = self.with_records(move |records| records.change(write).map(drop));
        if let Err(error) = written.await {
            tracing::error!(%tenant, %domain, %error, "could not write down why there is no certificate");
        }
    }

    async fn try_obtain(&self, tenant: &TenantName, domain: &HostName) -> Result<(), CertifyError> {
        let Some(certifier) = &self.certifier else {
            return Ok(());
        };
        let account = self.account(certifier).await?;
        let answer = |token: &str, answer: &str| {
            let challenge = (token.to_owned(), answer.to_owned());
            self.serve_challenge(domain, Some(challenge));
        };
        let issued = acme::issue(&account, domain, answer).await;
        let issued = match issued {
            Err(error) if error.is_no_account() => {
                self.forget_account(certifier).await?;
                return Err(error.into());
            }
            issued => issued?,
        };
        let now = OffsetDateTime::now_utc();
        let source = CertificateSource::Acme;
        let info = certificates::check(domain, &issued.chain, &issued.key, source, now)?;
        let next_at = certificates::renewal(&info);
        let _turn = self.domain_turn.lock().await;
        // Held until the key is stored: see `Keyring`.
        let keys = self.keyring.sealing().await;
        let (chain, key) = (issued.chain, &issued.key);
        let record = certificates::record(&keys, tenant, domain, info, (chain, key))?;
        let plan = move |change: &mut Change<'_>| put(change, &record, next_at);
        let origin = Origin::node(format!("certificate of {domain}"), Some(tenant.clone()));
        let of = self.change(&origin, plan).await?;
        drop(keys);
        if let Some(of) = of {
            self.serve_stored(&of).await?;
            tracing::info!(%tenant, %domain, renewal = %next_at, "certificate obtained");
        }
        Ok(())
    }

    /// The account with the authority, made where there is none.
    async fn account(&self, certifier: &Certifier) -> Result<Account, CertifyError> {
        let mut known = certifier.account.lock().await;
        if let Some(account) = &*known {
            return Ok(account.clone());
        }
        let id = certifier.acme.id();
        let key = AcmeAccountRecord::at(&id);
        let account = match self.ask(move |records| records.get(&key)).await? {
            Some(Stored { record, .. }) => {
                let keys = self.keyring.keys().await;
                let credentials = open_account(&keys, &record)?;
                certifier.acme.open_account(&credentials).await?
            }
            None => {
                let (account, credentials) = certifier.acme.create_account().await?;
                // Held until it is stored: see `Keyring`.
                let keys = self.keyring.sealing().await;
                let record = AcmeAccountRecord {
                    directory: certifier.acme.directory().to_owned(),
                    credentials: keys.seal(Place(&place(&id)), &credentials)?,
                    id,
                };
                let put = move |change: &mut Change<'_>| change.put(&record);
                let origin = Origin::node("account with the certificate authority", None);
                self.change(&origin, put).await?;
                account
            }
        };
        *known = Some(account.clone());
        Ok(account)
    }

    /// Forgets an account that the authority does not know.
    async fn forget_account(&self, certifier: &Certifier) -> Result<(), StoreError> {
        *certifier.account.lock().await = None;
        let key = AcmeAccountRecord::at(&certifier.acme.id());
        let forget = move |change: &mut Change<'_>| {
            change.delete(&key);
            Ok::<_, StoreError>(())
        };
        let forgotten = self.with_records(move |records| records.change(forget));
        forgotten.await.map(drop)
    }
}

/// Writes a certificate that was issued, where it is still wanted; the domain that it is for.
fn put(
    change: &mut Change<'_>,
    record: &CertificateRecord,
    next_at: OffsetDateTime,
) -> Result<Option<DomainRecord>, DomainsError> {
    let (tenant, domain) = (&record.tenant, &record.domain);
    let planned = change.get(&IssuanceRecord::at(tenant, domain))?;
    let of = change.get(&DomainRecord::at(tenant, domain))?;
    let (Some(planned), Some(of)) = (planned, of) else {
        return Ok(None);
    };
    change.put(record)?;
    change.put(&IssuanceRecord {
        next_at,
        failures: 0,
        last_error: None,
        ..planned
    })?;
    Ok(Some(of))
}

/// How long is waited after so many failures in a row.
fn backoff(failures: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    BACKOFF.saturating_mul(doubled).min(LONGEST)
}

/// What the account with an authority is sealed for.
fn place(id: &str) -> [&str; 2] {
    ["acme-account", id]
}

/// Opens what an account is opened with.
///
/// # Errors
/// When it does not open.
pub(crate) fn open_account(keys: &Keys, record: &AcmeAccountRecord) -> Result<Secret, SealError> {
    keys.open(Place(&place(&record.id)), &record.credentials)
}

/// The account under the current key of the node; none where it is.
pub(super) fn reseal(
    keys: &Keys,
    record: &AcmeAccountRecord,
) -> Result<Option<AcmeAccountRecord>, SecretError> {
    if record.credentials.key == keys.current() {
        return Ok(None);
    }
    let resealed =
        open_account(keys, record).and_then(|opened| keys.seal(Place(&place(&record.id)), &opened));
    let credentials = resealed.map_err(SecretError::Account)?;
    let record = record.clone();
    Ok(Some(AcmeAccountRecord {
        credentials,
        ..record
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_tried_again_later_and_later() {
        let minutes: Vec<_> = (1..=4).map(|n| backoff(n).as_secs() / 60).collect();
        assert_eq!(minutes, [1, 2, 4, 8]);
        assert_eq!(backoff(u32::MAX), LONGEST);
    }
}
