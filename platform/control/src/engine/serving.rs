//! What is served: of each app the deployments that answer, as they were committed last; and the table made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use platform_data::{
    Backend, Certificate, CertificateTable, Destination, HostRoutes, Hsts, PathRoute, RouteTable,
    Target,
};
use platform_model::{
    AppRoute, DeploymentId, DomainOptions, HostName, PathPrefix, Policy, Secret, SecretName,
    TenantName, Traffic,
};

use super::{AppKey, DeployError, Engine, lock};
use crate::store::records::{AppRecord, DeploymentRecord};

/// Name of the artifact of an app that has none; no file has it.
const MISSING: &str = "missing";

/// Everything that is served.
#[derive(Debug, Default)]
pub(super) struct Serving {
    apps: BTreeMap<AppKey, ServedApp>,
    /// What the apps of a tenant may take together.
    tenants: BTreeMap<TenantName, Policy>,
    /// The routes of apps that have any.
    routes: BTreeMap<AppKey, Vec<AppRoute>>,
    /// The domains that are proved.
    domains: BTreeMap<HostName, ServedDomain>,
    /// Answers to challenges of a certificate authority: by host, the token and the answer.
    challenges: BTreeMap<HostName, (String, String)>,
}

/// A domain that is served.
#[derive(Debug)]
pub(super) struct ServedDomain {
    pub(super) tenant: TenantName,
    pub(super) options: DomainOptions,
    pub(super) certificate: Option<Arc<Certificate>>,
}

/// An app that is served.
#[derive(Debug)]
struct ServedApp {
    traffic: Traffic,
    previews: BTreeSet<DeploymentId>,
    policy: Policy,
    /// The deployments that answer, by number.
    targets: BTreeMap<DeploymentId, Arc<Target>>,
}

impl ServedApp {
    /// Who answers for the app.
    fn backend(&self) -> Arc<Backend> {
        let shares = self.traffic.shares.iter();
        let shares = shares.filter_map(|share| {
            let target = self.targets.get(&share.deployment)?;
            Some((Arc::clone(target), share.weight))
        });
        Arc::new(Backend {
            shares: shares.collect(),
            sticky: self.traffic.sticky.clone(),
        })
    }
}

impl Serving {
    /// The files of the deployments that answer.
    pub(super) fn artifacts(&self) -> impl Iterator<Item = PathBuf> + '_ {
        let apps = self.apps.values();
        apps.flat_map(|app| app.targets.values().map(|target| target.artifact.clone()))
    }

    /// The table of it all.
    fn table(&self) -> RouteTable {
        let mut table = RouteTable::new();
        for ((tenant, app), served) in &self.apps {
            for number in &served.previews {
                if let Some(target) = served.targets.get(number) {
                    table.insert(&app.preview_host(tenant, *number), Arc::clone(target));
                }
            }
        }
        // After the previews: an app whose name looks like that of a preview comes first.
        for (host, routes) in self.hosts() {
            table.insert_host(&host, routes);
        }
        for ((tenant, app), served) in &self.apps {
            table.limit_app(tenant.clone(), app.clone(), served.policy.clone());
        }
        for (host, (token, answer)) in &self.challenges {
            table.insert_challenge(host.as_str(), token, answer);
        }
        for (tenant, policy) in &self.tenants {
            table.limit_tenant(tenant.clone(), policy.clone());
        }
        table
    }
}

impl Serving {
    /// What the hosts of apps and the domains lead to.
    fn hosts(&self) -> BTreeMap<String, HostRoutes> {
        let mut hosts = BTreeMap::<String, HostRoutes>::new();
        for (domain, served) in &self.domains {
            hosts.insert(domain.to_string(), served.host());
        }
        for (key, served) in &self.apps {
            let backend = served.backend();
            let routes = self.routes.get(key).map_or(&[][..], Vec::as_slice);
            let own = key.1.host(&key.0);
            let is_root = |route: &AppRoute| route.path.is_root() && route.host.as_str() == own;
            let host = hosts.entry(own.clone()).or_default();
            // The app answers on its own host, unless it says otherwise.
            if !routes.iter().any(is_root) {
                let to = Destination::App {
                    backend: Arc::clone(&backend),
                    strip_prefix: false,
                };
                let prefix = PathPrefix::root();
                host.routes.push(PathRoute { prefix, to });
            }
            for route in routes {
                let domain = self.domains.get(&route.host);
                let proved = domain.is_some_and(|domain| domain.tenant == key.0);
                if proved || route.host.as_str() == own {
                    let host = hosts.entry(route.host.to_string()).or_default();
                    host.routes.push(path_route(route, &backend));
                }
            }
        }
        hosts
    }

