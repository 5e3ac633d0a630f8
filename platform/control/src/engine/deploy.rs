//! One deploy, from the request to the switch; and the upload that comes before it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use platform_data::Target;
use platform_model::{AppName, ComponentUpload, DeployRequest, DeploymentId, Digest, TenantName};
use time::OffsetDateTime;

use super::usage::{self, Cost, bytes};
use super::{DeployError, Engine, Origin, describe, lock, target, tenants};
use crate::components::Upload;
use crate::sandbox::CompileFailure;
use crate::store::records::{
    AppRecord, ComponentRecord, DeploymentRecord, LastRecord, Record as _,
};
use crate::store::{Change, StoreError};

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
    /// Begins the upload of a component.
    ///
    /// # Errors
    /// When no file can be made.
    pub async fn upload(&self) -> Result<Upload, DeployError> {
        Ok(self.components.upload().await?)
    }

    /// Ends the upload of a component: the tenant may deploy it from now on. A component that no deployment uses is
    /// kept until the node starts again.
    ///
    /// # Errors
    /// When it cannot be stored.
    pub async fn uploaded(
        &self,
        origin: &Origin,
        tenant: &TenantName,
        upload: Upload,
    ) -> Result<ComponentUpload, DeployError> {
        let files = self.files.read().await;
        let (digest, size) = upload.finish(&self.components).await?;
        let record = ComponentRecord {
            tenant: tenant.clone(),
            digest,
            size,
            artifact_bytes: 0,
            uploaded_at: OffsetDateTime::now_utc(),
        };
        let creates = origin.creates_tenants();
        let stored = self
            .change(origin, move |change| {
                put_component(change, &record, creates)
            })
            .await;
        drop(files);
        if stored.is_err() {
            // The file has no record: it goes, unless the component was there before.
            self.collect_later().await;
        }
        stored.map(|()| ComponentUpload { digest, size })
    }

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
        let _files = self.files.read().await;
        self.check_component(&tenant, request.digest).await?;
        self.check_quotas(&tenant, &app, &request).await?;
        let began = Instant::now();
        let artifact = self.compile(&request.digest).await?;
        let artifact_bytes = tokio::fs::metadata(&artifact).await?.len();
        let compile = began.elapsed();
        let (t, a) = key.clone();
        let number = self
            .with_records::<_, StoreError, _>(move |records| {
                let next = records.change(|change| next_number(change, &t, &a))?;
                Ok(next.0)
            })
            .await?;
        let record = DeploymentRecord {
            tenant,
            app,
            deployment: number,
            digest: request.digest,
            env: request.env,
            allow_hosts: request.allow_hosts,
            limits: request.limits,
            created_at: OffsetDateTime::now_utc(),
        };
        let target = Arc::new(target(record.clone(), artifact));
        let mut warming = Warming {
            engine: self,
            target: Some(Arc::clone(&target)),
        };
        let report = self.sandboxes.warm(Arc::clone(&target)).await?;
        let commit = record.clone();
        let began = Instant::now();
        let put = move |change: &mut Change<'_>| put_deployment(change, &commit, artifact_bytes);
        self.change(origin, put).await?;
        let store = began.elapsed();
        warming.target = None;
        lock(&self.served).insert(key, target);
        self.publish();
        let name = describe(&record.tenant, &record.app, number);
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

    /// Whether the tenant may have another deployment like this.
    async fn check_quotas(
        &self,
        tenant: &TenantName,
        app: &AppName,
        request: &DeployRequest,
    ) -> Result<(), DeployError> {
        let (tenant, app) = (tenant.clone(), app.clone());
        let memory = request.limits.vm_memory_bytes;
        self.with_records(move |records| {
            let new = records.get(&AppRecord::at(&tenant, &app))?.is_none();
            let cost = Cost {
                apps: new.into(),
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

/// Writes the record of a component that was uploaded. One that was there before keeps what it costs.
fn put_component(
    change: &mut Change<'_>,
    component: &ComponentRecord,
    creates: bool,
) -> Result<(), DeployError> {
    tenants::need(change, &component.tenant, component.uploaded_at, creates)?;
    let before = change.get(&component.key())?;
    let artifact_bytes = before.as_ref().map_or(0, |before| before.artifact_bytes);
    let cost = Cost {
        disk_bytes: if before.is_some() {
            0
        } else {
            bytes(component.size)
        },
        ..Cost::default()
    };
    usage::charge::<DeployError>(change, &component.tenant, cost)?;
    change.put(&ComponentRecord {
        artifact_bytes,
        ..component.clone()
    })?;
    Ok(())
}

/// The number that the next deployment of an app gets.
fn next_number(
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

/// Writes a deployment whose number is the next of its app, and makes it the one that answers. Tenant and app are created
/// where they are not there.
fn put_deployment(
    change: &mut Change<'_>,
    deployment: &DeploymentRecord,
    artifact_bytes: u64,
) -> Result<(), DeployError> {
    let (tenant, app) = (&deployment.tenant, &deployment.app);
    if deployment.deployment != next_number(change, tenant, app)? {
        return Err(DeployError::NumberTaken(deployment.deployment));
    }
    // The tenant of a component that was uploaded is there; the default one at the latest now.
    tenants::need(change, tenant, deployment.created_at, false)?;
    let before = change.get(&AppRecord::at(tenant, app))?;
    let mut cost = Cost {
        apps: before.is_none().into(),
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
