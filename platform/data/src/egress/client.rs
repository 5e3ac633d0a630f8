//! The HTTP client of one tenant: its own connections, names resolved under the policy.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower_service::Service;

use super::call::RequestBody;
use super::policy;

/// Idle connections kept for each host.
const MAX_IDLE: usize = 32;
/// Time that an idle connection is kept.
const IDLE_TIME: Duration = Duration::from_secs(30);
/// Longest head of a response.
const MAX_HEAD: usize = 128 << 10;

/// A tenant's client.
pub(crate) type TenantClient = Client<Timed<HttpsConnector<HttpConnector<Resolver>>>, RequestBody>;

/// Makes a client without connections.
pub(crate) fn new() -> TenantClient {
    let mut http = HttpConnector::new_with_resolver(Resolver);
    http.enforce_http(false);
    http.set_nodelay(true);
    let https = hyper_rustls::HttpsConnectorBuilder::new()
        .with_webpki_roots()
        .https_or_http()
        .enable_http1()
        .wrap_connector(http);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIME)
        .pool_max_idle_per_host(MAX_IDLE)
        .http1_max_buf_size(MAX_HEAD)
        .http1_max_headers(512)
        .build(Timed(https))
}

/// Why a name was not resolved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    /// The name service does not know it, or does not answer.
    #[error("the name cannot be resolved")]
    Failed(#[source] io::Error),
    /// It leads only to addresses that are not public.
    #[error("the name leads to an address that is not public")]
    Prohibited,
}

/// Resolves names; hands out only addresses that the policy allows, and the connection is made to those.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resolver;

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = ResolveError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ResolveError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ResolveError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0))
                .await
                .map_err(ResolveError::Failed)?
                .collect();
            if found.is_empty() {
                return Err(ResolveError::Failed(io::ErrorKind::NotFound.into()));
            }
            let allowed: Vec<SocketAddr> = found
                .into_iter()
                .filter(|address| policy::may_resolve(name.as_str(), address.ip()))
                .collect();
            if allowed.is_empty() {
                Err(ResolveError::Prohibited)
            } else {
                Ok(allowed.into_iter())
            }
        })
    }
}

tokio::task_local! {
    /// Time for a connection of the request that runs in this task.
    pub(crate) static CONNECT_TIME: Duration;
}

/// The connection did not stand in time.
#[derive(Debug, thiserror::Error)]
#[error("the connection did not stand in time")]
pub(crate) struct ConnectTimeout;

/// A connector with the time limit of the request that it connects for.
#[derive(Debug, Clone)]
pub(crate) struct Timed<C>(C);

impl<C> Service<Uri> for Timed<C>
where
    C: Service<Uri>,
    C::Future: Send + 'static,
    C::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    C::Response: 'static,
{
    type Response = C::Response;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let time = CONNECT_TIME
            .try_with(|time| *time)
            .unwrap_or(Duration::from_secs(60));
        let connecting = self.0.call(uri);
        Box::pin(async move {
            match tokio::time::timeout(time, connecting).await {
                Ok(connected) => connected.map_err(Into::into),
                Err(_) => Err(ConnectTimeout.into()),
            }
        })
    }
}
