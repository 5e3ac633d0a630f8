//! Apps.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use platform_model::{App, AppName, List, TenantName};

use super::Api;
use super::input::{OfApp, OfTenant};
use super::tenants;
use crate::problem::{ApiError, Code};
use crate::store::records::{AppRecord, DeploymentRecord, Prefix, TenantRecord};
use crate::store::{Records, StoreError};

/// The apps of all tenants.
pub(super) async fn list_all(State(api): State<Api>) -> Result<Json<List<App>>, ApiError> {
    let found = api
        .engine
        .ask(|records| with_deployments(records, records.all(&Prefix::all())?))
        .await?;
    Ok(Json(api.list_of(found)))
}

/// The apps of a tenant.
pub(super) async fn list(
    State(api): State<Api>,
    OfTenant(tenant): OfTenant,
) -> Result<Json<List<App>>, ApiError> {
    let name = tenant.clone();
    let found = api
        .engine
        .ask(move |records| {
            let apps = with_deployments(records, records.all(&AppRecord::of(&name))?)?;
            // The default tenant is there for whoever asks.
            let known = name.is_default() || records.get(&TenantRecord::at(&name))?.is_some();
            Ok(known.then_some(apps))
        })
        .await?;
    let found = found.ok_or_else(|| tenants::unknown(&tenant))?;
    Ok(Json(api.list_of(found)))
}

/// One app.
pub(super) async fn get(
    State(api): State<Api>,
    OfApp(tenant, app): OfApp,
) -> Result<Json<App>, ApiError> {
    let key = AppRecord::at(&tenant, &app);
    let found = api
        .engine
        .ask(move |records| {
            let found = records.get(&key)?.map(|stored| stored.record);
            with_deployments(records, found.into_iter().collect())
        })
        .await?;
    let found = found.into_iter().next();
    let (record, deployment) = found.ok_or_else(|| unknown(&tenant, &app))?;
    Ok(Json(api.app_of(record, deployment)))
}

/// Deletes an app.
pub(super) async fn delete(
    State(api): State<Api>,
    OfApp(tenant, app): OfApp,
) -> Result<StatusCode, ApiError> {
    if api.engine.delete_app(&tenant, &app).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(unknown(&tenant, &app))
    }
}

/// There is no such app.
pub(super) fn unknown(tenant: &TenantName, app: &AppName) -> ApiError {
    let detail = format!("there is no app {app} in the tenant {tenant}");
    ApiError::new(Code::AppUnknown, detail)
}

/// Apps with the deployments that answer. An app that is deleted meanwhile is left out.
fn with_deployments(
    records: &Records,
    apps: Vec<AppRecord>,
) -> Result<Vec<(AppRecord, DeploymentRecord)>, StoreError> {
    let mut found = Vec::with_capacity(apps.len());
    for app in apps {
        let key = DeploymentRecord::at(&app.tenant, &app.app, app.active);
        if let Some(deployment) = records.get(&key)? {
            found.push((app, deployment.record));
        }
    }
    Ok(found)
}

impl Api {
    fn list_of(&self, found: Vec<(AppRecord, DeploymentRecord)>) -> List<App> {
        let apps = found.into_iter();
        let items = apps
            .map(|(app, deployment)| self.app_of(app, deployment))
            .collect();
        List { items }
    }

    fn app_of(&self, record: AppRecord, deployment: DeploymentRecord) -> App {
        App {
            url: self.engine.url(&record.tenant, &record.app),
            tenant: record.tenant,
            app: record.app,
            deployment: record.active,
            digest: deployment.digest,
            created_at: record.created_at,
            deployed_at: deployment.created_at,
            deployments: record.deployments,
        }
    }
}
