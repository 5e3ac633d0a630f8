//! The operations of the admin API.

use std::path::Path;
use std::time::Duration;

use platform_model::{
    App, AppName, ComponentUpload, DeployRequest, Deployment, DeploymentId, Health, List, LogQuery,
    Status, Tenant, TenantName,
};
use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use serde::de::DeserializeOwned;

use crate::ClientError;
use crate::logs::LogLines;
use crate::timing::{self, Timing};
use crate::transport::Transport;
use crate::upload::{Progress, Source};

/// Time of an operation that only reads or writes what the node knows.
pub(crate) const QUICK: Duration = Duration::from_secs(30);

/// Items of a page where all of a list is wanted: as many as a node gives at once.
const PAGE: usize = 1_000;

/// Time of a health check.
const HEALTH: Duration = Duration::from_secs(5);

/// A node's admin API. Clones share their connections. Dropping the future of an operation ends its request; a deploy
/// that has begun may still happen.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) transport: Transport,
}

/// A deployment that the node has made, and what the steps to it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployed {
    /// The deployment.
    pub deployment: Deployment,
    /// The steps in their order. Empty where the node does not say.
    pub timings: Vec<Timing>,
}

/// An answer, and the tag of the state that it shows: given back with a change, it keeps the change from being made in
/// another state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagged<T> {
    /// What the node answered.
    pub value: T,
    /// Its `ETag`, where it has one.
    pub tag: Option<String>,
}

impl Client {
    /// A client of the node at `url`, such as `http://127.0.0.1:7381`. Nothing is sent yet.
    ///
    /// # Errors
    /// When the URL or the token cannot be used.
    pub fn new(url: &str, token: Option<&str>) -> Result<Self, ClientError> {
        Transport::new(url, token).map(|transport| Self { transport })
    }

    /// The node's URL, without a slash at its end.
    #[must_use]
    pub fn url(&self) -> &str {
        self.transport.url()
    }

    /// Whether the node is well. Needs no token.
    ///
    /// # Errors
    /// When it does not answer within five seconds.
    pub async fn health(&self) -> Result<Health, ClientError> {
        let request = self
            .transport
            .request(Method::GET, &["healthz"], Some(HEALTH));
        self.transport.json(request).await
    }

