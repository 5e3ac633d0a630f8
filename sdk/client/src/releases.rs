//! Who answers for an app: the operations on its traffic, its canary and its history.

use platform_model::{
    App, AppChanges, AppName, Canary, DeploymentId, PromoteRequest, Release, RollbackRequest,
    TenantName, Traffic,
};
use reqwest::Method;
use reqwest::header::IF_MATCH;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::{QUICK, of_app};
use crate::{Client, ClientError, Tagged};

impl Client {
    /// Who answers an app's requests.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn traffic(
        &self,
        tenant: &TenantName,
        app: &AppName,
    ) -> Result<Traffic, ClientError> {
        self.get(&of_app(tenant, app, "traffic")).await
    }

    /// Lets several deployments share an app's requests, or one answer them all. The node starts those that do not answer
    /// yet before it switches.
    ///
    /// # Errors
    /// See [`ClientError`]; nothing was changed then.
    pub async fn set_traffic(
        &self,
        tenant: &TenantName,
        app: &AppName,
        traffic: &Traffic,
    ) -> Result<Traffic, ClientError> {
        self.say(Method::PUT, &of_app(tenant, app, "traffic"), traffic)
            .await
    }

    /// Lets an older deployment answer again: the one that answered before, where none is named. A canary that is under way is
    /// given up then.
    ///
    /// # Errors
    /// See [`ClientError`]; nothing was changed then.
    pub async fn rollback(
        &self,
        tenant: &TenantName,
        app: &AppName,
        to: Option<DeploymentId>,
    ) -> Result<Traffic, ClientError> {
        let what = RollbackRequest { to };
        self.say(Method::POST, &of_app(tenant, app, "rollback"), &what)
            .await
    }

    /// Lets one deployment answer all of an app's requests.
    ///
    /// # Errors
    /// See [`ClientError`]; nothing was changed then.
    pub async fn promote(
        &self,
        tenant: &TenantName,
        app: &AppName,
        deployment: DeploymentId,
    ) -> Result<Traffic, ClientError> {
        let what = PromoteRequest { deployment };
        self.say(Method::POST, &of_app(tenant, app, "promote"), &what)
            .await
    }

    /// The latest lines of an app's history, at most so many; the latest first.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn history(
        &self,
        tenant: &TenantName,
        app: &AppName,
        most: usize,
    ) -> Result<Vec<Release>, ClientError> {
        self.at_most(&of_app(tenant, app, "history"), most).await
    }

    /// The canary of an app that is under way.
    ///
    /// # Errors
    /// See [`ClientError`]; status 404 when there is none.
    pub async fn canary(&self, tenant: &TenantName, app: &AppName) -> Result<Canary, ClientError> {
        self.get(&of_app(tenant, app, "canary")).await
    }

    /// Gives up the canary of an app.
    ///
    /// # Errors
    /// See [`ClientError`]; status 404 when there is none.
    pub async fn abort_canary(
        &self,
        tenant: &TenantName,
        app: &AppName,
    ) -> Result<(), ClientError> {
        self.delete(&of_app(tenant, app, "canary")).await
    }

    /// One app, with the tag of its state.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn tagged_app(
        &self,
        tenant: &TenantName,
        app: &AppName,
    ) -> Result<Tagged<App>, ClientError> {
        let segments = ["v1", "tenants", tenant.as_str(), "apps", app.as_str()];
        let request = self.transport.request(Method::GET, &segments, Some(QUICK));
        self.transport.tagged(request).await
    }

    /// Changes what an app may take at the router, and how many of its deployments are kept. With the tag of an earlier
    /// answer only if nobody else changed it since.
    ///
    /// # Errors
    /// See [`ClientError`]; nothing was changed then. Status 412 when somebody else did.
    pub async fn change_app(
        &self,
        tenant: &TenantName,
        app: &AppName,
        changes: &AppChanges,
        tag: Option<&str>,
    ) -> Result<App, ClientError> {
        let segments = ["v1", "tenants", tenant.as_str(), "apps", app.as_str()];
        let request = self
            .transport
            .request(Method::PATCH, &segments, Some(QUICK));
        let request = match tag {
            Some(tag) => request.header(IF_MATCH, tag),
            None => request,
        };
        let changed = self.transport.tagged(request.json(changes)).await?;
        Ok(changed.value)
    }

    /// Deletes a deployment that does not answer for its app.
    ///
    /// # Errors
    /// See [`ClientError`]; status 409 when it answers.
    pub async fn delete_deployment(
        &self,
        tenant: &TenantName,
        app: &AppName,
        number: DeploymentId,
    ) -> Result<(), ClientError> {
        let number = number.to_string();
        let mut segments = of_app(tenant, app, "deployments");
        segments.push(&number);
        self.delete(&segments).await
    }

    /// Sends JSON and reads the answer's. What is to answer may have to be compiled and started first: without a time limit.
    async fn say<T: DeserializeOwned>(
        &self,
        method: Method,
        segments: &[&str],
        what: &(impl Serialize + Sync),
    ) -> Result<T, ClientError> {
        let request = self.transport.request(method, segments, None).json(what);
        self.transport.json(request).await
    }
}
