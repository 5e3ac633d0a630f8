//! The table that the control plane hands over: hosts, what their paths lead to, and what apps and tenants may take.
//!
//! Plain values, built by [`RouteTable`]'s methods and swapped whole; how requests look things up is the router's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use platform_model::{AppName, PathPrefix, Policy, Redirect, Sticky, TenantName};

use crate::Target;

/// The deployments that answer for an app, all of that app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Each with its weight; shares are weights divided by their sum. One with weight 0 gets nothing.
    pub shares: Vec<(Arc<Target>, u8)>,
    /// How a client stays with one of them.
    pub sticky: Option<Sticky>,
}

impl Backend {
    /// One deployment that answers everything.
    #[must_use]
    pub fn new(target: Arc<Target>) -> Self {
        Self {
            shares: vec![(target, 100)],
            sticky: None,
        }
    }
}

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// An app.
    App {
        /// Who answers.
        backend: Arc<Backend>,
        /// Whether the component sees the path without the route's prefix.
        strip_prefix: bool,
    },
    /// Somewhere else; the router answers itself.
    Redirect(Redirect),
}

/// A path prefix and what it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathRoute {
    /// The prefix. Of several that cover a path the longest counts.
    pub prefix: PathPrefix,
    /// What it leads to.
    pub to: Destination,
}

/// `Strict-Transport-Security`, RFC 6797: said in answers over TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hsts {
    /// How long clients remember it.
    pub max_age: Duration,
    /// Whether it holds for names below this host too.
    pub include_subdomains: bool,
}

/// A host: what its paths lead to, and what it does about plain HTTP.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostRoutes {
    /// In any order.
    pub routes: Vec<PathRoute>,
    /// Requests over plain HTTP are sent to HTTPS (308). Without a TLS listener nobody is sent anywhere.
    pub https_redirect: bool,
    /// Clients are told to come over TLS only.
    pub hsts: Option<Hsts>,
}

/// Hosts and what they lead to, policies, and answers to challenges. Swapped whole.
#[derive(Debug, Clone, Default)]
pub struct RouteTable {
    pub(crate) hosts: HashMap<String, HostRoutes>,
    pub(crate) apps: HashMap<(TenantName, AppName), Policy>,
    pub(crate) tenants: HashMap<TenantName, Policy>,
    pub(crate) challenges: HashMap<String, (String, String)>,
}

impl RouteTable {
    /// A table in which every host is unknown.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Leads every path of `host` (without a port, in any case) to `target`. The last one for a host counts.
    pub fn insert(&mut self, host: &str, target: Arc<Target>) {
        let to = Destination::App {
            backend: Arc::new(Backend::new(target)),
            strip_prefix: false,
        };
        let prefix = PathPrefix::root();
        self.insert_host(
            host,
            HostRoutes {
                routes: vec![PathRoute { prefix, to }],
                ..HostRoutes::default()
            },
        );
    }

    /// Sets what `host` (without a port, in any case) leads to. The last one for a host counts.
    pub fn insert_host(&mut self, host: &str, routes: HostRoutes) {
        self.hosts.insert(host.to_ascii_lowercase(), routes);
    }

    /// Sets what an app may take, over all its deployments and hosts.
    pub fn limit_app(&mut self, tenant: TenantName, app: AppName, policy: Policy) {
        self.apps.insert((tenant, app), policy);
    }

    /// Sets what all apps of a tenant may take together.
    pub fn limit_tenant(&mut self, tenant: TenantName, policy: Policy) {
        self.tenants.insert(tenant, policy);
    }

    /// What the apps of each tenant may take together.
    pub fn tenant_limits(&self) -> impl Iterator<Item = (&TenantName, &Policy)> {
        self.tenants.iter()
    }

    /// Answers a challenge of ACME's http-01 (RFC 8555 §8.3) for `host`: a request for `token` gets `answer`.
    pub fn insert_challenge(&mut self, host: &str, token: &str, answer: &str) {
        let challenge = (host.to_ascii_lowercase(), answer.to_owned());
        self.challenges.insert(token.to_owned(), challenge);
    }

    /// Every host in lower case with what it leads to.
    pub fn hosts(&self) -> impl Iterator<Item = (&str, &HostRoutes)> {
        let hosts = self.hosts.iter();
        hosts.map(|(host, routes)| (host.as_str(), routes))
    }

    /// Every host in lower case with each target that it leads to.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<Target>)> {
        self.hosts().flat_map(|(host, routes)| {
            let backends = routes.routes.iter().filter_map(|route| match &route.to {
                Destination::App { backend, .. } => Some(backend),
                Destination::Redirect(_) => None,
            });
            backends.flat_map(move |backend| {
                let shares = backend.shares.iter();
                shares.map(move |(target, _)| (host, target))
            })
        })
    }
}

impl FromIterator<(String, Arc<Target>)> for RouteTable {
    fn from_iter<I: IntoIterator<Item = (String, Arc<Target>)>>(routes: I) -> Self {
        let mut table = Self::new();
        for (host, target) in routes {
            table.insert(&host, target);
        }
        table
    }
}
