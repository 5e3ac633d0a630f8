//! One deploy, from what is wanted to the switch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use platform_data::Target;
use platform_model::{
    AllowHost, AppName, CanaryPlan, DeployRequest, Digest, Growth, Isolation, Limits, Scale,
    Secret, SecretName, TenantName,
};
use time::OffsetDateTime;

use super::commit::{Commit, next_number};
use super::growth::growth;
use super::serving::target;
use super::usage::{self, Cost};
use super::{DeployError, Engine, Origin, describe};
use crate::sandbox::{CompileFailure, Compiled};
use crate::store::records::{AppRecord, ComponentRecord, DeploymentRecord, SettingsRecord};
use crate::store::{Change, Records, StoreError};

/// Time that a deployment has for its health check.
const HEALTH_TIME: Duration = Duration::from_secs(10);

/// A deployment that was made, and what it took.
#[derive(Debug, Clone)]
pub struct Deployed {
    /// The deployment.
    pub record: DeploymentRecord,
    /// What its app is since.
    pub app: AppRecord,
    /// Time to compile its component, or to find it compiled.
    pub compile: Duration,
    /// Time until its VM was ready for requests.
    pub boot: Duration,
    /// Time until it was stored for good.
    pub store: Duration,
}

/// What a deployment is to be made of.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) tenant: TenantName,
    pub(super) app: AppName,
    pub(super) digest: Digest,
    /// Its own variables.
    pub(super) env: BTreeMap<String, String>,
    pub(super) allow_hosts: Vec<AllowHost>,
    pub(super) limits: Limits,
    pub(super) isolation: Isolation,
    pub(super) scale: Scale,
    /// What the app is set to.
    pub(super) settings: SettingsRecord,
    /// The values of the app's secrets.
    pub(super) secrets: BTreeMap<SecretName, Secret>,
    /// A path that has to answer well before it answers anybody.
    pub(super) health: Option<String>,
    /// It may want more than the deployment that answers.
    pub(super) approved: bool,
    pub(super) mode: Mode,
}

/// How a new deployment comes to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mode {
    /// It answers everything at once.
    Switch,
    /// It answers under its own name only.
    Preview,
    /// It gets a part that grows.
    Canary(CanaryPlan),
}

/// Stops the VM of a deploy that does not end in a commit, however it ends.
pub(super) struct Warming<'a> {
    pub(super) engine: &'a Engine,
    pub(super) target: Option<Arc<Target>>,
}

impl Drop for Warming<'_> {
    fn drop(&mut self) {
        if let Some(target) = self.target.take() {
            self.engine.sandboxes.discard(&target);
        }
    }
}

impl Engine {
    /// Deploys a component as the next deployment of an app, which answers from now on.
    ///
    /// It runs to its end even where the caller does not wait for it.
    ///
    /// # Errors
    /// Why it was not deployed; nothing of it is left then.
    pub async fn deploy(
        self: &Arc<Self>,
        origin: Origin,
        tenant: TenantName,
        app: AppName,
        request: DeployRequest,
    ) -> Result<Deployed, DeployError> {
        request.check()?;
        let engine = Arc::clone(self);
        let deploy = async move { engine.deploy_in_turn(&origin, tenant, app, request).await };
        let deploy = tokio::spawn(deploy);
        // A task that is neither aborted nor panics always ends: anything else is the runtime going down.
        deploy.await.unwrap_or(Err(DeployError::Stopping))
    }

    async fn deploy_in_turn(
        &self,
        origin: &Origin,
        tenant: TenantName,
        app: AppName,
        request: DeployRequest,
    ) -> Result<Deployed, DeployError> {
        let key = (tenant.clone(), app.clone());
        let _turn = self.turn(&key).await;
        self.check_component(&tenant, request.digest).await?;
        let settings = self.settings_of(&tenant, &app).await?;
        let secrets = self
            .open_secrets(&tenant, &app, settings.versions())
            .await?;
        let mode = match request.canary {
            Some(plan) => Mode::Canary(plan),
            None if request.preview => Mode::Preview,
            None => Mode::Switch,
        };
        let wanted = Wanted {
            tenant,
            app,
            digest: request.digest,
            env: request.env,
            allow_hosts: request.allow_hosts,
            limits: request.limits,
            isolation: request.isolation,
            scale: request.scale,
            settings,
            secrets,
            health: request.health,
            approved: request.approve,
            mode,
        };
        self.roll_out(origin, wanted, |_| Ok(())).await
    }

