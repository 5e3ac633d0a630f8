//! What a tenant may have and use in all: bytes, numbers and rates.
//!
//! A quota is of a tenant and can be changed while its apps run; a limit ([`Limits`](crate::Limits)) is of one deployment
//! and never changes. Who enforces what: `apps`, `deployments`, `tokens` and `disk_bytes` the control plane, when
//! something is made; the others the data plane, while requests run.

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

/// The quotas of a tenant. A field that JSON leaves out has its default. Where 0 means no limit, it says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Quotas {
    /// Apps. Default 100; up to 10,000.
    pub apps: u32,
    /// Deployments of all its apps together. Default 2,000; up to 100,000.
    pub deployments: u32,
    /// Tokens of the tenant and of its apps. Default 100; up to 10,000.
    pub tokens: u32,
    /// Disk for components and for what is compiled of them, in bytes. Default 10 GiB; 1 MiB to 16 TiB.
    pub disk_bytes: u64,
    /// Memory that all its VMs may have together, in bytes. Default 16 GiB; 32 MiB to 16 TiB.
    pub memory_bytes: u64,
    /// Requests of all its apps that run at the same time. Default 1,024; 1 to 65,536.
    pub concurrency: u32,
    /// Requests of all its apps in a second. Default 0, which means no limit; up to 10,000,000.
    pub requests_per_second: u32,
    /// CPU time of all its requests in a minute, in milliseconds. Default 0, which means no limit; up to 60,000,000.
    pub cpu_ms_per_minute: u64,
    /// What all its apps may write to their logs in a second, in bytes. Default 4 MiB; 1 KiB to 1 GiB.
    pub log_bytes_per_second: u64,
}

/// What is to be changed of a tenant's quotas: what is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QuotaChanges {
    /// See [`Quotas::apps`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apps: Option<u32>,
    /// See [`Quotas::deployments`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployments: Option<u32>,
    /// See [`Quotas::tokens`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u32>,
    /// See [`Quotas::disk_bytes`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// See [`Quotas::memory_bytes`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// See [`Quotas::concurrency`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// See [`Quotas::requests_per_second`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<u32>,
    /// See [`Quotas::cpu_ms_per_minute`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ms_per_minute: Option<u64>,
    /// See [`Quotas::log_bytes_per_second`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_bytes_per_second: Option<u64>,
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
            concurrency: self.concurrency.unwrap_or(quotas.concurrency),
            requests_per_second: self
                .requests_per_second
                .unwrap_or(quotas.requests_per_second),
            cpu_ms_per_minute: self.cpu_ms_per_minute.unwrap_or(quotas.cpu_ms_per_minute),
            log_bytes_per_second: self
                .log_bytes_per_second
                .unwrap_or(quotas.log_bytes_per_second),
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
            concurrency: 1_024,
            requests_per_second: 0,
            cpu_ms_per_minute: 0,
            log_bytes_per_second: 4 * MIB,
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
            ("concurrency", self.concurrency.into(), 1, 65_536),
            (
                "requests_per_second",
                self.requests_per_second.into(),
                0,
                10_000_000,
            ),
            ("cpu_ms_per_minute", self.cpu_ms_per_minute, 0, 60_000_000),
            ("log_bytes_per_second", self.log_bytes_per_second, 1024, GIB),
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
            concurrency: 0,
            ..Quotas::default()
        };
        let error = quotas.check().unwrap_err().to_string();
        assert_eq!(error, "quota concurrency is 0: it may be from 1 to 65536");
    }
}
