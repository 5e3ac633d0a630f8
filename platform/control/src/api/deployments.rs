//! Deployments.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::{Extension, Json};
use http::{HeaderName, StatusCode};
use platform_model::{DeployRequest, Deployment, List, Role};

use super::Api;
use super::apps;
use super::auth::Principal;
use super::input::{JsonOf, OfApp, OfDeployment, QueryOf};
use super::page::PageQuery;
use crate::engine::{Deployed, Origin};
use crate::problem::{ApiError, Code};
use crate::store::records::{AppRecord, DeploymentRecord};

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// What a deploy may be refused with.
pub(super) const PROBLEMS: &[Code] = &[
    Code::DeployInvalid,
    Code::ComponentUnknown,
    Code::ComponentRejected,
    Code::CompileLimit,
    Code::CompileFailed,
    Code::StartRefused,
    Code::StartTimeout,
    Code::VmUnavailable,
    Code::QuotaExceeded,
    Code::SecretUnreadable,
    Code::DeployConflict,
    Code::ApprovalNeeded,
    Code::HealthCheckFailed,
    Code::NothingBefore,
    Code::Stopping,
];

/// The deployments of an app.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/apps/{app}/deployments", tag = "apps", operation_id = "list_deployments",
    params(OfApp, PageQuery),
    responses((status = 200, description = "Deployments by number.", body = List<Deployment>))
)]
pub(super) async fn list(
    State(api): State<Api>,
    OfApp(tenant, app): OfApp,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<List<Deployment>>, ApiError> {
    let (key, of) = (
        AppRecord::at(&tenant, &app),
        DeploymentRecord::of(&tenant, &app),
    );
    let found = api
        .engine
        .ask(move |records| {
            let page = records.page(&of, query.after.as_deref(), query.limit())?;
            let app = records.get(&key)?;
            Ok(app.map(|app| (app.record, page)))
        })
        .await?;
    let (found, page) = found.ok_or_else(|| apps::unknown(&tenant, &app))?;
    Ok(Json(page.list(|record| api.deployment_of(record, &found))))
}

/// One deployment.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/apps/{app}/deployments/{deployment}", tag = "apps",
    operation_id = "get_deployment", params(OfDeployment),
    responses((status = 200, description = "The deployment.", body = Deployment))
)]
pub(super) async fn get(
    State(api): State<Api>,
    OfDeployment(tenant, app, number): OfDeployment,
) -> Result<Json<Deployment>, ApiError> {
    let (key, of) = (
        DeploymentRecord::at(&tenant, &app, number),
        AppRecord::at(&tenant, &app),
    );
    let found = api
        .engine
        .ask(move |records| {
            let deployment = records.get(&key)?.map(|stored| stored.record);
            let app = records.get(&of)?;
            Ok(app.map(|app| (app.record, deployment)))
        })
        .await?;
    let (found, record) = found.ok_or_else(|| apps::unknown(&tenant, &app))?;
    let record = record.ok_or_else(|| {
        let detail = format!("the app {app} has no deployment {number}");
        ApiError::new(Code::DeploymentUnknown, detail)
    })?;
    Ok(Json(api.deployment_of(record, &found)))
}

/// Deletes a deployment that does not answer for its app.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/apps/{app}/deployments/{deployment}", tag = "apps",
    operation_id = "delete_deployment", params(OfDeployment),
    responses((status = 204, description = "It is deleted."))
)]
pub(super) async fn delete(
    State(api): State<Api>,
    OfDeployment(tenant, app, number): OfDeployment,
    origin: Origin,
) -> Result<StatusCode, ApiError> {
    api.engine
        .delete_deployment(&origin, &tenant, &app, number)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Deploys: compiles, starts, asks for its health where that is wanted, and switches over, or makes it a preview or a canary.
/// A token of the role deploy has to `approve` where it wants more than the deployment that answers. `server-timing` tells what the steps took, in milliseconds.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/apps/{app}/deployments", tag = "apps", operation_id = "create_deployment",
    params(OfApp), request_body = DeployRequest,
    responses((status = 201, description = "It answers from now on.", body = Deployment,
        headers(("server-timing" = String, description = "What the steps took."))))
)]
pub(super) async fn create(
    State(api): State<Api>,
    OfApp(tenant, app): OfApp,
    Extension(principal): Extension<Principal>,
    origin: Origin,
    JsonOf(mut request): JsonOf<DeployRequest>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<Deployment>), ApiError> {
    request.approve |= principal.role == Role::Admin;
    let deployed = api.engine.deploy(origin, tenant, app, request).await?;
    let timing = [(SERVER_TIMING, server_timing(&deployed))];
    Ok((StatusCode::CREATED, timing, Json(api.deployed(deployed))))
}

/// The steps of a deploy, as the header has them.
fn server_timing(deployed: &Deployed) -> String {
    let steps = [
        ("compile", deployed.compile),
        ("boot", deployed.boot),
        ("store", deployed.store),
    ];
    let metrics =
        steps.map(|(step, time)| format!("{step};dur={:.3}", time.as_secs_f64() * 1_000.0));
    metrics.join(", ")
}

impl Api {
    /// A deployment that has just been made.
    pub(super) fn deployed(&self, deployed: Deployed) -> Deployment {
        self.deployment_of(deployed.record, &deployed.app)
    }

    fn deployment_of(&self, record: DeploymentRecord, app: &AppRecord) -> Deployment {
        let names = record.env.into_keys().chain(record.config.into_keys());
        let names: BTreeSet<_> = names.collect();
        let (tenant, number) = (&record.tenant, record.deployment);
        let traffic = app.traffic();
        let shares = traffic.shares.iter();
        let share = shares.filter(|share| share.deployment == number);
        let preview = app.previews.contains(&number);
        Deployment {
            url: self.engine.url(tenant, &record.app),
            active: app.active == number,
            weight: share.map(|share| share.weight).next().unwrap_or(0),
            preview_url: preview.then(|| self.engine.preview_url(tenant, &record.app, number)),
            tenant: record.tenant,
            app: record.app,
            deployment: record.deployment,
            digest: record.digest,
            created_at: record.created_at,
            env: names.into_iter().collect(),
            secrets: record.secrets,
            allow_hosts: record.allow_hosts,
            limits: record.limits,
            isolation: record.isolation,
            scale: record.scale,
            health: record.health,
            imports: record.imports.unwrap_or_default(),
            growth: record.growth,
        }
    }
}
