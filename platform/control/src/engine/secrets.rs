//! The values of secrets: sealed, opened for deployments, sealed anew under another key, forgotten.

use std::collections::{BTreeMap, BTreeSet};

use platform_model::{AppName, HostName, Secret, SecretName, TenantName};

use super::{Engine, Origin};
use crate::keyring::KeyringError;
use crate::sealing::{Keys, Place, SealError, Sealed};
use crate::store::records::{
    AcmeAccountRecord, CertificateRecord, DeploymentRecord, IdempotencyRecord, Prefix, Record,
    SecretRecord, SettingsRecord,
};
use crate::store::{Records, StoreError};

/// Values that are read at once.
const PAGE: usize = 100;

/// Why a value was not sealed, opened or sealed anew. What it is, is never told.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The value of a secret.
    #[error("the secret {name} (version {version}): {error}")]
    Value {
        /// Its name.
        name: SecretName,
        /// Its version.
        version: u64,
        /// What is wrong.
        error: SealError,
    },
    /// There is no such value.
    #[error("the value of the secret {0} (version {1}) is gone: set it anew")]
    Gone(SecretName, u64),
    /// The value has a zero byte.
    #[error("the value of {0} has a zero byte, which no environment variable can have")]
    ZeroByte(SecretName),
    /// An answer that is remembered.
    #[error("an answer that is remembered: {0}")]
    Answer(SealError),
    /// The key of a certificate.
    #[error("the key of the certificate of {0}: {1}")]
    Certificate(HostName, SealError),
    /// The account with a certificate authority.
    #[error("the account with the certificate authority: {0}")]
    Account(SealError),
    /// The keys.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Seals the value of a secret.
pub(super) fn seal(
    keys: &Keys,
    tenant: &TenantName,
    app: &AppName,
    name: &SecretName,
    version: u64,
    value: &Secret,
) -> Result<Sealed, SecretError> {
    if value.expose().contains('\0') {
        return Err(SecretError::ZeroByte(name.clone()));
    }
    let number = version.to_string();
    let place = [
        "secret",
        tenant.as_str(),
        app.as_str(),
        name.as_str(),
        &number,
    ];
    let failed = |error| SecretError::Value {
        name: name.clone(),
        version,
        error,
    };
    keys.seal(Place(&place), value).map_err(failed)
}

/// Opens the value of a secret.
///
/// # Errors
/// When it does not open.
pub(crate) fn open(keys: &Keys, record: &SecretRecord) -> Result<Secret, SecretError> {
    let SecretRecord {
        tenant,
        app,
        name,
        version,
        sealed,
    } = record;
    let number = version.to_string();
    let place = [
        "secret",
        tenant.as_str(),
        app.as_str(),
        name.as_str(),
        &number,
    ];
    keys.open(Place(&place), sealed)
        .map_err(|error| SecretError::Value {
            name: name.clone(),
            version: *version,
            error,
        })
}

impl Engine {
    /// Opens the values of secrets of an app, by their versions.
    pub(super) async fn open_secrets(
        &self,
        tenant: &TenantName,
        app: &AppName,
        versions: BTreeMap<SecretName, u64>,
    ) -> Result<BTreeMap<SecretName, Secret>, SecretError> {
        if versions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let keys = self.keyring.keys().await;
        let (tenant, app) = (tenant.clone(), app.clone());
        self.with_records(move |records| {
            let mut opened = BTreeMap::new();
            for (name, version) in versions {
                let key = SecretRecord::at(&tenant, &app, &name, version);
                let Some(stored) = records.get(&key)? else {
                    return Err(SecretError::Gone(name, version));
                };
                opened.insert(name, open(&keys, &stored.record)?);
            }
            Ok(opened)
        })
        .await
    }

    /// Makes a new key, seals everything with it, and forgets the old one: the id of the new key, and how many values there
    /// were.
    ///
    /// # Errors
    /// Where it stopped. What was sealed with the old key still opens, and the next start of the node goes on.
    pub async fn rotate_key(&self, origin: &Origin) -> Result<(String, u64), SecretError> {
        let _one = self.rotating.lock().await;
        // Written down before it begins: a rotation that is cut off is ended by the next start of the node.
        self.note_unmade(origin, 200, None).await?;
        self.keyring.begin_rotation().await?;
        let resealed = self.seal_anew().await?;
        let key = self.keyring.keys().await.current().to_owned();
        tracing::info!(%key, resealed, who = origin.who(), "the key of secrets was rotated");
        Ok((key, resealed))
    }

