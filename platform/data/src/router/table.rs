//! The route table as requests see it: host names, path prefixes, deployments; immutable, made for looking up.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use http::HeaderValue;
use platform_model::{AppName, PathPrefix, Policy, Redirect, TenantName};

use super::split::{Share, Split};
use crate::pool::Pool;
use crate::target::TargetKey;
use crate::usage::{Account, Excess, Lease, Usage};
use crate::{Destination, HostRoutes, Hsts, RouteTable, routes};

/// Longest host name that is looked up.
const MAX_HOST: usize = 255;
/// Header fields that any head may have, so that a request to no app at all is told so.
const MIN_FIELDS: usize = 100;

/// Host names in lower case, and what they lead to.
#[derive(Default)]
pub(crate) struct Table {
    hosts: HashMap<String, Host>,
    /// Answers to challenges: by token, the host and the answer.
    challenges: HashMap<String, (String, String)>,
    /// Whether the control plane has said it. Before, nobody knows whether there is an app of a name.
    pub(crate) published: bool,
    /// Most header fields of a head: what the most generous deployment allows.
    pub(crate) max_fields: usize,
    /// Kept while the table names a policy for them.
    _tenants: Vec<Arc<Account>>,
}

/// A host.
pub(crate) struct Host {
    /// Longer prefixes first.
    routes: Box<[Route]>,
    /// Whether plain HTTP is sent to HTTPS.
    pub(crate) https_redirect: bool,
    /// What answers over TLS say.
    pub(crate) hsts: Option<HeaderValue>,
}

/// A path prefix, and what it leads to.
pub(crate) struct Route {
    pub(crate) prefix: PathPrefix,
    pub(crate) to: To,
}

/// What a route leads to.
pub(crate) enum To {
    /// An app.
    App(Backend),
    /// Somewhere else.
    Redirect(Redirect),
}

/// The deployments of an app, and what it and its tenant may take.
pub(crate) struct Backend {
    pub(crate) split: Split,
    /// Bytes of the path that the component does not see.
    pub(crate) strip: usize,
    app: Option<Arc<Policy>>,
    tenant: Option<Arc<Policy>>,
    /// Most bytes of a response's body.
    pub(crate) response_body: Option<u64>,
}

/// What a request takes of the limits on requests in flight, until it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    _app: Option<Lease>,
    _tenant: Option<Lease>,
}

impl Backend {
    /// Admits a request to a deployment, or says whose limit is in the way.
    pub(crate) fn admit(&self, usage: &Usage) -> Result<Leases, (Whose, Excess)> {
        let admit = |whose, policy: &Option<Arc<Policy>>, account: &Arc<Account>| match policy {
            Some(policy) => account.admit(policy).map_err(|excess| (whose, excess)),
            None => Ok(None),
        };
        Ok(Leases {
            _app: admit(Whose::App, &self.app, &usage.app)?,
            _tenant: admit(Whose::Tenant, &self.tenant, &usage.tenant)?,
        })
    }
}

/// Whose limit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The app's.
    App,
    /// That of all apps of its tenant.
    Tenant,
}

impl Host {
    /// What a path leads to.
    pub(crate) fn route(&self, path: &str) -> Option<&Route> {
        self.routes.iter().find(|route| route.prefix.covers(path))
    }
}

impl Table {
    /// What `host` leads to, in whatever case it is written.
    pub(crate) fn find(&self, host: &str) -> Option<&Host> {
        let host = host.strip_suffix('.').unwrap_or(host);
        if host.bytes().any(|byte| byte.is_ascii_uppercase()) && host.len() <= MAX_HOST {
            return self.hosts.get(&host.to_ascii_lowercase());
        }
        self.hosts.get(host)
    }

    /// Whether any challenge is to be answered.
    pub(crate) fn has_challenges(&self) -> bool {
        !self.challenges.is_empty()
    }

    /// The answer to a challenge.
    pub(crate) fn challenge(&self, host: &str, token: &str) -> Option<&str> {
        let (of, answer) = self.challenges.get(token)?;
        of.eq_ignore_ascii_case(host).then_some(answer)
    }

