//! Configuration and secrets of an app: variables that each deployment of it gets, besides its own.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::schema::{self, schema};
use crate::{Deployment, Secret, secret};

/// Longest name of a secret, in characters.
const MAX_NAME: usize = 128;

/// Most secrets of an app.
pub const MAX_SECRETS: usize = 100;

/// The text is no name of a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not the name of a secret: 1 to {MAX_NAME} of A-Z, a-z, 0-9 and '_', the first of them no digit"
)]
pub struct SecretNameError(String);

/// The name of a secret, which is that of an environment variable: 1 to 128 of `A-Z`, `a-z`, `0-9` and `_`, the first no digit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretName(String);

impl SecretName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SecretName {
    type Err = SecretNameError;

    fn from_str(text: &str) -> Result<Self, SecretNameError> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let digit = text.starts_with(|c: char| c.is_ascii_digit());
        if (1..=MAX_NAME).contains(&text.len()) && !digit && text.bytes().all(fits) {
            Ok(Self(text.to_owned()))
        } else {
            Err(SecretNameError(text.chars().take(80).collect()))
        }
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for SecretName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SecretName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

schema!(
    SecretName,
    "SecretName",
    schema::text(
        "The name of a secret, which is that of an environment variable.",
        "^[A-Za-z_][A-Za-z0-9_]{0,127}$",
        "DATABASE_URL",
    )
);

/// The configuration of an app.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Config {
    /// Variables by name.
    pub values: BTreeMap<String, String>,
}

/// What is to be changed of an app's configuration: what is left out stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigChanges {
    /// Variables by name; `null` takes one out.
    pub values: BTreeMap<String, Option<String>>,
    /// Whether the app is deployed anew with them: the component and the limits that it has. True by default.
    #[serde(default = "yes")]
    pub deploy: bool,
}

/// What a change of configuration answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConfigChanged {
    /// The configuration as it is now.
    pub config: Config,
    /// The deployment that was made with it, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<Deployment>,
}

/// A secret of an app, without its value, which is never given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretInfo {
    /// Its name.
    pub name: SecretName,
    /// Its version: no two values of an app's secrets ever have the same.
    pub version: u64,
    /// When it got its value.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// The value that a secret is to have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretRequest {
    /// The value.
    #[serde(serialize_with = "secret::expose")]
    #[schema(max_length = 65536)]
    pub value: Secret,
    /// Whether the app is deployed anew with it: the component and the limits that it has. True by default.
    #[serde(default = "yes")]
    pub deploy: bool,
}

/// What a change of a secret answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretChanged {
    /// The secret as it is now; left out where it was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretInfo>,
    /// The deployment that was made, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<Deployment>,
}

/// What the rotation of the node's key answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyRotated {
    /// The public id of the new key.
    pub key: String,
    /// How many values were sealed anew.
    pub resealed: u64,
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["A", "_x", "DATABASE_URL", "a1", &"x".repeat(128)] {
            assert!(good.parse::<SecretName>().is_ok(), "{good}");
        }
        for bad in ["", "1A", "A-B", "A/B", "A B", "Ä", "A=", &"x".repeat(129)] {
            assert!(bad.parse::<SecretName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn changes_deploy_unless_told_otherwise() {
        let changes: ConfigChanges =
            serde_json::from_str(r#"{"values":{"A":"1","B":null}}"#).unwrap();
        assert!(changes.deploy);
        assert_eq!(changes.values["B"], None);
        let request: SecretRequest =
            serde_json::from_str(r#"{"value":"x","deploy":false}"#).unwrap();
        assert!(!request.deploy);
        assert!(!format!("{request:?}").contains('x'));
    }
}
