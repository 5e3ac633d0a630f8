//! [`MetadataStore`] on sled, for one host.
//!
//! One tree; the key says what a record is: `tenant/T`, `component/T/DIGEST`, `app/T/A`, `deployment/T/A/NUMBER`,
//! `last/T/A`, which keeps the highest number of an app that was deleted, and `commits`, which counts the writes. Names have no `/`, so no key can be taken for another. Records are JSON.
//!
//! Writes go one after the other: each is one atomic batch, then flushed, then noted in `state.json`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use platform_model::{AppName, DeploymentId, Digest, TenantName};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sled::{Batch, Db};
use time::OffsetDateTime;

use super::manifest::{FORMAT, Manifest, OpenError};
use super::{
    AppRecord, ComponentRecord, DeploymentRecord, MetadataStore, StoreError, TenantRecord,
};

/// Key of the number of writes.
const COMMITS: &[u8] = b"commits";

/// Room that a write must find on the disk, in bytes: a failed write would put the database out of use.
const ROOM: u64 = 8 << 20;

/// Memory that sled may use for what it has read, in bytes.
const CACHE: u64 = 16 << 20;

/// The metadata of one host.
#[derive(Debug)]
pub struct SledStore {
    folder: PathBuf,
    db: Db,
    writer: Mutex<Writer>,
}

/// What one write at a time has.
#[derive(Debug)]
struct Writer {
    /// Writes so far.
    commits: u64,
    /// Why no more can be made, once one has failed halfway.
    failed: Option<String>,
}

