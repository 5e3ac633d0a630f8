//! `GET /metrics`: what is counted, for Prometheus.

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::CONTENT_TYPE;

use super::Api;
use crate::metrics::{self, Metrics};

/// What the node counts, for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "node", operation_id = "get_metrics",
    responses((status = 200, description = "The figures, in Prometheus' text format.", body = String, content_type = "text/plain"))
)]
pub(super) async fn of_node(State(api): State<Api>) -> Response {
    page(&api.metrics).await
}

/// Just that page, without a token: for a listener that only Prometheus can reach.
pub fn router(metrics: Metrics) -> Router {
    let open = async |State(metrics): State<Metrics>| page(&metrics).await;
    Router::new()
        .route("/metrics", get(open))
        .with_state(metrics)
}

async fn page(metrics: &Metrics) -> Response {
    (
        [(CONTENT_TYPE, metrics::CONTENT_TYPE)],
        metrics.page().await,
    )
        .into_response()
}
