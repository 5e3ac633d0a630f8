//! One deploy, from what is wanted to the switch.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use platform_data::Target;
use platform_model::{
    AllowHost, AppName, DeployRequest, DeploymentId, Digest, Isolation, Limits, Scale, Secret,
    SecretName, TenantName,
};
use time::OffsetDateTime;

use super::usage::{self, Cost, bytes};
use super::{DeployError, Engine, Origin, describe, lock, target, tenants};
use crate::sandbox::CompileFailure;
use crate::store::records::{
    AppRecord, ComponentRecord, DeploymentRecord, LastRecord, SettingsRecord,
};
use crate::store::{Change, Records, StoreError};

/// A deployment that was made, and what it took.
#[derive(Debug, Clone)]
pub struct Deployed {
    /// The deployment.
    pub record: DeploymentRecord,
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
}

/// Stops the VM of a deploy that does not end in a commit, however it ends.
struct Warming<'a> {
    engine: &'a Engine,
    target: Option<Arc<Target>>,
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
        let artifact = self.compile(&wanted.digest).await?;
        let artifact_bytes = tokio::fs::metadata(&artifact).await?.len();
        let compile = began.elapsed();
        let key = (wanted.tenant.clone(), wanted.app.clone());
        let (t, a) = key.clone();
        let next = move |records: &Records| next_number(records, &t, &a);
        let record = DeploymentRecord {
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
            created_at: OffsetDateTime::now_utc(),
        };
        let target = Arc::new(target(record.clone(), wanted.secrets, artifact));
        let mut warming = Warming {
            engine: self,
            target: Some(Arc::clone(&target)),
        };
        let report = self.sandboxes.warm(Arc::clone(&target)).await?;
        let commit = record.clone();
        let began = Instant::now();
        let put = move |change: &mut Change<'_>| {
            also(change)?;
            put_deployment(change, &commit, artifact_bytes)
        };
        self.change(origin, put).await?;
        let store = began.elapsed();
        warming.target = None;
        lock(&self.served).insert(key, target);
        self.publish();
        let name = describe(&record.tenant, &record.app, record.deployment);
        tracing::info!(deployment = %name, digest = %record.digest, ready = ?report.ready, "deployed");
        Ok(Deployed {
            record,
            compile,
            boot: report.ready,
            store,
        })
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
        self.with_records(move |records| {
            let known = records.get(&AppRecord::at(&tenant, &app))?.is_some()
                || records.get(&SettingsRecord::at(&tenant, &app))?.is_some();
            let cost = Cost {
                apps: (!known).into(),
                deployments: 1,
                ..Cost::default()
            };
            usage::afford::<DeployError>(records, &tenant, cost)?;
            usage::afford_memory(records, &tenant, &app, memory)
        })
        .await
    }

    /// Compiles a component, or finds it compiled; the artifact.
    pub(super) async fn compile(&self, digest: &Digest) -> Result<PathBuf, DeployError> {
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

/// The number that the next deployment of an app gets.
fn next_number(
    records: &Records,
    tenant: &TenantName,
    app: &AppName,
) -> Result<DeploymentId, StoreError> {
    let next = records.change(|change| number_after(change, tenant, app))?;
    Ok(next.0)
}

fn number_after(
    change: &mut Change<'_>,
    tenant: &TenantName,
    app: &AppName,
) -> Result<DeploymentId, StoreError> {
    let last = match change.get(&AppRecord::at(tenant, app))? {
        Some(app) => app.last,
        None => {
            let last = change.get(&LastRecord::at(tenant, app))?;
            last.map_or(DeploymentId(0), |last| last.last)
        }
    };
    Ok(DeploymentId(last.0 + 1))
}

/// Writes a deployment whose number is the next of its app, and makes it the one that answers. The app is created where it is
/// not there.
fn put_deployment(
    change: &mut Change<'_>,
    deployment: &DeploymentRecord,
    artifact_bytes: u64,
) -> Result<(), DeployError> {
    let (tenant, app) = (&deployment.tenant, &deployment.app);
    if deployment.deployment != number_after(change, tenant, app)? {
        return Err(DeployError::NumberTaken(deployment.deployment));
    }
    // The tenant of a component that was uploaded is there; the default one at the latest now.
    tenants::need(change, tenant, deployment.created_at, false)?;
    let before = change.get(&AppRecord::at(tenant, app))?;
    let known = before.is_some() || change.get(&SettingsRecord::at(tenant, app))?.is_some();
    let mut cost = Cost {
        apps: (!known).into(),
        deployments: 1,
        ..Cost::default()
    };
    let component = change.get(&ComponentRecord::at(tenant, &deployment.digest))?;
    if let Some(component) = component
        && component.artifact_bytes != artifact_bytes
    {
        cost.disk_bytes = bytes(artifact_bytes) - bytes(component.artifact_bytes);
        change.put(&ComponentRecord {
            artifact_bytes,
            ..component
        })?;
    }
    usage::charge::<DeployError>(change, tenant, cost)?;
    change.put(&AppRecord {
        tenant: tenant.clone(),
        app: app.clone(),
        active: deployment.deployment,
        last: deployment.deployment,
        deployments: before.as_ref().map_or(0, |app| app.deployments) + 1,
        created_at: before.map_or(deployment.created_at, |app| app.created_at),
    })?;
    change.put(deployment)?;
    Ok(())
}
