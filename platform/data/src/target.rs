//! What the control plane asks the data plane to serve: targets, and the table of host names that lead to them.
//!
//! Both are plain values. Nothing here starts, stops or counts anything.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use platform_model::{AllowHost, AppName, DeploymentId, Digest, Limits, Secret, TenantName};

/// One deployment as the data plane serves it. Immutable: a change is another deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The tenant that it belongs to: its VM lives in this tenant's worker process.
    pub tenant: TenantName,
    /// The app that it belongs to.
    pub app: AppName,
    /// Its number within the app. `(tenant, app, deployment)` names a target: two that share it are the same.
    pub deployment: DeploymentId,
    /// The compiled component, a file that a guest of this build can load.
    pub artifact: PathBuf,
    /// The component that the artifact was made of; only reported.
    pub digest: Digest,
    /// The component's environment. Any of the values may be a secret, so none is shown.
    pub env: BTreeMap<String, Secret>,
    /// The hosts that it may call.
    pub allow_hosts: Vec<AllowHost>,
    /// What its requests and its VM may use.
    pub limits: Limits,
}

/// What names a target.
pub(crate) type TargetKey = (TenantName, AppName, DeploymentId);

impl Target {
    pub(crate) fn key(&self) -> TargetKey {
        (self.tenant.clone(), self.app.clone(), self.deployment)
    }
}

/// Host names and the targets that they lead to. Swapped whole.
#[derive(Debug, Clone, Default)]
pub struct RouteTable {
    routes: HashMap<String, Arc<Target>>,
}

impl RouteTable {
    /// A table in which every host is unknown.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Leads `host` (without a port, in any case) to `target`. The last one for a host counts.
    pub fn insert(&mut self, host: &str, target: Arc<Target>) {
        self.routes.insert(host.to_ascii_lowercase(), target);
    }

    /// Every host in lower case with its target.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<Target>)> {
        self.routes
            .iter()
            .map(|(host, target)| (host.as_str(), target))
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
