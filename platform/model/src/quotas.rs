//! What a tenant may have in all: numbers and bytes.
//!
//! A quota is of a tenant and can be changed while its apps run; a limit ([`Limits`](crate::Limits)) is of one deployment
//! and never changes. The control plane enforces quotas when something is made or started. What may be taken of the
//! processor and in requests is a [`Policy`](crate::Policy), which the router enforces.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Why quotas are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("quota {name} is {value}: it may be from {min} to {max}")]
pub struct QuotaRangeError {
    /// The quota's name, as in JSON.
    pub name: &'static str,
    /// What was asked for.
    pub value: u64,
    /// The least that is possible.
    pub min: u64,
    /// The most that is possible.
    pub max: u64,
}

/// The quotas of a tenant. A field that JSON leaves out has its default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Quotas {
    /// Apps. Default 100; up to 10,000.
    #[schema(minimum = 0, maximum = 10_000)]
    pub apps: u32,
    /// Deployments of all its apps together. Default 2,000; up to 100,000.
    #[schema(minimum = 0, maximum = 100_000)]
    pub deployments: u32,
    /// Tokens of the tenant and of its apps. Default 100; up to 10,000.
    #[schema(minimum = 0, maximum = 10_000)]
    pub tokens: u32,
    /// Disk for components and for what is compiled of them, in bytes. Default 10 GiB; 1 MiB to 16 TiB.
    #[schema(minimum = 1_048_576, maximum = 17_592_186_044_416_i64)]
    pub disk_bytes: u64,
    /// Memory that the VMs of all its apps may have together, in bytes. Default 16 GiB; 32 MiB to 16 TiB.
    #[schema(minimum = 33_554_432, maximum = 17_592_186_044_416_i64)]
    pub memory_bytes: u64,
}

/// What is to be changed of a tenant's quotas: what is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QuotaChanges {
    /// See [`Quotas::apps`].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 10_000)]
    pub apps: Option<u32>,
    /// See [`Quotas::deployments`].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 100_000)]
    pub deployments: Option<u32>,
    /// See [`Quotas::tokens`].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 10_000)]
    pub tokens: Option<u32>,
    /// See [`Quotas::disk_bytes`].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1_048_576, maximum = 17_592_186_044_416_i64)]
    pub disk_bytes: Option<u64>,
    /// See [`Quotas::memory_bytes`].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 33_554_432, maximum = 17_592_186_044_416_i64)]
    pub memory_bytes: Option<u64>,
}

impl QuotaChanges {
    /// The quotas with these changes.
    #[must_use]
    pub fn apply(&self, quotas: &Quotas) -> Quotas {
        Quotas {
            apps: self.apps.unwrap_or(quotas.apps),
            deployments: self.deployments.unwrap_or(quotas.deployments),
            tokens: self.tokens.unwrap_or(quotas.tokens),
            disk_bytes: self.disk_bytes.unwrap_or(quotas.disk_bytes),
            memory_bytes: self.memory_bytes.unwrap_or(quotas.memory_bytes),
        }
    }
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            apps: 100,
            deployments: 2_000,
            tokens: 100,
            disk_bytes: 10 * GIB,
            memory_bytes: 16 * GIB,
        }
    }
}

impl Quotas {
    /// Checks each quota against what is possible.
    ///
    /// # Errors
    /// The first quota that is not.
    pub fn check(&self) -> Result<(), QuotaRangeError> {
        let table = [
            ("apps", self.apps.into(), 0, 10_000),
            ("deployments", self.deployments.into(), 0, 100_000),
            ("tokens", self.tokens.into(), 0, 10_000),
            ("disk_bytes", self.disk_bytes, MIB, 16_384 * GIB),
            ("memory_bytes", self.memory_bytes, 32 * MIB, 16_384 * GIB),
        ];
        for (name, value, min, max) in table {
            if !(min..=max).contains(&value) {
                return Err(QuotaRangeError {
                    name,
                    value,
                    min,
                    max,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_possible() {
        assert_eq!(Quotas::default().check(), Ok(()));
    }

    #[test]
    fn the_schemas_have_the_ranges_that_are_checked() {
        let schema = serde_json::to_value(<Quotas as utoipa::PartialSchema>::schema()).unwrap();
        let changes =
            serde_json::to_value(<QuotaChanges as utoipa::PartialSchema>::schema()).unwrap();
        let defaults = serde_json::to_value(Quotas::default()).unwrap();
        for name in defaults.as_object().unwrap().keys() {
            let range = &schema["properties"][name];
            let (min, max) = (
                range["minimum"].as_u64().unwrap(),
                range["maximum"].as_u64().unwrap(),
            );
            assert_eq!(changes["properties"][name]["maximum"], max, "{name}");
            assert_eq!(changes["properties"][name]["minimum"], min, "{name}");
            let fits = |value: u64| {
                let mut quotas = defaults.clone();
                quotas[name] = value.into();
                serde_json::from_value::<Quotas>(quotas)
                    .unwrap()
                    .check()
                    .is_ok()
            };
            assert!(fits(min) && fits(max) && !fits(max + 1), "{name}");
            assert!(min == 0 || !fits(min - 1), "{name}");
        }
    }

    #[test]
    fn changes() {
        let changes: QuotaChanges = serde_json::from_str(r#"{"apps": 3}"#).unwrap();
        let changed = changes.apply(&Quotas::default());
        let apps = 3;
        assert_eq!(
            changed,
            Quotas {
                apps,
                ..Quotas::default()
            }
        );
        assert!(serde_json::from_str::<QuotaChanges>(r#"{"app": 3}"#).is_err());
    }

    #[test]
    fn out_of_range() {
        let quotas = Quotas {
            disk_bytes: 0,
            ..Quotas::default()
        };
        let error = quotas.check().unwrap_err().to_string();
        assert_eq!(
            error,
            "quota disk_bytes is 0: it may be from 1048576 to 17592186044416"
        );
    }
}
