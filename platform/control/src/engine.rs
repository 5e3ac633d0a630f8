//! What the node does about apps: deploys them, deletes them, and puts them back when it starts.
//!
//! A deploy is validated, compiled, warmed, committed, published, and only then acknowledged. Until the commit it
//! leaves nothing behind; from the commit on it survives whatever happens.
//!
//! # Invariants
//! - Deploys and the deletion of one app go one after the other; different apps do not wait for each other, but for
//!   the compiler. Changes of tenants go one after the other too.
//! - What is committed is published before the next change of the same thing is committed: the table never goes back.
//! - The published table is always made of deployments that are committed.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use platform_data::{ProbeError, WarmError};
use platform_model::api::DeployRequestError;
use platform_model::{AppName, DeploymentId, Digest, EnvError, Growth, SecretName, TenantName};
use tokio::sync::{OwnedMutexGuard, RwLock, Semaphore};

use self::canary::Canaries;
use self::certify::Certifier;
use self::housekeeping::Housekeeping;
use self::serving::Serving;
use crate::acme::Acme;
use crate::components::Components;
use crate::keyring::Keyring;
use crate::logs::Logs;
use crate::proof::Prover;
use crate::sandbox::{CompileFailure, Compiler, Sandboxes};
use crate::store::records::{AppRecord, CanaryRecord, DeploymentRecord, Prefix, TenantRecord};
use crate::store::{Change, Records, Revision, StoreError};

mod apps;
mod audit;
mod canary;
mod certificates;
mod certify;
mod collect;
mod commit;
mod deploy;
mod domains;
mod expected;
mod growth;
mod housekeeping;
mod idempotency;
mod origin;
mod release;
mod routes;
mod secrets;
mod serving;
mod settings;
mod tenants;
mod tokens;
mod upload;
mod usage;

pub use certificates::CertificateProblem;
pub(crate) use certificates::open as open_certificate;
pub(crate) use certify::open_account;
pub use deploy::Deployed;
pub use domains::DomainsError;
pub use expected::{Expected, Unexpected};
pub(crate) use idempotency::opens as answer_opens;
pub use idempotency::{Answer, CarriedOut, REMEMBERED};
pub use origin::{Asked, Once, Origin};
pub use release::ReleaseError;
pub use routes::RoutingError;
pub use secrets::SecretError;
pub(crate) use secrets::open as open_secret;
pub use settings::{Set, SettingsError};
pub use tenants::TenantError;
pub use tokens::{Refused, TokenError};
pub use usage::QuotaError;

/// Components that are compiled at the same time.
const COMPILERS: usize = 2;

