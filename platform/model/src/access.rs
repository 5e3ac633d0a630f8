//! Who may do what: roles, and what they are over.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{AppName, TenantName};

/// What the holder of a token may do within its [`Scope`]. Each role may do all that the one before it may.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// See apps, deployments, configuration, names of secrets, logs.
    Read,
    /// Deploy, switch traffic, change configuration, secrets and routes.
    Deploy,
    /// Delete apps, give tokens, read the audit log.
    Admin,
}

impl Role {
    /// Every role, from the least to the most.
    pub const ALL: [Self; 3] = [Self::Read, Self::Deploy, Self::Admin];

    /// The role as it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Deploy => "deploy",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text is no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a role: there are read, deploy and admin")]
pub struct RoleError(String);

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| RoleError(text.chars().take(80).collect()))
    }
}

/// What a role is over.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Scope {
    /// The whole node with all its tenants.
    Node,
    /// One tenant with its apps.
    Tenant {
        /// The tenant.
        tenant: TenantName,
    },
    /// One app. It need not be there yet.
    App {
        /// The tenant that it belongs to.
        tenant: TenantName,
        /// Its name.
        app: AppName,
    },
}

impl Scope {
    /// The tenant that it is of, where it is not the node.
    #[must_use]
    pub fn tenant(&self) -> Option<&TenantName> {
        match self {
            Self::Node => None,
            Self::Tenant { tenant } | Self::App { tenant, .. } => Some(tenant),
        }
    }

    /// Whether it covers a tenant as a whole.
    #[must_use]
    pub fn covers_tenant(&self, other: &TenantName) -> bool {
        match self {
            Self::Node => true,
            Self::Tenant { tenant } => tenant == other,
            Self::App { .. } => false,
        }
    }

    /// Whether it covers an app.
    #[must_use]
    pub fn covers_app(&self, of: &TenantName, other: &AppName) -> bool {
        match self {
            Self::Node => true,
            Self::Tenant { tenant } => tenant == of,
            Self::App { tenant, app } => tenant == of && app == other,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.pad("node"),
            Self::Tenant { tenant } => f.pad(tenant.as_str()),
            Self::App { tenant, app } => f.pad(&format!("{tenant}/{app}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_and_their_order() {
        assert!(Role::Read < Role::Deploy && Role::Deploy < Role::Admin);
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert!("root".parse::<Role>().is_err());
    }

    #[test]
    fn what_a_scope_covers() {
        let (acme, other): (TenantName, TenantName) =
            ("acme".parse().unwrap(), "other".parse().unwrap());
        let (shop, blog): (AppName, AppName) = ("shop".parse().unwrap(), "blog".parse().unwrap());
        let node = Scope::Node;
        let tenant = Scope::Tenant {
            tenant: acme.clone(),
        };
        let app = Scope::App {
            tenant: acme.clone(),
            app: shop.clone(),
        };
        assert!(node.covers_tenant(&other) && node.covers_app(&other, &blog));
        assert!(tenant.covers_tenant(&acme) && tenant.covers_app(&acme, &blog));
        assert!(!tenant.covers_tenant(&other) && !tenant.covers_app(&other, &shop));
        assert!(app.covers_app(&acme, &shop));
        assert!(!app.covers_tenant(&acme) && !app.covers_app(&acme, &blog));
        assert!(!app.covers_app(&other, &shop));
    }

    #[test]
    fn json_of_scopes() {
        let tenant = Scope::Tenant {
            tenant: "acme".parse().unwrap(),
        };
        let json = serde_json::to_value(&tenant).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"kind": "tenant", "tenant": "acme"})
        );
        assert_eq!(serde_json::from_value::<Scope>(json).unwrap(), tenant);
        assert_eq!(tenant.to_string(), "acme");
    }
}
