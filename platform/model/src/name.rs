//! Names of tenants and apps, numbers of deployments, and the host name that an app answers to.
//!
//! Both names are DNS labels, since they become parts of host names, and both become names of folders, which a DNS
//! label can never abuse.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::schema::{self, schema};

/// Longest name, in characters: that of a DNS label.
pub const MAX_NAME: usize = 63;

/// The rule of a name as a regular expression.
const PATTERN: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";

/// The tenant that is meant when none is named. It always exists.
pub const DEFAULT_TENANT: &str = "default";

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("the name is empty: give 1 to {MAX_NAME} of a-z, 0-9 and '-'")]
    Empty,
    /// The text is longer than a DNS label may be.
    #[error(
        "the name has {0} characters, at most {MAX_NAME} are possible: it becomes a part of a host name"
    )]
    TooLong(usize),
    /// A character that a name cannot have.
    #[error(
        "the name has the character {0:?}: only a-z, 0-9 and '-' are possible, as it becomes a part of a host name"
    )]
    Character(char),
    /// The text starts or ends with a hyphen.
    #[error("the name starts or ends with '-': start and end it with a letter or a digit")]
    Hyphen,
}

/// The rule of a DNS label in lower case.
fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    let length = text.chars().count();
    if length > MAX_NAME {
        return Err(NameError::TooLong(length));
    }
    let allowed = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-';
    if let Some(other) = text.chars().find(|c| !allowed(c)) {
        return Err(NameError::Character(other));
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err(NameError::Hyphen);
    }
    Ok(())
}

/// Declares a name: a checked text that is cheap to clone.
macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Arc<str>);

        impl $type {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        schema!($type, stringify!($type), schema::text($what, PATTERN, "shop"));
    };
}

name! {
    /// The name of a tenant: 1 to 63 of `a-z`, `0-9` and `-`, neither first nor last a hyphen.
    TenantName, "The name of a tenant."
}

name! {
    /// The name of an app within its tenant: 1 to 63 of `a-z`, `0-9` and `-`, neither first nor last a hyphen.
    AppName, "The name of an app within its tenant."
}

impl TenantName {
    /// Whether this is the tenant that is meant when none is named.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.as_str() == DEFAULT_TENANT
    }
}

impl Default for TenantName {
    fn default() -> Self {
        Self(DEFAULT_TENANT.into())
    }
}

impl AppName {
    /// The host name that the app answers to, without a port: `APP.localhost` in the default tenant,
    /// `APP.TENANT.localhost` in others.
    #[must_use]
    pub fn host(&self, tenant: &TenantName) -> String {
        if tenant.is_default() {
            format!("{self}.localhost")
        } else {
            format!("{self}.{tenant}.localhost")
        }
    }

    /// The host name that one deployment of the app alone answers to: `N--APP.localhost`.
    #[must_use]
    pub fn preview_host(&self, tenant: &TenantName, deployment: DeploymentId) -> String {
        format!("{deployment}--{}", self.host(tenant))
    }

    /// The URL that a client on this host uses, given the port that the node listens on.
    #[must_use]
    pub fn url(&self, tenant: &TenantName, port: u16) -> String {
        let host = self.host(tenant);
        if port == 80 {
            format!("http://{host}/")
        } else {
            format!("http://{host}:{port}/")
        }
    }
}

/// The number of a deployment within its app. The first is 1; a number is never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeploymentId(pub u64);

schema!(
    DeploymentId,
    "DeploymentId",
    schema::number("The number of a deployment within its app.")
);

impl fmt::Display for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for DeploymentId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_names() {
        for good in ["a", "0", "my-app", "a--b", "x".repeat(63).as_str()] {
            assert_eq!(good.parse::<AppName>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn anything_else_is_not() {
        assert_eq!("".parse::<AppName>(), Err(NameError::Empty));
        assert_eq!(
            "x".repeat(300).parse::<AppName>(),
            Err(NameError::TooLong(300))
        );
        assert_eq!("../etc".parse::<AppName>(), Err(NameError::Character('.')));
        assert_eq!("a/b".parse::<AppName>(), Err(NameError::Character('/')));
        assert_eq!("App".parse::<AppName>(), Err(NameError::Character('A')));
        assert_eq!("käse".parse::<AppName>(), Err(NameError::Character('ä')));
        assert_eq!("a\0".parse::<AppName>(), Err(NameError::Character('\0')));
        assert_eq!("-a".parse::<AppName>(), Err(NameError::Hyphen));
        assert_eq!("a-".parse::<TenantName>(), Err(NameError::Hyphen));
    }

    #[test]
    fn json_is_checked_too() {
        let error = serde_json::from_str::<AppName>("\"../x\"")
            .unwrap_err()
            .to_string();
        assert!(error.contains("'.'"), "{error}");
        assert_eq!(
            serde_json::to_string(&"a".parse::<AppName>().unwrap()).unwrap(),
            "\"a\""
        );
    }

    #[test]
    fn hosts_and_urls() {
        let app: AppName = "shop".parse().unwrap();
        let tenant: TenantName = "acme".parse().unwrap();
        assert_eq!(app.host(&TenantName::default()), "shop.localhost");
        assert_eq!(app.url(&tenant, 7380), "http://shop.acme.localhost:7380/");
        assert_eq!(app.url(&tenant, 80), "http://shop.acme.localhost/");
    }
}
