//! The admin API: HTTP with JSON under `/v1`, for whoever holds a token.
//!
//! What there is, who may call it and what it answers is in [`Api::router`] and beside each operation; `openapi.json` in
//! the crate's folder is made from that. Errors are RFC 9457 problems with the codes of [`crate::problem`]; every answer has
//! an `x-request-id`.
//!
//! ```text
//! trace: request id, body of problems ─> auth: whose token ─> change: to its end, once, audited ─> access: may it ─> operation
//! ```

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use platform_model::Role;
use tokio_util::sync::CancellationToken;
use utoipa_axum::routes;

use self::access::Access;
use self::endpoints::Endpoints;
use crate::engine::Engine;
use crate::metrics::{Metrics, SpanCounters};
use crate::problem::{ApiError, Code};

mod access;
mod apps;
mod audit;
mod auth;
mod change;
mod components;
mod deployments;
mod domains;
mod endpoints;
mod etag;
mod idempotency;
mod input;
mod logs;
mod metrics;
mod openapi;
mod page;
mod rate;
mod releases;
mod routes;
mod settings;
mod status;
mod tenants;
mod tokens;
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
    running: idempotency::Running,
    /// None where there are no limits.
    rates: Option<Arc<rate::Rates>>,
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
    /// Requests that one token may make in a second; 0 for no limits, neither on these nor on wrong tokens.
    pub requests_per_second: u32,
}

impl Api {
    /// The API of `engine` for whoever holds `token`. When `stop` is cancelled, answers that follow a log end.
    #[must_use]
    pub fn new(engine: Arc<Engine>, token: &str, about: About, stop: CancellationToken) -> Self {
        let (sandboxes, logs) = (engine.sandboxes().clone(), engine.logs().clone());
        let rates = NonZeroU32::new(about.requests_per_second);
        Self {
            metrics: Metrics::new(sandboxes, logs, about.clone()),
            engine,
            token: auth::Token::new(token),
            rates: rates.map(rate::Rates::new).map(Arc::new),
            about,
            stop,
            running: idempotency::Running::default(),
        }
    }

    /// What is counted, for a listener of its own: [`metrics_router`].
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The routes.
    pub fn router(self) -> Router {
        let (router, _) = self.clone().endpoints().finish(method_not_allowed);
        router
            .fallback(unknown_path)
            .layer(axum::middleware::from_fn(trace::trace))
            .with_state(self)
    }

    /// Every operation, with the right that it takes and the problems that are its own.
    fn endpoints(self) -> Endpoints {
        let not_empty = &[Code::TenantUnknown, Code::TenantNotEmpty];
        let quota = &[Code::QuotaExceeded];
        let deployment = &[Code::DeploymentUnknown];
        Endpoints::new(self)
            .public(&[], routes!(status::health))
            .public(&[], routes!(openapi::get))
            .add(Access::node(Role::Read), &[], routes!(metrics::of_node))
            .add(Access::anything(Role::Read), &[], routes!(status::status))
            .add(Access::node(Role::Read), &[], routes!(tenants::list))
            .add(Access::node(Role::Admin), &[], routes!(tenants::create))
            .add(
                Access::node(Role::Admin),
                not_empty,
                routes!(tenants::delete),
            )
            .add(Access::tenant(Role::Read), &[], routes!(tenants::get))
            .add(
                Access::node(Role::Admin),
                &[Code::TenantUnknown, Code::QuotasInvalid],
                routes!(tenants::change),
            )
            .add(Access::anything(Role::Read), &[], routes!(tokens::whoami))
            .add(
                Access::node(Role::Admin),
                &[],
                routes!(tokens::list_of_node),
            )
            .add(
                Access::node(Role::Admin),
                &[Code::TokenInvalid],
                routes!(tokens::create_of_node),
            )
            .add(
                Access::node(Role::Admin),
                &[Code::TokenUnknown],
                routes!(tokens::revoke_of_node),
            )
            .add(Access::tenant(Role::Admin), &[], routes!(tokens::list))
            .add(
                Access::tenant(Role::Admin),
                &[Code::TokenInvalid, Code::QuotaExceeded],
                routes!(tokens::create),
            )
            .add(
                Access::tenant(Role::Admin),
                &[Code::TokenUnknown],
                routes!(tokens::revoke),
            )
            .add(Access::node(Role::Admin), &[], routes!(audit::list))
            .add(
                Access::tenant(Role::Admin),
                &[],
                routes!(audit::list_of_tenant),
            )
            .add(
                Access::within_tenant(Role::Deploy),
                quota,
                routes!(components::upload),
            )
            .add(Access::anything(Role::Read), &[], routes!(apps::list_all))
            .add(Access::tenant(Role::Read), &[], routes!(apps::list))
            .add(Access::app(Role::Read), &[], routes!(apps::get))
            .add(Access::app(Role::Admin), &[], routes!(apps::delete))
            .add(Access::app(Role::Read), &[], routes!(deployments::list))
            .add(
                Access::app(Role::Deploy),
                deployments::PROBLEMS,
                routes!(deployments::create),
            )
            .add(
                Access::app(Role::Read),
                deployment,
                routes!(deployments::get),
            )
            .add(
                Access::app(Role::Read),
                &[Code::LogReaders],
                routes!(logs::read),
            )
            .releases()
            .hosts()
            .settings()
    }
}