    /// The certificates of the domains.
    fn certificates(&self) -> CertificateTable {
        let mut table = CertificateTable::new();
        for (domain, served) in &self.domains {
            if let Some(certificate) = &served.certificate {
                table.insert(domain.as_str(), Arc::clone(certificate));
            }
        }
        table
    }
}

impl ServedDomain {
    /// The host, without routes. Clients are sent to HTTPS, and told to stay there, only where there is a certificate.
    fn host(&self) -> HostRoutes {
        let secure = self.certificate.is_some();
        let hsts = self.options.hsts.as_ref().filter(|_| secure);
        HostRoutes {
            routes: Vec::new(),
            https_redirect: secure && self.options.https_redirect,
            hsts: hsts.map(|hsts| Hsts {
                max_age: Duration::from_secs(hsts.max_age_seconds),
                include_subdomains: hsts.include_subdomains,
            }),
        }
    }
}

fn path_route(route: &AppRoute, backend: &Arc<Backend>) -> PathRoute {
    let to = match &route.redirect {
        Some(redirect) => Destination::Redirect(redirect.clone()),
        None => Destination::App {
            backend: Arc::clone(backend),
            strip_prefix: route.strip_prefix,
        },
    };
    let prefix = route.path.clone();
    PathRoute { prefix, to }
}

impl Engine {
    /// Changes what is served, and has the data plane serve it.
    fn serve(&self, change: impl FnOnce(&mut Serving)) {
        // Held while publishing: tables reach the data plane in the order in which they were made.
        let mut serving = lock(&self.serving);
        change(&mut serving);
        self.sandboxes.publish(serving.table());
    }

    /// Serves an app as it was committed, with the targets that are new. The caller has the turn of the app.
    pub(super) fn serve_app(&self, app: &AppRecord, new: impl IntoIterator<Item = Arc<Target>>) {
        self.serve(|serving| serving.set_app(app, new));
    }

    /// Serves an app no more.
    pub(super) fn serve_no_more(&self, key: &AppKey) {
        self.serve(|serving| {
            serving.apps.remove(key);
            serving.routes.remove(key);
        });
    }

    /// Serves an app by these routes, besides its own host. The caller has the turn of the app.
    pub(super) fn serve_routes(&self, key: &AppKey, routes: Vec<AppRoute>) {
        self.serve(|serving| serving.set_routes(key, routes));
    }

    /// Serves a domain that is proved, or no more. The caller has the turn of the domains.
    pub(super) fn serve_domain(&self, domain: &HostName, served: Option<ServedDomain>) {
        self.serve(|serving| {
            match served {
                Some(served) => serving.domains.insert(domain.clone(), served),
                None => serving.domains.remove(domain),
            };
            self.sandboxes.publish_certificates(serving.certificates());
        });
    }

    /// Answers a challenge for a domain, or no more.
    pub(super) fn serve_challenge(&self, domain: &HostName, challenge: Option<(String, String)>) {
        self.serve(|serving| {
            match challenge {
                Some(challenge) => serving.challenges.insert(domain.clone(), challenge),
                None => serving.challenges.remove(domain),
            };
        });
    }

    /// Holds the apps of a tenant to a policy. The caller has [`Engine::tenants`].
    pub(super) fn serve_tenant(&self, tenant: &TenantName, policy: Policy) {
        self.serve(|serving| {
            serving.tenants.insert(tenant.clone(), policy);
        });
    }

    /// Forgets the policy of a tenant: one that gets its name later begins without. The caller has [`Engine::tenants`].
    pub(super) fn serve_tenant_no_more(&self, tenant: &TenantName) {
        self.serve(|serving| {
            serving.tenants.remove(tenant);
        });
    }

    /// Serves everything that was set since.
    pub(super) fn serve_all(&self) {
        self.serve(|serving| self.sandboxes.publish_certificates(serving.certificates()));
    }

    /// Sets routes that the store knows, when the node starts.
    pub(super) fn set_routes_at_start(&self, key: &AppKey, routes: Vec<AppRoute>) {
        lock(&self.serving).set_routes(key, routes);
    }

    /// Sets a domain that is proved, when the node starts.
    pub(super) fn set_domain_at_start(&self, domain: HostName, served: ServedDomain) {
        lock(&self.serving).domains.insert(domain, served);
    }

