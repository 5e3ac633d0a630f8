//! Apps: deleted with all that is theirs.

use platform_model::{AppName, TenantName};

use super::usage::{self, Cost};
use super::{DeployError, Engine, Origin};
use crate::store::Change;
use crate::store::records::{
    AppRecord, CanaryRecord, DeploymentRecord, HistoryRecord, LastRecord, RoutesRecord,
    SecretRecord, SettingsRecord,
};

impl Engine {
    /// Deletes an app with its deployments and its log; tells whether it was there.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn delete_app(
        &self,
        origin: &Origin,
        tenant: &TenantName,
        app: &AppName,
    ) -> Result<bool, DeployError> {
        let key = (tenant.clone(), app.clone());
        let _turn = self.turn(&key).await;
        let (t, a) = key.clone();
        let delete = move |change: &mut Change<'_>| delete(change, &t, &a);
        if !self.change(origin, delete).await? {
            return Ok(false);
        }
        self.serve_no_more(&key);
        self.logs.delete(tenant, app).await;
        self.collect_later().await;
        tracing::info!(%tenant, %app, "app deleted");
        Ok(true)
    }
}

/// Deletes an app with its deployments and its settings. Its last number stays.
fn delete(
    change: &mut Change<'_>,
    tenant: &TenantName,
    app: &AppName,
) -> Result<bool, DeployError> {
    let record = change.get(&AppRecord::at(tenant, app))?;
    let settings = change.get(&SettingsRecord::at(tenant, app))?;
    if record.is_none() && settings.is_none() {
        return Ok(false);
    }
    let mut deployments = 0;
    if let Some(record) = record {
        change.put(&LastRecord {
            tenant: tenant.clone(),
            app: app.clone(),
            last: record.last,
        })?;
        deployments = record.deployments;
    }
    change.delete(&AppRecord::at(tenant, app));
    change.delete(&SettingsRecord::at(tenant, app));
    change.delete(&RoutesRecord::at(tenant, app));
    change.delete_all(&DeploymentRecord::of(tenant, app));
    change.delete_all(&SecretRecord::of(tenant, app));
    change.delete_all(&HistoryRecord::of(tenant, app));
    change.delete(&CanaryRecord::at(tenant, app));
    let cost = Cost {
        apps: -1,
        deployments: -i64::try_from(deployments).unwrap_or(i64::MAX),
        ..Cost::default()
    };
    usage::charge::<DeployError>(change, tenant, cost)?;
    Ok(true)
}
