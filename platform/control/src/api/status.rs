//! `GET /healthz` and `GET /v1/status`.

use axum::Json;
use axum::extract::State;
use platform_model::{Health, Status};

use super::Api;

/// Whether the node is up.
pub(super) async fn health(State(api): State<Api>) -> Json<Health> {
    Json(Health {
        status: "ok".to_owned(),
        version: api.about.version.to_owned(),
    })
}

/// What the node is doing.
pub(super) async fn status(State(api): State<Api>) -> Json<Status> {
    let data = api.engine.sandboxes().status().await;
    Json(Status {
        version: api.about.version.to_owned(),
        uptime_seconds: api.about.started.elapsed().as_secs(),
        wasmtime: api.about.wasmtime.to_owned(),
        vms: data.vms,
        workers: data.workers,
    })
}
