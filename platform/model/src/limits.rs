//! What one request and one VM of a deployment may use. Bytes and milliseconds throughout.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// Why limits are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// A value is not within what is possible.
    #[error("limit {name} is {value}: it may be from {min} to {max}")]
    Range {
        /// The limit's name, as in JSON.
        name: &'static str,
        /// What was asked for.
        value: u64,
        /// The least that is possible.
        min: u64,
        /// The most that is possible.
        max: u64,
    },
    /// One request could use more memory than the whole VM has.
    #[error(
        "limit memory_bytes is {memory}, more than vm_memory_bytes, which is {vm}: a request cannot have more memory than its VM"
    )]
    MemoryOverVm {
        /// Memory of a request, in bytes.
        memory: u64,
        /// Memory of the VM, in bytes.
        vm: u64,
    },
}

/// The limits of a deployment. A field that JSON leaves out has its default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Memory that the instance of one request may have, in bytes. Default 256 MiB; 1 MiB to 4 GiB.
    #[schema(minimum = 1_048_576, maximum = 4_294_967_296_i64)]
    pub memory_bytes: u64,
    /// Memory that the VM may have in all, in bytes. Default 512 MiB; 32 MiB to 64 GiB, not less than `memory_bytes`.
    #[schema(minimum = 33_554_432, maximum = 68_719_476_736_i64)]
    pub vm_memory_bytes: u64,
    /// CPU time of one request, in milliseconds. Default 10,000; 1 to 600,000.
    #[schema(minimum = 1, maximum = 600_000)]
    pub cpu_ms: u64,
    /// Time until the head of the response is there, in milliseconds. Default 60,000; 1 to 3,600,000.
    #[schema(minimum = 1, maximum = 3_600_000)]
    pub head_timeout_ms: u64,
    /// Time of the whole request, bodies included, in milliseconds. Default 600,000; 1 to 86,400,000.
    #[schema(minimum = 1, maximum = 86_400_000)]
    pub wall_ms: u64,
    /// Requests of the app that run at the same time. Default 128; 1 to 1,024.
    #[schema(minimum = 1, maximum = 1_024)]
    pub concurrency: u32,
    /// Requests of the app that wait beyond those. Default 1,024; 0 to 65,536.
    #[schema(minimum = 0, maximum = 65_536)]
    pub queue: u32,
    /// Length of a request's body, in bytes. Default 4 GiB; up to 1 TiB.
    #[schema(minimum = 0, maximum = 1_099_511_627_776_i64)]
    pub request_body_bytes: u64,
    /// Size of the head of a request, and of a response, in bytes. Default 64 KiB; 1 KiB to 112 KiB.
    #[schema(minimum = 1_024, maximum = 114_688)]
    pub head_bytes: u32,
    /// Number of header fields in a head. Default 256; 1 to 1,024.
    #[schema(minimum = 1, maximum = 1_024)]
    pub header_count: u32,
    /// Size of the scratch file system that a request has, in bytes. Default 0, which means none; up to 1 GiB.
    #[schema(minimum = 0, maximum = 1_073_741_824)]
    pub scratch_bytes: u64,
    /// Length of a line in the log, in bytes; what is longer is cut into several. Default 16 KiB; 64 B to 64 KiB.
    #[schema(minimum = 64, maximum = 65_536)]
    pub log_line_bytes: u32,
    /// Time that a component may work on after its response has ended, in milliseconds. Default 5,000; up to 600,000.
    #[schema(minimum = 0, maximum = 600_000)]
    pub post_return_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 256 * MIB,
            vm_memory_bytes: 512 * MIB,
            cpu_ms: 10_000,
            head_timeout_ms: 60_000,
            wall_ms: 600_000,
            concurrency: 128,
            queue: 1024,
            request_body_bytes: 4 * GIB,
            head_bytes: 64 * 1024,
            header_count: 256,
            scratch_bytes: 0,
            log_line_bytes: 16 * 1024,
            post_return_ms: 5_000,
        }
    }
}