/// Why a deploy, or another change, was not made.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// What was asked for is not possible.
    #[error(transparent)]
    Request(#[from] DeployRequestError),
    /// The tenant did not upload the component.
    #[error("tenant {tenant} has no component {digest}: upload it first")]
    ComponentUnknown {
        /// The tenant.
        tenant: TenantName,
        /// The component.
        digest: Digest,
    },
    /// It was not compiled.
    #[error(transparent)]
    Compile(#[from] CompileFailure),
    /// It does not start.
    #[error(transparent)]
    Warm(#[from] WarmError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// All variables together are not possible.
    #[error("env: {0}")]
    Env(#[from] EnvError),
    /// A variable has the name of a secret.
    #[error("env: {0} is a secret of the app: leave it out, or delete the secret")]
    NameOfSecret(SecretName),
    /// The values of secrets.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// It wants more than the deployment that answers, and nobody said that it may.
    #[error("it wants more than deployment {1}: {0}; say that it may have that (approve, --yes)")]
    Growth(Growth, DeploymentId),
    /// It did not answer its health check.
    #[error("health check of {0}: {1}")]
    Unhealthy(String, ProbeError),
    /// It answered its health check with a status that is not good.
    #[error("health check of {0}: it answered with the status {1}, and 200 to 399 are good")]
    Sick(String, u16),
    /// There is nothing beside which it could answer.
    #[error("the app has no deployment yet: deploy it first without --preview and --canary")]
    NoneYet,
    /// The tenant would have more than it may.
    #[error(transparent)]
    Quota(#[from] QuotaError),
    /// The tenant is not there.
    #[error(transparent)]
    Tenant(#[from] TenantError),
    /// The deployment's number is not the next one of its app.
    #[error("deployment {0} of the app was made by somebody else in the meantime: try again")]
    NumberTaken(DeploymentId),
    /// The store has an app and not its deployment.
    #[error(
        "the store has no record of deployment {0}: restore it from a backup, or deploy the app again"
    )]
    RecordMissing(DeploymentId),
    /// A file.
    #[error("a file of the data folder: {0}")]
    Io(#[from] io::Error),
    /// The node is going down.
    #[error("the node is stopping: try again when it is back")]
    Stopping,
}

/// What an engine is made of.
pub struct Parts {
    /// What the node remembers.
    pub records: Records,
    /// The keys that seal secrets.
    pub keyring: Keyring,
    /// Uploaded components.
    pub components: Components,
    /// Folder of the compiled components.
    pub artifacts: PathBuf,
    /// Who compiles.
    pub compiler: Arc<dyn Compiler>,
    /// Who runs.
    pub sandboxes: Arc<dyn Sandboxes>,
    /// What components wrote.
    pub logs: Logs,
    /// The port in the URLs that are given to users.
    pub port: u16,
    /// Who finds out whose a domain is.
    pub prover: Arc<dyn Prover>,
    /// Where certificates are obtained, if anywhere.
    pub acme: Option<Acme>,
}

/// Names an app among those of all tenants.
type AppKey = (TenantName, AppName);

/// What the node does about apps.
pub struct Engine {
    records: Records,
    keyring: Keyring,
    /// Held by the one rotation of keys that is made.
    rotating: tokio::sync::Mutex<()>,
    components: Components,
    artifacts: PathBuf,
    compiler: Arc<dyn Compiler>,
    sandboxes: Arc<dyn Sandboxes>,
    logs: Logs,
    port: u16,
    serving: Mutex<Serving>,
    canaries: Canaries,
    prover: Arc<dyn Prover>,
    certifier: Option<Certifier>,
    /// Held by the one change of domains that is made.
    domain_turn: tokio::sync::Mutex<()>,
    me: Weak<Self>,
    /// Whose turn it is to change an app.
    turns: Mutex<HashMap<AppKey, Weak<tokio::sync::Mutex<()>>>>,
    /// Held from the commit of what tenants may take until it is served: what is served follows the order of commits.
    tenants: tokio::sync::Mutex<()>,
    compilers: Semaphore,
    /// Read by what puts or uses a component's file, written by what removes them.
    files: RwLock<()>,
    housekeeping: Housekeeping,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("records", &self.records)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine that serves nothing yet.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            records: parts.records,
            keyring: parts.keyring,
            rotating: tokio::sync::Mutex::default(),
            components: parts.components,
            artifacts: parts.artifacts,
            compiler: parts.compiler,
            sandboxes: parts.sandboxes,
            logs: parts.logs,
            port: parts.port,
            serving: Mutex::default(),
            canaries: Canaries::default(),
            prover: parts.prover,
            certifier: parts.acme.map(Certifier::new),
            domain_turn: tokio::sync::Mutex::default(),
            me: Weak::clone(me),
            turns: Mutex::default(),
            tenants: tokio::sync::Mutex::default(),
            compilers: Semaphore::new(COMPILERS),
            files: RwLock::new(()),
            housekeeping: Housekeeping::default(),
        })
    }

    /// Serves every app that the store knows, and removes what nothing refers to: files of deploys that were cut off.
    /// An app that cannot be served is reported in the node's log and left out; the others are served.
    ///
    /// # Errors
    /// When the store or the data folder cannot be read.
    pub async fn start(self: &Arc<Self>) -> Result<(), DeployError> {
        self.with_records(tenants::ensure_default).await?;
        let apps = self
            .ask(|records| records.all::<AppRecord>(&Prefix::all()))
            .await?;
        let tenants = self
            .ask(|records| records.all::<TenantRecord>(&Prefix::all()))
            .await?;
        for tenant in tenants {
            self.set_tenant_at_start(tenant.tenant, tenant.policy);
        }
        self.set_hosts_at_start().await?;
        let mut starting = tokio::task::JoinSet::new();
        for app in apps {
            let engine = Arc::clone(self);
            starting.spawn(async move {
                let key = (app.tenant.clone(), app.app.clone());
                (key, engine.set_at_start(app).await)
            });
        }
        while let Some(done) = starting.join_next().await {
            let ((tenant, app), set) = done.map_err(io::Error::other)?;
            if let Err(error) = set {
                tracing::error!(%tenant, %app, %error, "app is not served");
            }
        }
        self.collect_at_start().await?;
        self.serve_all();
        let canaries = self.ask(|records| records.all::<CanaryRecord>(&Prefix::all()));
        for canary in canaries.await? {
            self.drive(canary);
        }
        Ok(())
    }

    /// The deployment that answers for an app; none where there is no such app.
    async fn active(
        &self,
        tenant: &TenantName,
        app: &AppName,
    ) -> Result<Option<DeploymentRecord>, StoreError> {
        let key = AppRecord::at(tenant, app);
        self.ask(move |records| {
            let Some(app) = records.get(&key)? else {
                return Ok(None);
            };
            let AppRecord {
                tenant,
                app,
                active,
                ..
            } = app.record;
            let key = DeploymentRecord::at(&tenant, &app, active);
            Ok(records.get(&key)?.map(|stored| stored.record))
        })
        .await
    }

    /// Who runs the apps.
    #[must_use]
    pub fn sandboxes(&self) -> &Arc<dyn Sandboxes> {
        &self.sandboxes
    }

    /// What components wrote.
    #[must_use]
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// The URL of an app.
    #[must_use]
    pub fn url(&self, tenant: &TenantName, app: &AppName) -> String {
        app.url(tenant, self.port)
    }

    /// The URL of one deployment of an app.
    #[must_use]
    pub fn preview_url(&self, tenant: &TenantName, app: &AppName, number: DeploymentId) -> String {
        let host = app.preview_host(tenant, number);
        match self.port {
            80 => format!("http://{host}/"),
            port => format!("http://{host}:{port}/"),
        }
    }

    /// Asks the records where blocking is allowed.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn ask<T, F>(&self, question: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Records) -> Result<T, StoreError> + Send + 'static,
    {
        self.with_records(question).await
    }

    /// Makes a change of the records that `origin` asks for: see [`Records::change`]. What is to be remembered of the origin
    /// is a part of it.
    ///
    /// # Errors
    /// What `plan` answers, or the store.
    async fn change<T, E, F>(&self, origin: &Origin, plan: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: FnMut(&mut Change<'_>) -> Result<T, E> + Send + 'static,
    {
        let (planned, _) = self.change_at(origin, plan).await?;
        Ok(planned)
    }

    /// Makes a change as [`Engine::change`] does, and tells the revision of what was written, if anything was.
    async fn change_at<T, E, F>(
        &self,
        origin: &Origin,
        mut plan: F,
    ) -> Result<(T, Option<Revision>), E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: FnMut(&mut Change<'_>) -> Result<T, E> + Send + 'static,
    {
        let origin = origin.clone();
        let work = move |records: &Records| {
            let changed = records.change(|change| {
                let planned = plan(change)?;
                if !change.is_empty() {
                    origin.ride(change)?;
                }
                Ok::<_, E>(planned)
            })?;
            if changed.1.is_some() {
                origin.set_made();
            }
            Ok::<_, E>(changed)
        };
        let changed = self.with_records(work).await?;
        if changed.1.is_some() {
            self.housekeeping.line();
        }
        Ok(changed)
    }

    /// Does something with the records where blocking is allowed.
    async fn with_records<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: FnOnce(&Records) -> Result<T, E> + Send + 'static,
    {
        let records = self.records.clone();
        let answer = tokio::task::spawn_blocking(move || work(&records)).await;
        answer.unwrap_or_else(|error| {
            Err(E::from(StoreError::Failed {
                path: PathBuf::from("store"),
                why: error.to_string(),
            }))
        })
    }

    /// Waits for the turn to change an app.
    async fn turn(&self, key: &AppKey) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = lock(&self.turns);
            turns.retain(|_, turn| turn.strong_count() > 0);
            let known = turns.get(key).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let turn = Arc::new(tokio::sync::Mutex::new(()));
                turns.insert(key.clone(), Arc::downgrade(&turn));
                turn
            })
        };
        turn.lock_owned().await
    }
}

/// Locks what no panic can leave half changed.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Names a deployment in a log.
fn describe(tenant: &TenantName, app: &AppName, deployment: DeploymentId) -> String {
    format!("{tenant}/{app} #{deployment}")
}

#[cfg(test)]
mod tests;
