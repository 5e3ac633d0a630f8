//! Which hosts and paths lead to an app: the operations on routes, domains and certificates.

use platform_model::{
    AppName, AppRoutes, CertificateRequest, Domain, DomainOptions, HostName, TenantName,
};
use reqwest::Method;
use reqwest::header::IF_MATCH;

use crate::client::{QUICK, of_app};
use crate::{Client, ClientError, Tagged};

impl Client {
    /// The routes of an app, besides the host that it has of itself, and the tag of their state.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn routes(
        &self,
        tenant: &TenantName,
        app: &AppName,
    ) -> Result<Tagged<AppRoutes>, ClientError> {
        let segments = of_app(tenant, app, "routes");
        let request = self.transport.request(Method::GET, &segments, Some(QUICK));
        self.transport.tagged(request).await
    }

    /// Sets the routes of an app, in place of all that it has; only in the state with this tag, where one is given.
    ///
    /// # Errors
    /// See [`ClientError`]; status 412 when they are in another state.
    pub async fn set_routes(
        &self,
        tenant: &TenantName,
        app: &AppName,
        routes: &AppRoutes,
        tag: Option<&str>,
    ) -> Result<AppRoutes, ClientError> {
        let segments = of_app(tenant, app, "routes");
        let mut request = self.transport.request(Method::PUT, &segments, Some(QUICK));
        if let Some(tag) = tag {
            request = request.header(IF_MATCH, tag);
        }
        self.transport.json(request.json(routes)).await
    }

    /// Whether an app can have these routes. It need not be there yet.
    ///
    /// # Errors
    /// See [`ClientError`]; statuses 409 and 422 say why it cannot.
    pub async fn check_routes(
        &self,
        tenant: &TenantName,
        app: &AppName,
        routes: &AppRoutes,
    ) -> Result<(), ClientError> {
        let segments = of_app(tenant, app, "routes");
        let request = self.transport.request(Method::PUT, &segments, Some(QUICK));
        let request = request.query(&[("check", true)]).json(routes);
        self.transport.json::<AppRoutes>(request).await.map(drop)
    }

    /// The domains of a tenant.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn domains(&self, tenant: &TenantName) -> Result<Vec<Domain>, ClientError> {
        self.list(&["v1", "tenants", tenant.as_str(), "domains"])
            .await
    }

    /// A domain of a tenant.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn domain(
        &self,
        tenant: &TenantName,
        domain: &HostName,
    ) -> Result<Domain, ClientError> {
        self.get(&of_domain(tenant, domain)).await
    }

    /// Adds a domain to a tenant, or sets what one is to be.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn set_domain(
        &self,
        tenant: &TenantName,
        domain: &HostName,
        options: &DomainOptions,
    ) -> Result<Domain, ClientError> {
        let segments = of_domain(tenant, domain);
        let request = self.transport.request(Method::PUT, &segments, Some(QUICK));
        self.transport.json(request.json(options)).await
    }

    /// Has the node look for the proof that a domain is the tenant's.
    ///
    /// # Errors
    /// See [`ClientError`]; status 422 when there is none.
    pub async fn verify_domain(
        &self,
        tenant: &TenantName,
        domain: &HostName,
    ) -> Result<Domain, ClientError> {
        let segments = [&of_domain(tenant, domain)[..], &["verify"]].concat();
        self.post(&segments).await
    }

    /// Deletes a domain with its certificate.
    ///
    /// # Errors
    /// See [`ClientError`]; status 409 when an app has a route on it.
    pub async fn delete_domain(
        &self,
        tenant: &TenantName,
        domain: &HostName,
    ) -> Result<(), ClientError> {
        self.delete(&of_domain(tenant, domain)).await
    }

    /// Serves a domain with a certificate, in place of the one that it has.
    ///
    /// # Errors
    /// See [`ClientError`]; status 422 when it cannot be served.
    pub async fn set_certificate(
        &self,
        tenant: &TenantName,
        domain: &HostName,
        certificate: &CertificateRequest,
    ) -> Result<Domain, ClientError> {
        let segments = [&of_domain(tenant, domain)[..], &["certificate"]].concat();
        let request = self.transport.request(Method::PUT, &segments, Some(QUICK));
        self.transport.json(request.json(certificate)).await
    }

    /// Takes the certificate of a domain away.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete_certificate(
        &self,
        tenant: &TenantName,
        domain: &HostName,
    ) -> Result<(), ClientError> {
        let segments = [&of_domain(tenant, domain)[..], &["certificate"]].concat();
        self.delete(&segments).await
    }

    /// Has the node obtain or renew the certificate of a domain now.
    ///
    /// # Errors
    /// See [`ClientError`]; status 409 when that is not the node's to do.
    pub async fn renew_certificate(
        &self,
        tenant: &TenantName,
        domain: &HostName,
    ) -> Result<Domain, ClientError> {
        let segments = [&of_domain(tenant, domain)[..], &["certificate", "renew"]].concat();
        self.post(&segments).await
    }

    async fn post(&self, segments: &[&str]) -> Result<Domain, ClientError> {
        let request = self.transport.request(Method::POST, segments, Some(QUICK));
        self.transport.json(request).await
    }
}

/// The path of a domain.
fn of_domain<'a>(tenant: &'a TenantName, domain: &'a HostName) -> Vec<&'a str> {
    vec!["v1", "tenants", tenant.as_str(), "domains", domain.as_str()]
}
