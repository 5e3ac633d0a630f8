//! `GET /healthz` and `GET /v1/status`.

use axum::extract::State;
use axum::{Extension, Json};
use platform_model::{Health, Status};

use super::Api;
use super::auth::Principal;

/// Whether the node is up.
#[utoipa::path(
    get, path = "/healthz", tag = "node", operation_id = "get_health",
    responses((status = 200, description = "It is.", body = Health))
)]
pub(super) async fn health(State(api): State<Api>) -> Json<Health> {
    Json(Health {
        status: "ok".to_owned(),
        version: api.about.version.to_owned(),
    })
}

/// What the node is doing: its VMs and workers, those that the token may see.
#[utoipa::path(
    get, path = "/v1/status", tag = "node", operation_id = "get_status",
    responses((status = 200, description = "The node.", body = Status))
)]
pub(super) async fn status(
    State(api): State<Api>,
    Extension(principal): Extension<Principal>,
) -> Json<Status> {
    let mut data = api.engine.sandboxes().status().await;
    let scope = &principal.scope;
    data.vms.retain(|vm| scope.covers_app(&vm.tenant, &vm.app));
    data.workers
        .retain(|worker| scope.covers_tenant(&worker.tenant));
    Json(Status {
        version: api.about.version.to_owned(),
        uptime_seconds: api.about.started.elapsed().as_secs(),
        wasmtime: api.about.wasmtime.to_owned(),
        vms: data.vms,
        workers: data.workers,
    })
}
