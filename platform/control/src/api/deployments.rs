//! Deployments.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use http::{HeaderName, StatusCode};
use platform_model::{DeployRequest, Deployment, DeploymentId, List};

use super::Api;
use super::apps;
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
            Ok(app.map(|app| (app.record.active, page)))
        })
        .await?;
    let (active, page) = found.ok_or_else(|| apps::unknown(&tenant, &app))?;
    let items = page.items.into_iter();
    let items = items
        .map(|stored| api.deployment_of(stored.record, active))
        .collect();
    let next = page.next;
    Ok(Json(List { items, next }))
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
            Ok(app.map(|app| (app.record.active, deployment)))
        })
        .await?;
    let (active, record) = found.ok_or_else(|| apps::unknown(&tenant, &app))?;
    let record = record.ok_or_else(|| {
        let detail = format!("the app {app} has no deployment {number}");
        ApiError::new(Code::DeploymentUnknown, detail)
    })?;
    Ok(Json(api.deployment_of(record, active)))
}

/// Deploys: compiles, starts, and switches over. `server-timing` tells what the steps took, in milliseconds.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/apps/{app}/deployments", tag = "apps", operation_id = "create_deployment",
    params(OfApp), request_body = DeployRequest,
    responses((status = 201, description = "It answers from now on.", body = Deployment,
        headers(("server-timing" = String, description = "What the steps took."))))
)]
pub(super) async fn create(
    State(api): State<Api>,
    OfApp(tenant, app): OfApp,
    origin: Origin,
    JsonOf(request): JsonOf<DeployRequest>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<Deployment>), ApiError> {
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
    /// A deployment that has just been made, and answers.
    pub(super) fn deployed(&self, deployed: Deployed) -> Deployment {
        let active = deployed.record.deployment;
        self.deployment_of(deployed.record, active)
    }

    fn deployment_of(&self, record: DeploymentRecord, active: DeploymentId) -> Deployment {
        let names = record.env.into_keys().chain(record.config.into_keys());
        let names: BTreeSet<_> = names.collect();
        Deployment {
            url: self.engine.url(&record.tenant, &record.app),
            tenant: record.tenant,
            app: record.app,
            deployment: record.deployment,
            digest: record.digest,
            created_at: record.created_at,
            active: record.deployment == active,
            env: names.into_iter().collect(),
            secrets: record.secrets,
            allow_hosts: record.allow_hosts,
            limits: record.limits,
            isolation: record.isolation,
            scale: record.scale,
        }
    }
}
