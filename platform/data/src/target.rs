//! What the control plane asks the data plane to serve: a deployment, as a plain value.
//!
//! Nothing here starts, stops or counts anything. What leads to a target is in `routes`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use platform_model::{
    AllowHost, AppName, DeploymentId, Digest, Isolation, Limits, Scale, Secret, TenantName,
};

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
    /// How much its requests are kept apart.
    pub isolation: Isolation,
    /// How many VMs it has.
    pub scale: Scale,
}

/// What names a target.
pub(crate) type TargetKey = (TenantName, AppName, DeploymentId);

impl Target {
    pub(crate) fn key(&self) -> TargetKey {
        (self.tenant.clone(), self.app.clone(), self.deployment)
    }
}
