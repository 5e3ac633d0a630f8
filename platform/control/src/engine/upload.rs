//! Uploads of components: what a deploy names must be there before.

use platform_model::{ComponentUpload, TenantName};
use time::OffsetDateTime;

use super::usage::{self, Cost, bytes};
use super::{DeployError, Engine, Origin, tenants};
use crate::components::Upload;
use crate::store::Change;
use crate::store::records::{ComponentRecord, Record as _};

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
            artifact: None,
            uploaded_at: OffsetDateTime::now_utc(),
        };
        let creates = origin.creates_tenants();
        let put = move |change: &mut Change<'_>| put_component(change, &record, creates);
        let stored = self.change(origin, put).await;
        drop(files);
        if stored.is_err() {
            // The file has no record: it goes, unless the component was there before.
            self.collect_later().await;
        }
        stored.map(|()| ComponentUpload { digest, size })
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
    let size = if before.is_some() { 0 } else { component.size };
    let (artifact_bytes, artifact) =
        before.map_or((0, None), |before| (before.artifact_bytes, before.artifact));
    let cost = Cost {
        disk_bytes: bytes(size),
        ..Cost::default()
    };
    usage::charge::<DeployError>(change, &component.tenant, cost)?;
    change.put(&ComponentRecord {
        artifact_bytes,
        artifact,
        ..component.clone()
    })?;
    Ok(())
}
