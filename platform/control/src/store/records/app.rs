//! Apps, and the numbers that were given to the deployments of apps that are gone.

use std::collections::BTreeSet;

use platform_model::api::DEFAULT_KEEP;
use platform_model::{AppName, DeploymentId, Policy, TenantName, Traffic};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{Key, Prefix, Record};

/// An app as it is stored: its pointer to the deployment that answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppRecord {
    /// The tenant that it belongs to.
    pub tenant: TenantName,
    /// Its name.
    pub app: AppName,
    /// The deployment that it stands on: the one with the largest share, and never a canary.
    pub active: DeploymentId,
    /// Who answers how much; none where `active` answers everything.
    #[serde(default)]
    pub traffic: Option<Traffic>,
    /// Deployments that answer under names of their own.
    #[serde(default)]
    pub previews: BTreeSet<DeploymentId>,
    /// What it may take at the router.
    #[serde(default)]
    pub policy: Policy,
    /// How many of its last deployments are kept, where it is said.
    #[serde(default)]
    pub keep: Option<u32>,
    /// The highest number that a deployment of it was given.
    pub last: DeploymentId,
    /// How many deployments it has.
    pub deployments: u64,
    /// When its first deployment was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

impl AppRecord {
    /// Who answers how much.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let traffic = self.traffic.clone();
        traffic.unwrap_or_else(|| Traffic::all_to(self.active))
    }

    /// How many of its last deployments are kept.
    #[must_use]
    pub fn keep(&self) -> u32 {
        self.keep.unwrap_or(DEFAULT_KEEP)
    }

    /// The deployments that answer anybody.
    #[must_use]
    pub fn answering(&self) -> BTreeSet<DeploymentId> {
        let traffic = self.traffic();
        let shares = traffic.shares.iter().map(|share| share.deployment);
        shares.chain(self.previews.iter().copied()).collect()
    }

    /// The key of an app.
    #[must_use]
    pub fn at(tenant: &TenantName, app: &AppName) -> Key<Self> {
        Key::of(&[tenant.as_str(), app.as_str()])
    }

    /// The apps of a tenant.
    #[must_use]
    pub fn of(tenant: &TenantName) -> Prefix<Self> {
        Prefix::of(&[tenant.as_str()])
    }
}

impl Record for AppRecord {
    const KIND: &'static str = "app";

    fn key(&self) -> Key<Self> {
        Self::at(&self.tenant, &self.app)
    }
}

/// The highest number that was given to a deployment of an app that was deleted: an app of its name goes on from there, so
/// that what still finishes its requests is never taken for what comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRecord {
    /// The tenant that the app belonged to.
    pub tenant: TenantName,
    /// Its name.
    pub app: AppName,
    /// The number.
    pub last: DeploymentId,
}

impl LastRecord {
    /// The key of an app's last number.
    #[must_use]
    pub fn at(tenant: &TenantName, app: &AppName) -> Key<Self> {
        Key::of(&[tenant.as_str(), app.as_str()])
    }
}

impl Record for LastRecord {
    const KIND: &'static str = "last";

    fn key(&self) -> Key<Self> {
        Self::at(&self.tenant, &self.app)
    }
}