impl SledStore {
    /// Opens the store in `folder`, which must exist; a store that is not there is created. Every record is read
    /// once, so that damage is found now.
    ///
    /// # Errors
    /// [`OpenError`]; sled's own panics about damaged files are caught and become one.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        let manifest = Manifest::read(folder)?;
        let damaged = |why: String| OpenError::Damaged {
            path: folder.to_owned(),
            why,
        };
        let opened = catch_unwind(AssertUnwindSafe(|| open_and_read(folder)));
        let (db, commits) = match opened {
            Ok(opened) => opened?,
            Err(panic) => return Err(damaged(panic_text(panic.as_ref()))),
        };
        let promised = manifest.map_or(0, |manifest| manifest.commits);
        if commits < promised {
            return Err(damaged(format!(
                "it has {commits} of the {promised} writes that were made: the rest was cut off"
            )));
        }
        let store = Self {
            folder: folder.to_owned(),
            db,
            writer: Mutex::new(Writer {
                commits,
                failed: None,
            }),
        };
        if manifest.is_none() {
            store.create_manifest(commits)?;
        }
        Ok(store)
    }

    /// Writes the first `state.json`.
    fn create_manifest(&self, commits: u64) -> Result<(), OpenError> {
        let manifest = Manifest {
            format: FORMAT,
            commits,
        };
        manifest
            .stage(&self.folder)
            .and_then(|staged| Manifest::publish(&staged, &self.folder))
            .map_err(|source| OpenError::Io {
                path: self.folder.clone(),
                source,
            })
    }

    /// Waits for the turn to write.
    fn writer(&self) -> Result<MutexGuard<'_, Writer>, StoreError> {
        // A panic in a write leaves the counter as it was: the next write finds out whether sled still works.
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        match &writer.failed {
            Some(why) => Err(self.failure(why.clone())),
            None => Ok(writer),
        }
    }

    /// Makes one write: all of the batch or nothing, on the disk when this returns.
    fn commit(&self, writer: &mut Writer, mut batch: Batch) -> Result<(), StoreError> {
        self.check_room()?;
        let commits = writer.commits + 1;
        batch.insert(COMMITS, &commits.to_be_bytes());
        let manifest = Manifest {
            format: FORMAT,
            commits,
        };
        let staged = manifest
            .stage(&self.folder)
            .map_err(|e| self.failure(e.to_string()))?;
        let written = self
            .db
            .apply_batch(batch)
            .and_then(|()| self.db.flush())
            .map_err(|e| e.to_string())
            .and_then(|_| Manifest::publish(&staged, &self.folder).map_err(|e| e.to_string()));
        match written {
            Ok(()) => {
                writer.commits = commits;
                Ok(())
            }
            Err(why) => {
                writer.failed = Some(why.clone());
                Err(self.failure(why))
            }
        }
    }

    /// Refuses a write that the disk might not have room for.
    fn check_room(&self) -> Result<(), StoreError> {
        let stat = rustix::fs::statvfs(&self.folder).map_err(|e| self.failure(e.to_string()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free < ROOM {
            return Err(StoreError::DiskFull {
                path: self.folder.clone(),
                free,
            });
        }
        Ok(())
    }

    fn failure(&self, why: String) -> StoreError {
        StoreError::Failed {
            path: self.folder.clone(),
            why,
        }
    }

    fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, StoreError> {
        let found = self.db.get(key).map_err(|e| self.failure(e.to_string()))?;
        found
            .map(|value| self.decode(key.as_bytes(), &value))
            .transpose()
    }

    /// All records whose key starts with `prefix`, by key.
    fn scan<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<T>, StoreError> {
        let entries = self.db.scan_prefix(prefix);
        entries
            .map(|entry| {
                let (key, value) = entry.map_err(|e| self.failure(e.to_string()))?;
                self.decode(&key, &value)
            })
            .collect()
    }

    fn decode<T: DeserializeOwned>(&self, key: &[u8], value: &[u8]) -> Result<T, StoreError> {
        serde_json::from_slice(value).map_err(|_| StoreError::Damaged {
            key: String::from_utf8_lossy(key).into_owned(),
            path: self.folder.clone(),
        })
    }

    /// Puts a record into a batch.
    fn put<T: Serialize>(
        &self,
        batch: &mut Batch,
        key: &str,
        record: &T,
    ) -> Result<(), StoreError> {
        let value = serde_json::to_vec(record).map_err(|e| self.failure(e.to_string()))?;
        batch.insert(key, value);
        Ok(())
    }

    /// Puts the record of a tenant into a batch, where it is not there.
    fn put_tenant(
        &self,
        batch: &mut Batch,
        tenant: &TenantName,
        now: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        let key = tenant_key(tenant);
        if self.get::<TenantRecord>(&key)?.is_some() {
            return Ok(false);
        }
        let record = TenantRecord {
            tenant: tenant.clone(),
            created_at: now,
        };
        self.put(batch, &key, &record)?;
        Ok(true)
    }
}

/// Opens sled, reads every record, and says how many writes there were.
fn open_and_read(folder: &Path) -> Result<(Db, u64), OpenError> {
    let damaged = |why: String| OpenError::Damaged {
        path: folder.to_owned(),
        why,
    };
    let database = |e: sled::Error| match e {
        sled::Error::Io(source) if is_of_the_system(&source) => OpenError::Io {
            path: folder.to_owned(),
            source,
        },
        sled::Error::Corruption { .. } => damaged("sled finds its file corrupt".to_owned()),
        other => damaged(other.to_string()),
    };
    let db = sled::Config::new()
        .path(folder.join("sled"))
        .cache_capacity(CACHE)
        // Every write flushes by itself.
        .flush_every_ms(None)
        .mode(sled::Mode::LowSpace)
        .open()
        .map_err(database)?;
    let mut commits = 0;
    for entry in db.iter() {
        let (key, value) = entry.map_err(database)?;
        let readable = if key.as_ref() == COMMITS {
            let count = value.as_ref().try_into().map(u64::from_be_bytes);
            commits = count.unwrap_or(0);
            count.is_ok()
        } else {
            is_record(&key, &value)
        };
        if !readable {
            let key = String::from_utf8_lossy(&key).into_owned();
            return Err(damaged(format!("the record {key:?} cannot be read")));
        }
    }
    Ok((db, commits))
}

/// Whether an error is about permissions or room; any other that sled has when it opens is about the content.
fn is_of_the_system(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(
        error.kind(),
        PermissionDenied | ReadOnlyFilesystem | StorageFull | QuotaExceeded
    )
}

/// Whether a record is what its key says.
fn is_record(key: &[u8], value: &[u8]) -> bool {
    let kind = key.split(|b| *b == b'/').next().unwrap_or_default();
    match kind {
        b"tenant" => serde_json::from_slice::<TenantRecord>(value).is_ok(),
        b"component" => serde_json::from_slice::<ComponentRecord>(value).is_ok(),
        b"app" => serde_json::from_slice::<AppRecord>(value).is_ok(),
        b"last" => serde_json::from_slice::<DeploymentId>(value).is_ok(),
        b"deployment" => serde_json::from_slice::<DeploymentRecord>(value).is_ok(),
        _ => false,
    }
}

/// What a panic said, on one line.
fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("sled cannot read it");
    text.lines().next().unwrap_or_default().to_owned()
}

fn tenant_key(tenant: &TenantName) -> String {
    format!("tenant/{tenant}")
}

fn component_key(tenant: &TenantName, digest: &Digest) -> String {
    format!("component/{tenant}/{}", digest.hex())
}

fn app_key(tenant: &TenantName, app: &AppName) -> String {
    format!("app/{tenant}/{app}")
}

fn last_key(tenant: &TenantName, app: &AppName) -> String {
    format!("last/{tenant}/{app}")
}

/// Twenty digits, so that keys are in the order of the numbers.
fn deployment_key(tenant: &TenantName, app: &AppName, deployment: DeploymentId) -> String {
    format!("deployment/{tenant}/{app}/{deployment:020}")
}

impl MetadataStore for SledStore {
    fn create_tenant(&self, tenant: &TenantName, now: OffsetDateTime) -> Result<bool, StoreError> {
        let mut writer = self.writer()?;
        let mut batch = Batch::default();
        let created = self.put_tenant(&mut batch, tenant, now)?;
        if created {
            self.commit(&mut writer, batch)?;
        }
        Ok(created)
    }