    /// Makes a table of what the control plane published; the targets that it needs are added to `kept`.
    pub(crate) fn compile(given: RouteTable, pool: &Pool, kept: &mut HashSet<TargetKey>) -> Self {
        let policies = Policies::of(&given);
        let accounts = given.tenants.keys();
        let _tenants = accounts.map(|name| pool.accounts().tenant(name)).collect();
        let mut compiler = Compiler {
            pool,
            policies,
            kept,
            max_fields: MIN_FIELDS,
        };
        let hosts = given.hosts.into_iter();
        let hosts = hosts
            .map(|(name, host)| (name, compiler.host(host)))
            .collect();
        Self {
            hosts,
            challenges: given.challenges,
            published: true,
            max_fields: compiler.max_fields,
            _tenants,
        }
    }
}

/// Policies that limit anything.
struct Policies {
    apps: HashMap<(TenantName, AppName), Arc<Policy>>,
    tenants: HashMap<TenantName, Arc<Policy>>,
}

impl Policies {
    fn of(given: &RouteTable) -> Self {
        fn limiting<K: Clone + std::hash::Hash + Eq>(
            policies: &HashMap<K, Policy>,
        ) -> HashMap<K, Arc<Policy>> {
            let limiting = policies
                .iter()
                .filter(|(_, policy)| **policy != Policy::default());
            limiting
                .map(|(key, policy)| (key.clone(), Arc::new(policy.clone())))
                .collect()
        }
        Self {
            apps: limiting(&given.apps),
            tenants: limiting(&given.tenants),
        }
    }
}

struct Compiler<'c> {
    pool: &'c Pool,
    policies: Policies,
    kept: &'c mut HashSet<TargetKey>,
    max_fields: usize,
}

impl Compiler<'_> {
    fn host(&mut self, given: HostRoutes) -> Host {
        let mut routes: Vec<_> = given
            .routes
            .into_iter()
            .map(|route| {
                let strip = if route.prefix.is_root() {
                    0
                } else {
                    route.prefix.as_str().len()
                };
                let to = match route.to {
                    Destination::App {
                        backend,
                        strip_prefix,
                    } => To::App(self.backend(&backend, if strip_prefix { strip } else { 0 })),
                    Destination::Redirect(redirect) => To::Redirect(redirect),
                };
                let prefix = route.prefix;
                Route { prefix, to }
            })
            .collect();
        routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.as_str().len()));
        Host {
            routes: routes.into(),
            https_redirect: given.https_redirect,
            hsts: given.hsts.as_ref().and_then(hsts),
        }
    }

    fn backend(&mut self, given: &routes::Backend, strip: usize) -> Backend {
        let first = given.shares.first().map(|(target, _)| target);
        let app = first.and_then(|target| {
            let key = (target.tenant.clone(), target.app.clone());
            self.policies.apps.get(&key).cloned()
        });
        let tenant = first.and_then(|target| self.policies.tenants.get(&target.tenant).cloned());
        let least = |limit: fn(&Policy) -> Option<u64>| {
            let policies = app.iter().chain(&tenant);
            policies.filter_map(|policy| limit(policy)).min()
        };
        let request_body = least(|policy| policy.request_body_bytes);
        let response_body = least(|policy| policy.response_body_bytes);
        let mut shares = Vec::with_capacity(given.shares.len());
        for (target, weight) in &given.shares {
            self.kept.insert(target.key());
            let limits = &target.limits;
            self.max_fields = self.max_fields.max(limits.header_count as usize);
            let own = limits.request_body_bytes;
            shares.push(Share {
                deployment: self.pool.deployment(target, true),
                weight: *weight,
                request_body: request_body.map_or(own, |limit| limit.min(own)),
            });
        }
        Backend {
            split: Split::new(shares, given.sticky.as_ref()),
            strip,
            app,
            tenant,
            response_body,
        }
    }
}

fn hsts(hsts: &Hsts) -> Option<HeaderValue> {
    let age = hsts.max_age.as_secs();
    let below = if hsts.include_subdomains {
        "; includeSubDomains"
    } else {
        ""
    };
    HeaderValue::try_from(format!("max-age={age}{below}")).ok()
}