impl Limits {
    /// Checks each limit against what is possible.
    ///
    /// # Errors
    /// The first limit that is not.
    pub fn check(&self) -> Result<(), LimitError> {
        let table = [
            ("memory_bytes", self.memory_bytes, MIB, 4 * GIB),
            ("vm_memory_bytes", self.vm_memory_bytes, 32 * MIB, 64 * GIB),
            ("cpu_ms", self.cpu_ms, 1, 600_000),
            ("head_timeout_ms", self.head_timeout_ms, 1, 3_600_000),
            ("wall_ms", self.wall_ms, 1, 86_400_000),
            ("concurrency", self.concurrency.into(), 1, 1024),
            ("queue", self.queue.into(), 0, 65_536),
            ("request_body_bytes", self.request_body_bytes, 0, 1024 * GIB),
            ("head_bytes", self.head_bytes.into(), KIB, 112 * KIB),
            ("header_count", self.header_count.into(), 1, 1024),
            ("scratch_bytes", self.scratch_bytes, 0, GIB),
            ("log_line_bytes", self.log_line_bytes.into(), 64, 64 * KIB),
            ("post_return_ms", self.post_return_ms, 0, 600_000),
        ];
        for (name, value, min, max) in table {
            if !(min..=max).contains(&value) {
                return Err(LimitError::Range {
                    name,
                    value,
                    min,
                    max,
                });
            }
        }
        if self.memory_bytes > self.vm_memory_bytes {
            return Err(LimitError::MemoryOverVm {
                memory: self.memory_bytes,
                vm: self.vm_memory_bytes,
            });
        }
        Ok(())
    }

    /// CPU time of one request.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        Duration::from_millis(self.cpu_ms)
    }

    /// Time until the head of the response is there.
    #[must_use]
    pub fn head_timeout(&self) -> Duration {
        Duration::from_millis(self.head_timeout_ms)
    }

    /// Time of the whole request.
    #[must_use]
    pub fn wall(&self) -> Duration {
        Duration::from_millis(self.wall_ms)
    }

    /// Time that a component may work on after its response has ended.
    #[must_use]
    pub fn post_return(&self) -> Duration {
        Duration::from_millis(self.post_return_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_possible() {
        assert_eq!(Limits::default().check(), Ok(()));
    }

    #[test]
    fn the_schema_has_the_ranges_that_are_checked() {
        let schema = serde_json::to_value(<Limits as utoipa::PartialSchema>::schema()).unwrap();
        let defaults = serde_json::to_value(Limits::default()).unwrap();
        for name in defaults.as_object().unwrap().keys() {
            let range = &schema["properties"][name];
            let (min, max) = (
                range["minimum"].as_u64().unwrap(),
                range["maximum"].as_u64().unwrap(),
            );
            let fits = |value: u64| {
                let mut limits = defaults.clone();
                limits[name] = value.into();
                let limits = serde_json::from_value::<Limits>(limits).unwrap();
                !matches!(limits.check(), Err(LimitError::Range { .. }))
            };
            assert!(fits(min) && fits(max) && !fits(max + 1), "{name}");
            assert!(min == 0 || !fits(min - 1), "{name}");
        }
    }

    #[test]
    fn out_of_range() {
        let limits = Limits {
            concurrency: 5000,
            ..Limits::default()
        };
        let error = limits.check().unwrap_err().to_string();
        assert_eq!(error, "limit concurrency is 5000: it may be from 1 to 1024");
        let limits = Limits {
            memory_bytes: GIB,
            ..Limits::default()
        };
        assert!(matches!(
            limits.check(),
            Err(LimitError::MemoryOverVm { .. })
        ));
    }

    #[test]
    fn json_fills_in_defaults_and_refuses_what_it_does_not_know() {
        let limits: Limits = serde_json::from_str(r#"{"cpu_ms": 5}"#).unwrap();
        assert_eq!(
            limits,
            Limits {
                cpu_ms: 5,
                ..Limits::default()
            }
        );
        assert!(serde_json::from_str::<Limits>(r#"{"cpu": 5}"#).is_err());
    }
}