    /// Compiles, warms, commits and publishes a deployment. The caller has the turn of its app. What `also` plans is made in
    /// the same commit.
    pub(super) async fn roll_out<F>(
        &self,
        origin: &Origin,
        wanted: Wanted,
        mut also: F,
    ) -> Result<Deployed, DeployError>
    where
        F: FnMut(&mut Change<'_>) -> Result<(), StoreError> + Send + 'static,
    {
        let _files = self.files.read().await;
        self.check_environment(&wanted)?;
        self.check_quotas(&wanted).await?;
        let began = Instant::now();
        let compiled = self.compile(&wanted.digest).await?;
        let artifact_bytes = tokio::fs::metadata(&compiled.artifact).await?.len();
        let compile = began.elapsed();
        let (t, a) = (wanted.tenant.clone(), wanted.app.clone());
        let next = move |records: &Records| next_number(records, &t, &a);
        let mut record = DeploymentRecord {
            deployment: self.ask(next).await?,
            tenant: wanted.tenant,
            app: wanted.app,
            digest: wanted.digest,
            env: wanted.env,
            config: wanted.settings.values.clone(),
            secrets: wanted.settings.versions(),
            allow_hosts: wanted.allow_hosts,
            limits: wanted.limits,
            isolation: wanted.isolation,
            scale: wanted.scale,
            health: wanted.health,
            imports: Some(compiled.imports),
            growth: Growth::default(),
            created_at: OffsetDateTime::now_utc(),
        };
        record.growth = self
            .check_growth(&record, &wanted.mode, wanted.approved)
            .await?;
        let artifact = compiled.artifact.file_name();
        let artifact = artifact.map(|name| name.to_string_lossy().into_owned());
        let target = Arc::new(target(record.clone(), wanted.secrets, compiled.artifact));
        let mut warming = Warming {
            engine: self,
            target: Some(Arc::clone(&target)),
        };
        let report = self.sandboxes.warm(Arc::clone(&target)).await?;
        self.check_health(&target, record.health.as_deref()).await?;
        let began = Instant::now();
        let commit = Commit {
            deployment: record.clone(),
            artifact,
            artifact_bytes,
            mode: wanted.mode,
            who: origin.who().to_owned(),
        };
        let put = move |change: &mut Change<'_>| {
            also(change)?;
            commit.put(change)
        };
        let (app, canary) = self.change(origin, put).await?;
        let store = began.elapsed();
        warming.target = None;
        self.serve_app(&app, [target]);
        self.canary_changed(&record.tenant, &record.app, canary);
        self.forget_secrets(&record.tenant, &record.app).await;
        let name = describe(&record.tenant, &record.app, record.deployment);
        tracing::info!(deployment = %name, digest = %record.digest, ready = ?report.ready, "deployed");
        Ok(Deployed {
            record,
            app,
            compile,
            boot: report.ready,
            store,
        })
    }

    /// What a deployment wants more, where it may; and whether there is one to compare it with where that is needed.
    async fn check_growth(
        &self,
        record: &DeploymentRecord,
        mode: &Mode,
        approved: bool,
    ) -> Result<Growth, DeployError> {
        let Some(active) = self.active(&record.tenant, &record.app).await? else {
            return match mode {
                Mode::Switch => Ok(Growth::default()),
                Mode::Preview | Mode::Canary(_) => Err(DeployError::NoneYet),
            };
        };
        let growth = growth(&active, record);
        if approved || growth.is_empty() {
            Ok(growth)
        } else {
            Err(DeployError::Growth(growth, active.deployment))
        }
    }

    /// Asks a target that is warm for its health.
    async fn check_health(
        &self,
        target: &Arc<Target>,
        path: Option<&str>,
    ) -> Result<(), DeployError> {
        let Some(path) = path else {
            return Ok(());
        };
        match self.sandboxes.probe(target, path, HEALTH_TIME).await {
            Ok(200..=399) => Ok(()),
            Ok(status) => Err(DeployError::Sick(path.to_owned(), status)),
            Err(error) => Err(DeployError::Unhealthy(path.to_owned(), error)),
        }
    }

    /// Whether the tenant may deploy a component.
    async fn check_component(
        &self,
        tenant: &TenantName,
        digest: Digest,
    ) -> Result<(), DeployError> {
        let key = ComponentRecord::at(tenant, &digest);
        let known = self.ask(move |records| records.get(&key)).await?.is_some();
        if known && tokio::fs::try_exists(self.components.path(&digest)).await? {
            return Ok(());
        }
        Err(DeployError::ComponentUnknown {
            tenant: tenant.clone(),
            digest,
        })
    }

    /// Whether all variables together are possible.
    fn check_environment(&self, wanted: &Wanted) -> Result<(), DeployError> {
        let secrets = &wanted.settings.secrets;
        if let Some(name) = secrets
            .keys()
            .find(|name| wanted.env.contains_key(name.as_str()))
        {
            return Err(DeployError::NameOfSecret(name.clone()));
        }
        let mut all = wanted.settings.values.clone();
        all.extend(wanted.env.clone());
        let sealed = secrets.iter();
        let sealed = sealed.map(|(name, head)| name.as_str().len() as u64 + head.bytes + 2);
        platform_model::env::check_with(&all, sealed.sum())?;
        Ok(())
    }

    /// Whether the tenant may have another deployment like this.
    async fn check_quotas(&self, wanted: &Wanted) -> Result<(), DeployError> {
        let (tenant, app) = (wanted.tenant.clone(), wanted.app.clone());
        let memory = wanted.limits.vm_memory_bytes;
        let mode = wanted.mode.clone();
        self.with_records(move |records| {
            let known = records.get(&AppRecord::at(&tenant, &app))?.is_some()
                || records.get(&SettingsRecord::at(&tenant, &app))?.is_some();
            let cost = Cost {
                apps: (!known).into(),
                deployments: 1,
                ..Cost::default()
            };
            usage::afford::<DeployError>(records, &tenant, cost)?;
            usage::afford_memory(records, &tenant, (&app, &mode), memory)
        })
        .await
    }

    /// Compiles a component, or finds it compiled.
    pub(super) async fn compile(&self, digest: &Digest) -> Result<Compiled, DeployError> {
        let permit = self.compilers.acquire().await;
        let _permit = permit.map_err(|_| DeployError::Stopping)?;
        let compiler = Arc::clone(&self.compiler);
        let component = self.components.path(digest);
        let folder = self.artifacts.clone();
        let compiled =
            tokio::task::spawn_blocking(move || compiler.compile(&component, &folder)).await;
        let failed = |e: tokio::task::JoinError| CompileFailure::Failed(e.to_string());
        Ok(compiled.map_err(failed)??)
    }
}
