//! Deployments.

use std::collections::BTreeMap;

use platform_model::{
    AllowHost, AppName, DeploymentId, Digest, Growth, Isolation, Limits, Scale, SecretName,
    TenantName,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{Key, Prefix, Record};

/// A deployment as it is stored. It never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentRecord {
    /// The tenant that it belongs to.
    pub tenant: TenantName,
    /// The app that it is of.
    pub app: AppName,
    /// Its number.
    pub deployment: DeploymentId,
    /// Its component.
    pub digest: Digest,
    /// Its own environment variables.
    pub env: BTreeMap<String, String>,
    /// The configuration of the app when it was made: variables that it has besides its own.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// Versions of the app's secrets when it was made, by name.
    #[serde(default)]
    pub secrets: BTreeMap<SecretName, u64>,
    /// Hosts that it may call.
    pub allow_hosts: Vec<AllowHost>,
    /// Its limits.
    pub limits: Limits,
    /// How much its requests are kept apart.
    #[serde(default)]
    pub isolation: Isolation,
    /// How many VMs it has.
    #[serde(default)]
    pub scale: Scale,
    /// The path that it was asked for before it answered anybody, if it was.
    #[serde(default)]
    pub health: Option<String>,
    /// Interfaces that its component imports; none known of deployments of before they were looked at.
    #[serde(default)]
    pub imports: Option<Vec<String>>,
    /// What it was approved to have more than the deployment that answered when it was made.
    #[serde(default)]
    pub growth: Growth,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

impl DeploymentRecord {
    /// The key of a deployment. Twenty digits, so that keys are in the order of the numbers.
    #[must_use]
    pub fn at(tenant: &TenantName, app: &AppName, deployment: DeploymentId) -> Key<Self> {
        let number = format!("{deployment:020}");
        Key::of(&[tenant.as_str(), app.as_str(), &number])
    }

    /// The deployments of an app.
    #[must_use]
    pub fn of(tenant: &TenantName, app: &AppName) -> Prefix<Self> {
        Prefix::of(&[tenant.as_str(), app.as_str()])
    }
}

impl Record for DeploymentRecord {
    const KIND: &'static str = "deployment";

    fn key(&self) -> Key<Self> {
        Self::at(&self.tenant, &self.app, self.deployment)
    }
}
