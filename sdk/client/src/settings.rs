//! What the deployments of an app are given: the operations on its configuration and its secrets.

use platform_model::{
    AppName, Config, ConfigChanged, ConfigChanges, KeyRotated, SecretChanged, SecretInfo,
    SecretName, SecretRequest, TenantName,
};
use reqwest::Method;
use reqwest::header::IF_MATCH;

use crate::client::of_app;
use crate::{Client, ClientError};

impl Client {
    /// The configuration of an app.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn config(&self, tenant: &TenantName, app: &AppName) -> Result<Config, ClientError> {
        self.get(&of_app(tenant, app, "config")).await
    }

    /// Changes the configuration of an app, and deploys it anew with it unless told otherwise. What is not named stays.
    ///
    /// # Errors
    /// See [`ClientError`]; the app is as it was before then.
    pub async fn change_config(
        &self,
        tenant: &TenantName,
        app: &AppName,
        changes: &ConfigChanges,
    ) -> Result<ConfigChanged, ClientError> {
        let segments = of_app(tenant, app, "config");
        let request = self.transport.request(Method::PATCH, &segments, None);
        self.transport.json(request.json(changes)).await
    }

    /// The secrets of an app, without their values, which a node does not give back.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn secrets(
        &self,
        tenant: &TenantName,
        app: &AppName,
    ) -> Result<Vec<SecretInfo>, ClientError> {
        self.list(&of_app(tenant, app, "secrets")).await
    }

    /// Gives a secret a value, and deploys the app anew with it unless told otherwise.
    ///
    /// # Errors
    /// See [`ClientError`]; the app is as it was before then.
    pub async fn set_secret(
        &self,
        tenant: &TenantName,
        app: &AppName,
        name: &SecretName,
        what: &SecretRequest,
    ) -> Result<SecretChanged, ClientError> {
        let request = self.secret(Method::PUT, tenant, app, name);
        self.transport.json(request.json(what)).await
    }

    /// Gives a secret that is there another value, and is otherwise like [`Client::set_secret`].
    ///
    /// # Errors
    /// See [`ClientError`]; status 412 when there is no such secret.
    pub async fn rotate_secret(
        &self,
        tenant: &TenantName,
        app: &AppName,
        name: &SecretName,
        what: &SecretRequest,
    ) -> Result<SecretChanged, ClientError> {
        let request = self.secret(Method::PUT, tenant, app, name);
        let request = request.header(IF_MATCH, "*").json(what);
        self.transport.json(request).await
    }

    /// Takes a secret away, and deploys the app anew without it if `deploy`.
    ///
    /// # Errors
    /// See [`ClientError`]; the app is as it was before then.
    pub async fn delete_secret(
        &self,
        tenant: &TenantName,
        app: &AppName,
        name: &SecretName,
        deploy: bool,
    ) -> Result<SecretChanged, ClientError> {
        let request = self.secret(Method::DELETE, tenant, app, name);
        self.transport
            .json(request.query(&[("deploy", deploy)]))
            .await
    }

    /// Has the node make a new key for secrets, and seal all values anew with it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn rotate_key(&self) -> Result<KeyRotated, ClientError> {
        let segments = ["v1", "secret-key", "rotate"];
        // It takes as long as there are values.
        let request = self.transport.request(Method::POST, &segments, None);
        self.transport.json(request).await
    }

    /// A request on one secret. It has no timeout: it may deploy.
    fn secret(
        &self,
        method: Method,
        tenant: &TenantName,
        app: &AppName,
        name: &SecretName,
    ) -> reqwest::RequestBuilder {
        let mut segments = of_app(tenant, app, "secrets");
        segments.push(name.as_str());
        self.transport.request(method, &segments, None)
    }
}