    fn tenant(&self, tenant: &TenantName) -> Result<Option<TenantRecord>, StoreError> {
        self.get(&tenant_key(tenant))
    }

    fn tenants(&self) -> Result<Vec<TenantRecord>, StoreError> {
        self.scan("tenant/")
    }

    fn delete_tenant(&self, tenant: &TenantName) -> Result<bool, StoreError> {
        let mut writer = self.writer()?;
        if self.tenant(tenant)?.is_none() {
            return Ok(false);
        }
        let apps = self.apps(Some(tenant))?.len() as u64;
        if apps > 0 {
            return Err(StoreError::TenantNotEmpty(apps));
        }
        let mut batch = Batch::default();
        batch.remove(tenant_key(tenant).as_str());
        for component in self.scan::<ComponentRecord>(&format!("component/{tenant}/"))? {
            batch.remove(component_key(tenant, &component.digest).as_str());
        }
        self.commit(&mut writer, batch)?;
        Ok(true)
    }

    fn put_component(&self, component: &ComponentRecord) -> Result<(), StoreError> {
        let mut writer = self.writer()?;
        let mut batch = Batch::default();
        self.put_tenant(&mut batch, &component.tenant, component.uploaded_at)?;
        let key = component_key(&component.tenant, &component.digest);
        self.put(&mut batch, &key, component)?;
        self.commit(&mut writer, batch)
    }

    fn component(
        &self,
        tenant: &TenantName,
        digest: &Digest,
    ) -> Result<Option<ComponentRecord>, StoreError> {
        self.get(&component_key(tenant, digest))
    }

    fn components(&self) -> Result<Vec<ComponentRecord>, StoreError> {
        self.scan("component/")
    }

    fn forget_components(&self, components: &[ComponentRecord]) -> Result<(), StoreError> {
        if components.is_empty() {
            return Ok(());
        }
        let mut writer = self.writer()?;
        let mut batch = Batch::default();
        for component in components {
            batch.remove(component_key(&component.tenant, &component.digest).as_str());
        }
        self.commit(&mut writer, batch)
    }

    fn commit_deployment(&self, deployment: &DeploymentRecord) -> Result<(), StoreError> {
        let mut writer = self.writer()?;
        let (tenant, app) = (&deployment.tenant, &deployment.app);
        let before = self.app(tenant, app)?;
        if deployment.deployment != self.next_deployment(tenant, app)? {
            return Err(StoreError::NumberTaken(deployment.deployment));
        }
        let record = AppRecord {
            tenant: tenant.clone(),
            app: app.clone(),
            active: deployment.deployment,
            last: deployment.deployment,
            deployments: before.as_ref().map_or(0, |app| app.deployments) + 1,
            created_at: before.map_or(deployment.created_at, |app| app.created_at),
        };
        let mut batch = Batch::default();
        self.put_tenant(&mut batch, tenant, deployment.created_at)?;
        self.put(&mut batch, &app_key(tenant, app), &record)?;
        let key = deployment_key(tenant, app, deployment.deployment);
        self.put(&mut batch, &key, deployment)?;
        self.commit(&mut writer, batch)
    }

    fn next_deployment(
        &self,
        tenant: &TenantName,
        app: &AppName,
    ) -> Result<DeploymentId, StoreError> {
        let last = match self.app(tenant, app)? {
            Some(app) => app.last,
            None => self.get(&last_key(tenant, app))?.unwrap_or(DeploymentId(0)),
        };
        Ok(DeploymentId(last.0 + 1))
    }

    fn app(&self, tenant: &TenantName, app: &AppName) -> Result<Option<AppRecord>, StoreError> {
        self.get(&app_key(tenant, app))
    }

    fn apps(&self, tenant: Option<&TenantName>) -> Result<Vec<AppRecord>, StoreError> {
        match tenant {
            Some(tenant) => self.scan(&format!("app/{tenant}/")),
            None => self.scan("app/"),
        }
    }

    fn deployment(
        &self,
        tenant: &TenantName,
        app: &AppName,
        deployment: DeploymentId,
    ) -> Result<Option<DeploymentRecord>, StoreError> {
        self.get(&deployment_key(tenant, app, deployment))
    }

    fn deployments(
        &self,
        app: Option<(&TenantName, &AppName)>,
    ) -> Result<Vec<DeploymentRecord>, StoreError> {
        match app {
            Some((tenant, app)) => self.scan(&format!("deployment/{tenant}/{app}/")),
            None => self.scan("deployment/"),
        }
    }

    fn delete_app(&self, tenant: &TenantName, app: &AppName) -> Result<bool, StoreError> {
        let mut writer = self.writer()?;
        let Some(record) = self.app(tenant, app)? else {
            return Ok(false);
        };
        let mut batch = Batch::default();
        self.put(&mut batch, &last_key(tenant, app), &record.last)?;
        batch.remove(app_key(tenant, app).as_str());
        for deployment in self.deployments(Some((tenant, app)))? {
            batch.remove(deployment_key(tenant, app, deployment.deployment).as_str());
        }
        self.commit(&mut writer, batch)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
