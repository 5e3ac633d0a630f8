//! The admin API: HTTP with JSON under `/v1`, for whoever holds the node's token.
//!
//! | method and path | what |
//! |---|---|
//! | `GET /healthz` | whether the node is up; the one path that needs no token |
//! | `GET /metrics` | what is counted, for Prometheus |
//! | `GET /v1/status` | VMs and workers |
//! | `GET /v1/tenants` | tenants |
//! | `PUT`, `DELETE /v1/tenants/{tenant}` | creates and deletes one |
//! | `POST /v1/tenants/{tenant}/components` | uploads a component |
//! | `GET /v1/apps`, `GET /v1/tenants/{tenant}/apps` | apps of all tenants, of one |
//! | `GET`, `DELETE /v1/tenants/{tenant}/apps/{app}` | one app |
//! | `GET`, `POST /v1/tenants/{tenant}/apps/{app}/deployments` | its deployments; a new one |
//! | `GET /v1/tenants/{tenant}/apps/{app}/deployments/{deployment}` | one of them |
//! | `GET /v1/tenants/{tenant}/apps/{app}/logs` | what it wrote: see [`platform_model::LogQuery`] |
//!
//! Errors are RFC 9457 problems with the codes of [`crate::problem`]; every answer has an `x-request-id`.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::routing::{get, post, put};
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::metrics::{Metrics, SpanCounters};
use crate::problem::{ApiError, Code};

mod apps;
mod auth;
mod components;
mod deployments;
mod input;
mod logs;
mod metrics;
mod status;
mod tenants;
mod trace;

pub use metrics::router as metrics_router;

/// What the API answers from. Clones are the same.
#[derive(Clone)]
pub struct Api {
    engine: Arc<Engine>,
    token: auth::Token,
    about: About,
    metrics: Metrics,
    stop: CancellationToken,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api")
            .field("about", &self.about)
            .finish_non_exhaustive()
    }
}

/// What the API is told about the node.
#[derive(Debug, Clone)]
pub struct About {
    /// Version of the node.
    pub version: &'static str,
    /// Version of wasmtime that runs in the VMs.
    pub wasmtime: &'static str,
    /// When the node started.
    pub started: Instant,
    /// Spans on their way to the collector, where requests are traced.
    pub spans: Option<Arc<SpanCounters>>,
}

impl Api {
    /// The API of `engine` for whoever holds `token`. When `stop` is cancelled, answers that follow a log end.
    #[must_use]
    pub fn new(engine: Arc<Engine>, token: &str, about: About, stop: CancellationToken) -> Self {
        let (sandboxes, logs) = (engine.sandboxes().clone(), engine.logs().clone());
        Self {
            metrics: Metrics::new(sandboxes, logs, about.clone()),
            engine,
            token: auth::Token::new(token),
            about,
            stop,
        }
    }

    /// What is counted, for a listener of its own: [`metrics_router`].
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The routes.
    pub fn router(self) -> Router {
        let of_app = "/v1/tenants/{tenant}/apps/{app}";
        let under = |path: &str| format!("{of_app}{path}");
        Router::new()
            .route("/metrics", get(metrics::of_node))
            .route("/v1/status", get(status::status))
            .route("/v1/tenants", get(tenants::list))
            .route(
                "/v1/tenants/{tenant}",
                put(tenants::create).delete(tenants::delete),
            )
            .route("/v1/tenants/{tenant}/components", post(components::upload))
            .route("/v1/apps", get(apps::list_all))
            .route("/v1/tenants/{tenant}/apps", get(apps::list))
            .route(of_app, get(apps::get).delete(apps::delete))
            .route(
                &under("/deployments"),
                get(deployments::list).post(deployments::create),
            )
            .route(&under("/deployments/{deployment}"), get(deployments::get))
            .route(&under("/logs"), get(logs::read))
            // Before the token is looked at, so that a wrong method needs a token too.
            .method_not_allowed_fallback(method_not_allowed)
            .route_layer(axum::middleware::from_fn_with_state(
                self.clone(),
                auth::require,
            ))
            .route("/healthz", get(status::health))
            .fallback(unknown_path)
            .layer(axum::middleware::from_fn(trace::trace))
            .with_state(self)
    }
}

async fn method_not_allowed(method: http::Method, uri: http::Uri) -> ApiError {
    let detail = format!("{} does not take {method}", uri.path());
    ApiError::new(Code::MethodNotAllowed, detail)
}

async fn unknown_path(uri: http::Uri) -> ApiError {
    let detail = format!("there is no {}: the API is under /v1", uri.path());
    ApiError::new(Code::PathUnknown, detail)
}

#[cfg(test)]
mod tests;
