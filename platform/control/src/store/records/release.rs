//! Who answered when and why, and the canary that is under way.
//!
//! Keys of the history count down, so that a scan has the latest first.

use platform_model::{AppName, CanaryPlan, DeploymentId, Release, TenantName, Traffic};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{AuditId, Key, Prefix, Record};

/// A line of an app's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRecord {
    /// The tenant that the app belongs to.
    pub tenant: TenantName,
    /// The app.
    pub app: AppName,
    /// Its place.
    pub id: AuditId,
    /// The line.
    pub release: Release,
}

impl HistoryRecord {
    /// The history of an app.
    #[must_use]
    pub fn of(tenant: &TenantName, app: &AppName) -> Prefix<Self> {
        Prefix::of(&[tenant.as_str(), app.as_str()])
    }
}

impl Record for HistoryRecord {
    const KIND: &'static str = "history";

    fn key(&self) -> Key<Self> {
        let (tenant, app) = (self.tenant.as_str(), self.app.as_str());
        Key::of(&[tenant, app, &self.id.cursor()])
    }
}

/// The canary of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryRecord {
    /// The tenant that the app belongs to.
    pub tenant: TenantName,
    /// The app.
    pub app: AppName,
    /// The deployment.
    pub deployment: DeploymentId,
    /// Who answers once it is given up.
    pub base: Traffic,
    /// How it goes on.
    pub plan: CanaryPlan,
    /// The step that it is in, from 0.
    pub step: usize,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// When the step began.
    #[serde(with = "time::serde::rfc3339")]
    pub step_started_at: OffsetDateTime,
}

impl CanaryRecord {
    /// The key of an app's canary.
    #[must_use]
    pub fn at(tenant: &TenantName, app: &AppName) -> Key<Self> {
        Key::of(&[tenant.as_str(), app.as_str()])
    }

    /// Its part in the step that it is in, in percent.
    #[must_use]
    pub fn weight(&self) -> u8 {
        let step = self.plan.steps.get(self.step).or(self.plan.steps.last());
        step.copied().unwrap_or(100)
    }

    /// Who answers in the step that it is in: the canary its part, the deployment that the app stands on the rest.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let weight = self.weight();
        let sticky = self.plan.sticky.clone().or(self.base.sticky.clone());
        let rest = self.base.main().filter(|_| weight < 100);
        let rest = rest.map(|deployment| platform_model::Share {
            deployment,
            weight: 100 - weight,
        });
        let canary = platform_model::Share {
            deployment: self.deployment,
            weight,
        };
        Traffic {
            shares: rest.into_iter().chain([canary]).collect(),
            sticky,
        }
    }
}

impl Record for CanaryRecord {
    const KIND: &'static str = "canary";

    fn key(&self) -> Key<Self> {
        Self::at(&self.tenant, &self.app)
    }
}
