//! Routes of apps.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use http::StatusCode;
use platform_model::AppRoutes;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Api;
use super::change::OnlyAsked;
use super::etag::{IfMatch, Tagged};
use super::input::{JsonOf, OfApp, QueryOf};
use crate::engine::Origin;
use crate::problem::{ApiError, Code};
use crate::store::Revision;

/// What can be wrong with routes.
pub(super) const PROBLEMS: &[Code] = &[Code::RoutesInvalid, Code::RouteTaken, Code::DomainUnproved];

/// The routes of an app, besides the host that it has of itself.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/apps/{app}/routes", tag = "hosts", operation_id = "get_routes", params(OfApp),
    responses((status = 200, description = "The routes by host and path.", body = AppRoutes,
        headers(("etag" = String, description = "Their state; none where there are none."))))
)]
pub(super) async fn get(
    State(api): State<Api>,
    OfApp(tenant, app): OfApp,
) -> Result<Response, ApiError> {
    let (routes, revision) = api.engine.routes(&tenant, &app).await?;
    Ok(tagged(revision, routes))
}

/// How routes are set.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SetQuery {
    /// Only say whether they can be set. The app need not be there yet, and `If-Match` is not looked at.
    #[serde(default)]
    check: bool,
}

/// Sets the routes of an app, in place of all that it has. Of the routes that fit a request the one with the longest path
/// counts.
#[utoipa::path(
    put, path = "/v1/tenants/{tenant}/apps/{app}/routes", tag = "hosts", operation_id = "set_routes",
    params(OfApp, SetQuery, IfMatch), request_body = AppRoutes,
    responses((status = 200, description = "The routes as they are now.", body = AppRoutes,
        headers(("etag" = String, description = "Their state; none where there are none."))))
)]
pub(super) async fn set(
    State(api): State<Api>,
    OfApp(tenant, app): OfApp,
    QueryOf(query): QueryOf<SetQuery>,
    IfMatch(expected): IfMatch,
    origin: Origin,
    JsonOf(routes): JsonOf<AppRoutes>,
) -> Result<Response, ApiError> {
    if query.check {
        let routes = api.engine.check_routes(&tenant, &app, routes).await?;
        return Ok((Extension(OnlyAsked), Json(routes)).into_response());
    }
    let set = api
        .engine
        .set_routes(&origin, &tenant, &app, expected, routes);
    let (routes, revision) = set.await?;
    Ok(tagged(revision, routes))
}

/// Takes all routes of an app away. It still has the host that it has of itself.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/apps/{app}/routes", tag = "hosts", operation_id = "delete_routes",
    params(OfApp, IfMatch),
    responses((status = 204, description = "There are none."))
)]
pub(super) async fn delete(
    State(api): State<Api>,
    OfApp(tenant, app): OfApp,
    IfMatch(expected): IfMatch,
    origin: Origin,
) -> Result<StatusCode, ApiError> {
    let none = AppRoutes::default();
    let set = api
        .engine
        .set_routes(&origin, &tenant, &app, expected, none);
    set.await?;
    Ok(StatusCode::NO_CONTENT)
}

fn tagged(revision: Option<Revision>, routes: AppRoutes) -> Response {
    match revision {
        Some(revision) => Tagged(revision, routes).into_response(),
        None => Json(routes).into_response(),
    }
}