    /// The targets of an app that are served, and the deployments that have none yet.
    pub(super) fn targets_of(
        &self,
        key: &AppKey,
        numbers: &BTreeSet<DeploymentId>,
    ) -> (Vec<Arc<Target>>, Vec<DeploymentId>) {
        let serving = lock(&self.serving);
        let served = serving.apps.get(key);
        let (mut there, mut missing) = (Vec::new(), Vec::new());
        for number in numbers {
            match served.and_then(|served| served.targets.get(number)) {
                Some(target) => there.push(Arc::clone(target)),
                None => missing.push(*number),
            }
        }
        (there, missing)
    }

    /// The target of one deployment that is served.
    pub(super) fn served_target(&self, key: &AppKey, number: DeploymentId) -> Option<Arc<Target>> {
        let (mut there, _) = self.targets_of(key, &BTreeSet::from([number]));
        there.pop()
    }

    /// The target of a deployment; compiles it where its artifact is not there.
    ///
    /// # Errors
    /// When its secrets do not open, or its artifact cannot be made.
    pub(super) async fn target_of(
        &self,
        record: DeploymentRecord,
    ) -> Result<Arc<Target>, DeployError> {
        let versions = record.secrets.clone();
        let secrets = self
            .open_secrets(&record.tenant, &record.app, versions)
            .await?;
        let compiled = self.compile(&record.digest).await?;
        Ok(Arc::new(target(record, secrets, compiled.artifact)))
    }

    /// Sets an app that the store knows, when the node starts. A deployment whose artifact cannot be made is a target all
    /// the same, without a file: the router then says that it is not ready, not that there is no such app.
    pub(super) async fn set_at_start(&self, app: AppRecord) -> Result<(), DeployError> {
        let mut targets = Vec::new();
        for number in app.answering() {
            let key = DeploymentRecord::at(&app.tenant, &app.app, number);
            let stored = self.ask(move |records| records.get(&key)).await?;
            let record = stored.ok_or(DeployError::RecordMissing(number))?.record;
            let target = self.target_of(record.clone()).await;
            targets.push(target.unwrap_or_else(|error| {
                tracing::error!(tenant = %app.tenant, app = %app.app, deployment = %number, %error, "deployment cannot be served");
                Arc::new(target_without(record, self.artifacts.join(MISSING)))
            }));
        }
        lock(&self.serving).set_app(&app, targets);
        Ok(())
    }

    /// Sets the policy of a tenant that the store knows, when the node starts.
    pub(super) fn set_tenant_at_start(&self, tenant: TenantName, policy: Policy) {
        lock(&self.serving).tenants.insert(tenant, policy);
    }
}

impl Serving {
    fn set_routes(&mut self, key: &AppKey, routes: Vec<AppRoute>) {
        if routes.is_empty() {
            self.routes.remove(key);
        } else {
            self.routes.insert(key.clone(), routes);
        }
    }

    fn set_app(&mut self, app: &AppRecord, new: impl IntoIterator<Item = Arc<Target>>) {
        let key = (app.tenant.clone(), app.app.clone());
        let before = self.apps.remove(&key);
        let mut targets = before.map(|served| served.targets).unwrap_or_default();
        targets.extend(new.into_iter().map(|target| (target.deployment, target)));
        let answering = app.answering();
        targets.retain(|number, _| answering.contains(number));
        let served = ServedApp {
            traffic: app.traffic(),
            previews: app.previews.clone(),
            policy: app.policy.clone(),
            targets,
        };
        self.apps.insert(key, served);
    }
}

/// What the data plane is told about a deployment: its own variables come before those of the configuration.
pub(super) fn target(
    record: DeploymentRecord,
    secrets: BTreeMap<SecretName, Secret>,
    artifact: PathBuf,
) -> Target {
    let mut target = target_without(record, artifact);
    let secrets = secrets.into_iter();
    target
        .env
        .extend(secrets.map(|(name, value)| (name.to_string(), value)));
    target
}

/// The same without its secrets.
fn target_without(record: DeploymentRecord, artifact: PathBuf) -> Target {
    let plain = record.config.into_iter().chain(record.env);
    Target {
        tenant: record.tenant,
        app: record.app,
        deployment: record.deployment,
        artifact,
        digest: record.digest,
        env: plain
            .map(|(name, value)| (name, Secret::new(value)))
            .collect(),
        allow_hosts: record.allow_hosts,
        limits: record.limits,
        isolation: record.isolation,
        scale: record.scale,
    }
}