    /// What the node is doing.
    ///
    /// # Errors
    /// See [`ClientError`], as for every operation.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get(&["v1", "status"]).await
    }

    /// What the node counts, as text for Prometheus.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let request = self
            .transport
            .request(Method::GET, &["metrics"], Some(QUICK));
        self.transport.text(request).await
    }

    /// Every tenant.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn tenants(&self) -> Result<Vec<Tenant>, ClientError> {
        self.list(&["v1", "tenants"]).await
    }

    /// Creates a tenant, or gives the one that exists.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn create_tenant(&self, tenant: &TenantName) -> Result<Tenant, ClientError> {
        let segments = ["v1", "tenants", tenant.as_str()];
        let request = self.transport.request(Method::PUT, &segments, Some(QUICK));
        self.transport.json(request).await
    }

    /// Deletes a tenant that has no apps.
    ///
    /// # Errors
    /// See [`ClientError`]; status 409 when it has apps.
    pub async fn delete_tenant(&self, tenant: &TenantName) -> Result<(), ClientError> {
        self.delete(&["v1", "tenants", tenant.as_str()]).await
    }

    /// Every app of every tenant.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn apps(&self) -> Result<Vec<App>, ClientError> {
        self.list(&["v1", "apps"]).await
    }

    /// The apps of one tenant.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn tenant_apps(&self, tenant: &TenantName) -> Result<Vec<App>, ClientError> {
        self.list(&["v1", "tenants", tenant.as_str(), "apps"]).await
    }

    /// One app.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn app(&self, tenant: &TenantName, app: &AppName) -> Result<App, ClientError> {
        self.get(&["v1", "tenants", tenant.as_str(), "apps", app.as_str()])
            .await
    }

    /// Deletes an app with all its deployments. Requests in flight finish.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete_app(&self, tenant: &TenantName, app: &AppName) -> Result<(), ClientError> {
        self.delete(&["v1", "tenants", tenant.as_str(), "apps", app.as_str()])
            .await
    }

    /// Uploads the component in the file `path`, piece by piece, and reports after each piece.
    ///
    /// # Errors
    /// See [`ClientError`]; status 413 when the node does not take components of that size.
    pub async fn upload(
        &self,
        tenant: &TenantName,
        path: &Path,
        progress: impl FnMut(Progress) + Send + 'static,
    ) -> Result<ComponentUpload, ClientError> {
        let source = Source::open(path).await?;
        let size = source.size;
        let body = reqwest::Body::wrap_stream(source.pieces(progress));
        self.upload_body(tenant, size, body).await
    }

    /// Uploads a component that is in memory.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn upload_bytes(
        &self,
        tenant: &TenantName,
        component: bytes::Bytes,
    ) -> Result<ComponentUpload, ClientError> {
        let size = component.len() as u64;
        self.upload_body(tenant, size, component.into()).await
    }

    async fn upload_body(
        &self,
        tenant: &TenantName,
        size: u64,
        body: reqwest::Body,
    ) -> Result<ComponentUpload, ClientError> {
        let segments = ["v1", "tenants", tenant.as_str(), "components"];
        let request = self
            .transport
            .request(Method::POST, &segments, None)
            .header(CONTENT_TYPE, "application/wasm")
            .header(CONTENT_LENGTH, size)
            .body(body);
        self.transport.json(request).await
    }

    /// Deploys an uploaded component: the node compiles it, starts it, and switches the app's requests over to it. That
    /// takes as long as it takes, up to minutes for a large component.
    ///
    /// # Errors
    /// See [`ClientError`]; the app is as it was before then.
    pub async fn deploy(
        &self,
        tenant: &TenantName,
        app: &AppName,
        what: &DeployRequest,
    ) -> Result<Deployed, ClientError> {
        let segments = of_app(tenant, app, "deployments");
        let request = self
            .transport
            .request(Method::POST, &segments, None)
            .json(what);
        let response = self.transport.send(request).await?;
        let timings = timing::read(response.headers());
        let deployment = self.transport.read(response).await?;
        Ok(Deployed {
            deployment,
            timings,
        })
    }

    /// The deployments of an app.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn deployments(
        &self,
        tenant: &TenantName,
        app: &AppName,
    ) -> Result<Vec<Deployment>, ClientError> {
        self.list(&of_app(tenant, app, "deployments")).await
    }

    /// One deployment of an app.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn deployment(
        &self,
        tenant: &TenantName,
        app: &AppName,
        number: DeploymentId,
    ) -> Result<Deployment, ClientError> {
        let number = number.to_string();
        let mut segments = of_app(tenant, app, "deployments");
        segments.push(&number);
        self.get(&segments).await
    }

    /// Lines of an app's log: those that meet all that the query gives. The node applies it, so what is not wanted is not
    /// sent.
    ///
    /// # Errors
    /// See [`ClientError`]; what happens later comes out of the stream. Status 429 when too many read this log.
    pub async fn logs(
        &self,
        tenant: &TenantName,
        app: &AppName,
        query: &LogQuery,
    ) -> Result<LogLines, ClientError> {
        let segments = of_app(tenant, app, "logs");
        let request = self.transport.get_with_query(&segments, &query.pairs());
        let response = self.transport.send(request).await?;
        Ok(LogLines::new(self.transport.clone(), response))
    }

    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        segments: &[&str],
    ) -> Result<T, ClientError> {
        let request = self.transport.request(Method::GET, segments, Some(QUICK));
        self.transport.json(request).await
    }

    /// All of a list, page by page.
    pub(crate) async fn list<T: DeserializeOwned>(
        &self,
        segments: &[&str],
    ) -> Result<Vec<T>, ClientError> {
        self.at_most(segments, usize::MAX).await
    }

    /// The first items of a list, at most so many, page by page.
    pub(crate) async fn at_most<T: DeserializeOwned>(
        &self,
        segments: &[&str],
        most: usize,
    ) -> Result<Vec<T>, ClientError> {
        let mut items = Vec::new();
        let mut after = None::<String>;
        while items.len() < most {
            let limit = PAGE.min(most - items.len());
            let page = self.page(segments, limit, after.as_deref()).await?;
            items.extend(page.items);
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        Ok(items)
    }

    /// One page of a list.
    async fn page<T: DeserializeOwned>(
        &self,
        segments: &[&str],
        limit: usize,
        after: Option<&str>,
    ) -> Result<List<T>, ClientError> {
        let limit = limit.to_string();
        let mut query = vec![("limit", limit.as_str())];
        query.extend(after.map(|after| ("after", after)));
        let request = self
            .transport
            .request(Method::GET, segments, Some(QUICK))
            .query(&query);
        self.transport.json(request).await
    }

    pub(crate) async fn delete(&self, segments: &[&str]) -> Result<(), ClientError> {
        let request = self
            .transport
            .request(Method::DELETE, segments, Some(QUICK));
        self.transport.send(request).await.map(drop)
    }
}

/// The path of something that an app has.
pub(crate) fn of_app<'a>(tenant: &'a TenantName, app: &'a AppName, what: &'a str) -> Vec<&'a str> {
    let (tenant, app) = (tenant.as_str(), app.as_str());
    vec!["v1", "tenants", tenant, "apps", app, what]
}