impl Endpoints {
    /// Operations of who answers for an app.
    fn releases(self) -> Self {
        let (read, deploy) = (Access::app(Role::Read), Access::app(Role::Deploy));
        let canary = &[Code::CanaryUnknown];
        let answers = [Code::DeploymentUnknown, Code::DeploymentAnswers];
        self.add(deploy, &[Code::AppInvalid], routes!(apps::change))
            .add(deploy, &answers, routes!(deployments::delete))
            .add(read, &[], routes!(releases::traffic))
            .add(deploy, releases::PROBLEMS, routes!(releases::set_traffic))
            .add(deploy, releases::PROBLEMS, routes!(releases::rollback))
            .add(deploy, releases::PROBLEMS, routes!(releases::promote))
            .add(read, &[], routes!(releases::history))
            .add(read, canary, routes!(releases::canary))
            .add(deploy, canary, routes!(releases::abort_canary))
    }

    /// Operations of routes and domains.
    fn hosts(self) -> Self {
        let (read, deploy) = (Access::tenant(Role::Read), Access::tenant(Role::Deploy));
        let unknown = [Code::DomainUnknown];
        let set = [Code::TenantUnknown, Code::DomainInvalid];
        let verify = [
            Code::DomainUnknown,
            Code::DomainProofFailed,
            Code::DomainTaken,
        ];
        let certificate = [
            Code::DomainUnknown,
            Code::DomainUnproved,
            Code::CertificateInvalid,
        ];
        let gone = [Code::DomainUnknown, Code::CertificateUnknown];
        let renew = [
            Code::DomainUnknown,
            Code::DomainUnproved,
            Code::CertificateNotIssued,
        ];
        let in_use = [Code::DomainUnknown, Code::DomainInUse];
        let admin = Access::tenant(Role::Admin);
        let (of_app, to_app) = (Access::app(Role::Read), Access::app(Role::Deploy));
        self.add(of_app, &[], routes!(routes::get))
            .add(to_app, routes::PROBLEMS, routes!(routes::set))
            .add(to_app, &[], routes!(routes::delete))
            .add(read, &[], routes!(domains::list))
            .add(read, &unknown, routes!(domains::get))
            .add(deploy, &set, routes!(domains::set))
            .add(admin, &in_use, routes!(domains::delete))
            .add(deploy, &verify, routes!(domains::verify))
            .add(deploy, &certificate, routes!(domains::set_certificate))
            .add(deploy, &gone, routes!(domains::delete_certificate))
            .add(deploy, &renew, routes!(domains::renew_certificate))
    }

    /// Operations of configuration and secrets. Those that change them deploy, and answer with what a deploy does.
    fn settings(self) -> Self {
        let invalid = [Code::SettingsInvalid];
        let deploy = [deployments::PROBLEMS, &invalid].concat();
        let of_secret = [&deploy[..], &[Code::SecretUnknown]].concat();
        let key = [Code::KeyForeign, Code::SecretUnreadable];
        self.add(Access::app(Role::Read), &[], routes!(settings::config))
            .add(
                Access::app(Role::Deploy),
                &deploy,
                routes!(settings::change_config),
            )
            .add(Access::app(Role::Read), &[], routes!(settings::secrets))
            .add(
                Access::app(Role::Deploy),
                &deploy,
                routes!(settings::set_secret),
            )
            .add(
                Access::app(Role::Deploy),
                &of_secret,
                routes!(settings::delete_secret),
            )
            .add(
                Access::node(Role::Admin),
                &key,
                routes!(settings::rotate_key),
            )
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
