//! The routes of apps.

use platform_model::{AppName, AppRoute, TenantName};
use serde::{Deserialize, Serialize};

use super::{Key, Prefix, Record};

/// The routes of an app that has any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutesRecord {
    /// The tenant that the app belongs to.
    pub tenant: TenantName,
    /// The app.
    pub app: AppName,
    /// The routes, in the order of their hosts and paths.
    pub routes: Vec<AppRoute>,
}

impl RoutesRecord {
    /// The key of an app's routes.
    #[must_use]
    pub fn at(tenant: &TenantName, app: &AppName) -> Key<Self> {
        Key::of(&[tenant.as_str(), app.as_str()])
    }

    /// The routes of the apps of a tenant.
    #[must_use]
    pub fn of(tenant: &TenantName) -> Prefix<Self> {
        Prefix::of(&[tenant.as_str()])
    }
}

impl Record for RoutesRecord {
    const KIND: &'static str = "routes";

    fn key(&self) -> Key<Self> {
        Self::at(&self.tenant, &self.app)
    }
}