    /// Goes on with a rotation that an earlier node did not end, or that a new key of the environment begins.
    pub(super) async fn end_rotation(&self) -> Result<(), SecretError> {
        let _one = self.rotating.lock().await;
        if self.keyring.keys().await.has_older() {
            let resealed = self.seal_anew().await?;
            tracing::info!(
                resealed,
                "values were sealed anew: older keys are no longer needed"
            );
        }
        Ok(())
    }

    /// Seals everything that is sealed with an older key with the current one, and forgets the older ones.
    async fn seal_anew(&self) -> Result<u64, SecretError> {
        let keys = self.keyring.keys().await;
        let resealed = self
            .with_records(move |records| {
                let secrets = reseal(records, |record: &SecretRecord| {
                    if record.sealed.key == keys.current() {
                        return Ok(None);
                    }
                    let value = open(&keys, record)?;
                    let SecretRecord {
                        tenant,
                        app,
                        name,
                        version,
                        ..
                    } = record;
                    let sealed = seal(&keys, tenant, app, name, *version, &value)?;
                    Ok(Some(SecretRecord {
                        sealed,
                        ..record.clone()
                    }))
                })?;
                let answers = reseal(records, |record: &IdempotencyRecord| {
                    super::idempotency::reseal(&keys, record).map_err(SecretError::Answer)
                })?;
                let certificates = reseal(records, |record: &CertificateRecord| {
                    let failed = |error| SecretError::Certificate(record.domain.clone(), error);
                    super::certificates::reseal(&keys, record).map_err(failed)
                })?;
                let accounts = reseal(records, |record: &AcmeAccountRecord| {
                    super::certify::reseal(&keys, record)
                })?;
                Ok::<_, SecretError>(secrets + answers + certificates + accounts)
            })
            .await?;
        self.keyring.end_rotation().await?;
        Ok(resealed)
    }

    /// Forgets the values of an app's secrets that neither the app nor a deployment has any more. Where that fails it is done
    /// another time.
    pub(super) async fn forget_secrets(&self, tenant: &TenantName, app: &AppName) {
        let (t, a) = (tenant.clone(), app.clone());
        let forgotten = self
            .with_records(move |records| forget(records, &t, &a))
            .await;
        if let Err(error) = forgotten {
            tracing::warn!(%tenant, %app, %error, "could not forget values of secrets that nothing has");
        }
    }
}

/// Writes the records of a kind anew that `seal` gives anew; how many.
fn reseal<R: Record + PartialEq>(
    records: &Records,
    seal: impl Fn(&R) -> Result<Option<R>, SecretError>,
) -> Result<u64, SecretError> {
    let (mut count, mut after) = (0, None);
    loop {
        let page = records.page(&Prefix::<R>::all(), after.as_deref(), PAGE)?;
        for stored in page.items {
            let Some(new) = seal(&stored.record)? else {
                continue;
            };
            let key = stored.record.key();
            records.change(|change| {
                // One that is gone, or was given another value, needs nothing.
                if change.get(&key)?.as_ref() == Some(&stored.record) {
                    change.put(&new)?;
                }
                Ok::<_, StoreError>(())
            })?;
            count += 1;
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(count),
        }
    }
}

/// Forgets the values of an app's secrets that nothing has any more.
pub(super) fn forget(
    records: &Records,
    tenant: &TenantName,
    app: &AppName,
) -> Result<(), StoreError> {
    let values = records.all(&SecretRecord::of(tenant, app))?;
    if values.is_empty() {
        return Ok(());
    }
    let mut used = BTreeSet::new();
    if let Some(stored) = records.get(&SettingsRecord::at(tenant, app))? {
        used.extend(stored.record.versions());
    }
    for deployment in records.all(&DeploymentRecord::of(tenant, app))? {
        used.extend(deployment.secrets);
    }
    let unused = |value: &&SecretRecord| !used.contains(&(value.name.clone(), value.version));
    let unused: Vec<_> = values.iter().filter(unused).collect();
    for some in unused.chunks(PAGE) {
        records.change(|change| {
            some.iter().for_each(|value| change.delete(&value.key()));
            Ok::<_, StoreError>(())
        })?;
    }
    Ok(())
}
