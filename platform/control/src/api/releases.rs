//! Who answers for an app: traffic, rollback, promotion, canary, history.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use platform_model::{Canary, List, PromoteRequest, Release, RollbackRequest, Traffic};

use super::Api;
use super::etag::{IfMatch, Tagged};
use super::input::{JsonOf, OfApp, QueryOf};
use super::page::PageQuery;
use crate::engine::Origin;
use crate::problem::{ApiError, Code};
use crate::store::records::{AppRecord, HistoryRecord, Stored};

/// What a change of who answers may be refused with.
pub(super) const PROBLEMS: &[Code] = &[
    Code::DeploymentUnknown,
    Code::TrafficInvalid,
    Code::NothingBefore,
    Code::ComponentRejected,
    Code::CompileLimit,
    Code::CompileFailed,
    Code::StartRefused,
    Code::StartTimeout,
    Code::VmUnavailable,
    Code::SecretUnreadable,
    Code::Stopping,
];

/// Who answers an app's requests.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/apps/{app}/traffic", tag = "releases", operation_id = "get_traffic", params(OfApp),
    responses((status = 200, description = "Who answers.", body = Traffic,
        headers(("etag" = String, description = "The state of the app."))))
)]
pub(super) async fn traffic(
    State(api): State<Api>,
    OfApp(tenant, app): OfApp,
) -> Result<Tagged<Traffic>, ApiError> {
    Ok(tagged(api.engine.app(&tenant, &app).await?))
}

/// Lets several deployments share an app's requests, or one answer them all. A canary that is under way ends.
#[utoipa::path(
    put, path = "/v1/tenants/{tenant}/apps/{app}/traffic", tag = "releases", operation_id = "set_traffic",
    params(OfApp, IfMatch), request_body = Traffic,
    responses((status = 200, description = "Who answers from now on.", body = Traffic,
        headers(("etag" = String, description = "The state of the app."))))
)]
pub(super) async fn set_traffic(
    State(api): State<Api>,
    OfApp(tenant, app): OfApp,
    IfMatch(expected): IfMatch,
    origin: Origin,
    JsonOf(traffic): JsonOf<Traffic>,
) -> Result<Tagged<Traffic>, ApiError> {
    let set = api
        .engine
        .set_traffic(&origin, &tenant, &app, expected, traffic);
    Ok(tagged(set.await?))
}

/// Lets an older deployment answer again: the one that answered before, where none is named. A canary that is under way is given up then.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/apps/{app}/rollback", tag = "releases", operation_id = "rollback",
    params(OfApp), request_body = RollbackRequest,
    responses((status = 200, description = "Who answers from now on.", body = Traffic,
        headers(("etag" = String, description = "The state of the app."))))
)]
pub(super) async fn rollback(
    State(api): State<Api>,
    OfApp(tenant, app): OfApp,
    origin: Origin,
    JsonOf(request): JsonOf<RollbackRequest>,
) -> Result<Tagged<Traffic>, ApiError> {
    let rolled = api.engine.rollback(&origin, &tenant, &app, request.to);
    Ok(tagged(rolled.await?))
}

/// Lets one deployment answer all of an app's requests.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/apps/{app}/promote", tag = "releases", operation_id = "promote",
    params(OfApp), request_body = PromoteRequest,
    responses((status = 200, description = "Who answers from now on.", body = Traffic,
        headers(("etag" = String, description = "The state of the app."))))
)]
pub(super) async fn promote(
    State(api): State<Api>,
    OfApp(tenant, app): OfApp,
    origin: Origin,
    JsonOf(request): JsonOf<PromoteRequest>,
) -> Result<Tagged<Traffic>, ApiError> {
    let promoted = api
        .engine
        .promote(&origin, &tenant, &app, request.deployment);
    Ok(tagged(promoted.await?))
}

/// Who answered when, by whom and why; the latest first.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/apps/{app}/history", tag = "releases", operation_id = "get_history",
    params(OfApp, PageQuery),
    responses((status = 200, description = "The latest first.", body = List<Release>))
)]
pub(super) async fn history(
    State(api): State<Api>,
    OfApp(tenant, app): OfApp,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<List<Release>>, ApiError> {
    api.engine.app(&tenant, &app).await?;
    let of = HistoryRecord::of(&tenant, &app);
    let page = api
        .engine
        .ask(move |records| records.page(&of, query.after.as_deref(), query.limit()));
    Ok(Json(page.await?.list(|record| record.release)))
}

/// The canary that is under way.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/apps/{app}/canary", tag = "releases", operation_id = "get_canary", params(OfApp),
    responses((status = 200, description = "The canary.", body = Canary))
)]
pub(super) async fn canary(
    State(api): State<Api>,
    OfApp(tenant, app): OfApp,
) -> Result<Json<Canary>, ApiError> {
    Ok(Json(api.engine.canary(&tenant, &app).await?))
}

/// Gives up the canary that is under way.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/apps/{app}/canary", tag = "releases", operation_id = "abort_canary",
    params(OfApp),
    responses((status = 204, description = "Its requests go where they went before."))
)]
pub(super) async fn abort_canary(
    State(api): State<Api>,
    OfApp(tenant, app): OfApp,
    origin: Origin,
) -> Result<StatusCode, ApiError> {
    api.engine.abort_canary(&origin, &tenant, &app).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn tagged(app: Stored<AppRecord>) -> Tagged<Traffic> {
    Tagged(app.revision, app.record.traffic())
}
