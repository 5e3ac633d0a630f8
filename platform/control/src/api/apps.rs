//! Apps.

use axum::extract::State;
use axum::{Extension, Json};
use http::StatusCode;
use platform_model::{App, AppChanges, AppName, List, Scope, TenantName};

use super::Api;
use super::auth::Principal;
use super::etag::{IfMatch, Tagged};
use super::input::{JsonOf, OfApp, OfTenant, QueryOf};
use super::page::PageQuery;
use super::tenants;
use crate::engine::Origin;
use crate::problem::{ApiError, Code};
use crate::store::records::{AppRecord, DeploymentRecord, Prefix, Stored, TenantRecord};
use crate::store::{Records, StoreError};

/// The apps that the token may see.
#[utoipa::path(
    get, path = "/v1/apps", tag = "apps", operation_id = "list_all_apps", params(PageQuery),
    responses((status = 200, description = "Apps by tenant and name.", body = List<App>))
)]
pub(super) async fn list_all(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<List<App>>, ApiError> {
    let found = api
        .engine
        .ask(move |records| match &principal.scope {
            Scope::Node => page(records, &Prefix::all(), &query),
            Scope::Tenant { tenant } => page(records, &AppRecord::of(tenant), &query),
            Scope::App { tenant, app } => {
                let found = records.get(&AppRecord::at(tenant, app))?;
                let found = found.map(|stored| stored.record);
                Ok((with_deployments(records, found)?, None))
            }
        })
        .await?;
    Ok(Json(api.list_of(found)))
}

/// The apps of a tenant.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/apps", tag = "apps", operation_id = "list_apps", params(OfTenant, PageQuery),
    responses((status = 200, description = "Apps by name.", body = List<App>))
)]
pub(super) async fn list(
    State(api): State<Api>,
    OfTenant(tenant): OfTenant,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<List<App>>, ApiError> {
    api.known(&tenant).await?;
    let of = AppRecord::of(&tenant);
    let found = api.engine.ask(move |records| page(records, &of, &query));
    Ok(Json(api.list_of(found.await?)))
}

/// One app.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/apps/{app}", tag = "apps", operation_id = "get_app", params(OfApp),
    responses((status = 200, description = "The app.", body = App, headers(("etag" = String, description = "Its state."))))
)]
pub(super) async fn get(
    State(api): State<Api>,
    OfApp(tenant, app): OfApp,
) -> Result<Tagged<App>, ApiError> {
    let key = AppRecord::at(&tenant, &app);
    let found = api
        .engine
        .ask(move |records| {
            let Some(Stored { record, revision }) = records.get(&key)? else {
                return Ok(None);
            };
            let found = with_deployments(records, [record])?.pop();
            Ok(found.map(|found| (revision, found)))
        })
        .await?;
    let (revision, (record, deployment)) = found.ok_or_else(|| unknown(&tenant, &app))?;
    Ok(Tagged(revision, api.app_of(record, deployment)))
}

/// Changes what an app may take, and how many deployments of it are kept.
#[utoipa::path(
    patch, path = "/v1/tenants/{tenant}/apps/{app}", tag = "apps", operation_id = "change_app", params(OfApp, IfMatch),
    request_body = AppChanges,
    responses((status = 200, description = "The app as it is now.", body = App,
        headers(("etag" = String, description = "Its state."))))
)]
pub(super) async fn change(
    State(api): State<Api>,
    OfApp(tenant, app): OfApp,
    IfMatch(expected): IfMatch,
    origin: Origin,
    JsonOf(changes): JsonOf<AppChanges>,
) -> Result<Tagged<App>, ApiError> {
    let changed = api
        .engine
        .change_app(&origin, &tenant, &app, expected, changes);
    let Stored { record, revision } = changed.await?;
    let found = api
        .engine
        .ask(move |records| Ok(with_deployments(records, [record])?.pop()));
    let found = found.await?.ok_or_else(|| unknown(&tenant, &app))?;
    Ok(Tagged(revision, api.app_of(found.0, found.1)))
}

/// Deletes an app with its deployments and its log.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/apps/{app}", tag = "apps", operation_id = "delete_app", params(OfApp),
    responses((status = 204, description = "It is deleted."))
)]
pub(super) async fn delete(
    State(api): State<Api>,
    OfApp(tenant, app): OfApp,
    origin: Origin,
) -> Result<StatusCode, ApiError> {
    if api.engine.delete_app(&origin, &tenant, &app).await? {
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

/// Apps with the deployments that answer.
type Found = Vec<(AppRecord, DeploymentRecord)>;

/// A page of apps, and the cursor of the next.
fn page(
    records: &Records,
    of: &Prefix<AppRecord>,
    query: &PageQuery,
) -> Result<(Found, Option<String>), StoreError> {
    let page = records.page(of, query.after.as_deref(), query.limit())?;
    let apps = page.items.into_iter().map(|stored| stored.record);
    Ok((with_deployments(records, apps)?, page.next))
}

/// Finds the deployments that answer. An app that is deleted meanwhile is left out.
fn with_deployments(
    records: &Records,
    apps: impl IntoIterator<Item = AppRecord>,
) -> Result<Found, StoreError> {
    let mut found = Vec::new();
    for app in apps {
        let key = DeploymentRecord::at(&app.tenant, &app.app, app.active);
        if let Some(deployment) = records.get(&key)? {
            found.push((app, deployment.record));
        }
    }
    Ok(found)
}

impl Api {
    /// Whether there is a tenant. The default one is there for whoever asks.
    ///
    /// # Errors
    /// That there is none.
    pub(super) async fn known(&self, tenant: &TenantName) -> Result<(), ApiError> {
        let key = TenantRecord::at(tenant);
        let found = self.engine.ask(move |records| records.get(&key)).await?;
        if found.is_some() || tenant.is_default() {
            Ok(())
        } else {
            Err(tenants::unknown(tenant))
        }
    }

    fn list_of(&self, (found, next): (Found, Option<String>)) -> List<App> {
        let apps = found.into_iter();
        let items = apps
            .map(|(app, deployment)| self.app_of(app, deployment))
            .collect();
        List { items, next }
    }

    fn app_of(&self, record: AppRecord, deployment: DeploymentRecord) -> App {
        App {
            url: self.engine.url(&record.tenant, &record.app),
            traffic: record.traffic(),
            keep: record.keep(),
            policy: record.policy,
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
