//! Who may do what: the operations on tenants' quotas, tokens and the audit log.

use platform_model::{
    Audit, CreatedToken, Tenant, TenantChanges, TenantName, Token, TokenId, TokenRequest, Whoami,
};
use reqwest::Method;
use reqwest::header::IF_MATCH;

use crate::client::QUICK;
use crate::{Client, ClientError, Tagged};

impl Client {
    /// Whose token this client has.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn whoami(&self) -> Result<Whoami, ClientError> {
        self.get(&["v1", "whoami"]).await
    }

    /// One tenant, with what it may have and what it has.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn tenant(&self, tenant: &TenantName) -> Result<Tagged<Tenant>, ClientError> {
        let segments = ["v1", "tenants", tenant.as_str()];
        let request = self.transport.request(Method::GET, &segments, Some(QUICK));
        self.transport.tagged(request).await
    }

    /// Changes what a tenant may have. With the tag of an earlier answer only if nobody else did since.
    ///
    /// # Errors
    /// See [`ClientError`]; status 412 when somebody else did.
    pub async fn change_tenant(
        &self,
        tenant: &TenantName,
        changes: &TenantChanges,
        tag: Option<&str>,
    ) -> Result<Tagged<Tenant>, ClientError> {
        let segments = ["v1", "tenants", tenant.as_str()];
        let request = self
            .transport
            .request(Method::PATCH, &segments, Some(QUICK));
        let request = match tag {
            Some(tag) => request.header(IF_MATCH, tag),
            None => request,
        };
        self.transport.tagged(request.json(changes)).await
    }

    /// The tokens of a tenant and of its apps, or those of the node.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn tokens(&self, tenant: Option<&TenantName>) -> Result<Vec<Token>, ClientError> {
        self.list(&of(tenant, "tokens")).await
    }

    /// Makes a token of a tenant or of one of its apps, or of the node. The node shows it this once.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn create_token(
        &self,
        tenant: Option<&TenantName>,
        what: &TokenRequest,
    ) -> Result<CreatedToken, ClientError> {
        let segments = of(tenant, "tokens");
        let request = self.transport.request(Method::POST, &segments, Some(QUICK));
        self.transport.json(request.json(what)).await
    }

    /// Takes a token back: from now on it is wrong.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn revoke_token(&self, id: &TokenId) -> Result<(), ClientError> {
        let text = id.to_string();
        let mut segments = of(id.tenant(), "tokens");
        segments.push(&text);
        self.delete(&segments).await
    }

    /// The latest lines of the audit log, at most `most` of them, the latest first: of a tenant, or of the whole node.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn audit(
        &self,
        tenant: Option<&TenantName>,
        most: usize,
    ) -> Result<Vec<Audit>, ClientError> {
        self.at_most(&of(tenant, "audit"), most).await
    }
}

/// A resource of a tenant, or of the node.
fn of<'a>(tenant: Option<&'a TenantName>, resource: &'a str) -> Vec<&'a str> {
    match tenant {
        Some(tenant) => vec!["v1", "tenants", tenant.as_str(), resource],
        None => vec!["v1", resource],
    }
}
