//! The settings of apps: their configuration, and their secrets, whose values are sealed.

use std::collections::BTreeMap;

use platform_model::{AppName, SecretName, TenantName};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{Key, Prefix, Record};
use crate::sealing::Sealed;

/// What an app is set to. It may be there before the app's first deployment is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsRecord {
    /// The tenant that the app belongs to.
    pub tenant: TenantName,
    /// The app.
    pub app: AppName,
    /// Its configuration: variables by name.
    pub values: BTreeMap<String, String>,
    /// Its secrets, by name.
    pub secrets: BTreeMap<SecretName, SecretHead>,
    /// The highest version that a secret of the app was given. No version is used twice.
    pub last_version: u64,
}

/// What is known of a secret without opening it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretHead {
    /// The version of its value.
    pub version: u64,
    /// Length of the value, in bytes.
    pub bytes: u64,
    /// When it got its value.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

impl SettingsRecord {
    /// The settings of an app that has none.
    #[must_use]
    pub fn none(tenant: &TenantName, app: &AppName) -> Self {
        Self {
            tenant: tenant.clone(),
            app: app.clone(),
            values: BTreeMap::new(),
            secrets: BTreeMap::new(),
            last_version: 0,
        }
    }

    /// The key of an app's settings.
    #[must_use]
    pub fn at(tenant: &TenantName, app: &AppName) -> Key<Self> {
        Key::of(&[tenant.as_str(), app.as_str()])
    }

    /// The settings of the apps of a tenant.
    #[must_use]
    pub fn of(tenant: &TenantName) -> Prefix<Self> {
        Prefix::of(&[tenant.as_str()])
    }

    /// Versions of the secrets, by name.
    #[must_use]
    pub fn versions(&self) -> BTreeMap<SecretName, u64> {
        let heads = self.secrets.iter();
        heads
            .map(|(name, head)| (name.clone(), head.version))
            .collect()
    }
}

impl Record for SettingsRecord {
    const KIND: &'static str = "settings";

    fn key(&self) -> Key<Self> {
        Self::at(&self.tenant, &self.app)
    }
}

/// A value of a secret: the one that it has, or one that it had and that a deployment still has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRecord {
    /// The tenant that the app belongs to.
    pub tenant: TenantName,
    /// The app.
    pub app: AppName,
    /// The secret's name.
    pub name: SecretName,
    /// The value's version.
    pub version: u64,
    /// The value.
    pub sealed: Sealed,
}

impl SecretRecord {
    /// The key of a value.
    #[must_use]
    pub fn at(tenant: &TenantName, app: &AppName, name: &SecretName, version: u64) -> Key<Self> {
        let version = format!("{version:020}");
        Key::of(&[tenant.as_str(), app.as_str(), name.as_str(), &version])
    }

    /// The values of the secrets of an app.
    #[must_use]
    pub fn of(tenant: &TenantName, app: &AppName) -> Prefix<Self> {
        Prefix::of(&[tenant.as_str(), app.as_str()])
    }
}

impl Record for SecretRecord {
    const KIND: &'static str = "secret";

    fn key(&self) -> Key<Self> {
        Self::at(&self.tenant, &self.app, &self.name, self.version)
    }
}
