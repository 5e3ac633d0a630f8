//! How many VMs a deployment has.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Most VMs of a deployment.
const MOST: u32 = 256;
/// Longest time without a request, in milliseconds.
const MOST_IDLE: u64 = 7 * 24 * 3_600_000;

/// A number that is not possible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScaleError {
    /// More VMs than there may be.
    #[error("scale {name} is {value}: it may be up to {most}")]
    Range {
        /// The field, as in JSON.
        name: &'static str,
        /// What was asked for.
        value: u64,
        /// The most that is possible.
        most: u64,
    },
    /// More at least than at most.
    #[error("scale min is {min}, more than max, which is {max}")]
    MinOverMax {
        /// VMs at least.
        min: u32,
        /// VMs at most.
        max: u32,
    },
}

/// How many VMs a deployment has. A field that JSON leaves out has its default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Scale {
    /// VMs that are there without any request. Default 0: an idle deployment has none, and the next request starts one
    /// from the template.
    pub min: u32,
    /// Most VMs. Default 0, which means as many as the node has processors; up to 256.
    pub max: u32,
    /// Time without a request after which VMs beyond `min` go, in milliseconds. Default 60,000; up to a week.
    pub idle_ms: u64,
}

impl Default for Scale {
    fn default() -> Self {
        Self {
            min: 0,
            max: 0,
            idle_ms: 60_000,
        }
    }
}

impl Scale {
    /// Checks each number.
    ///
    /// # Errors
    /// The first that is not possible.
    pub fn check(&self) -> Result<(), ScaleError> {
        for (name, value, most) in [
            ("min", u64::from(self.min), u64::from(MOST)),
            ("max", u64::from(self.max), u64::from(MOST)),
            ("idle_ms", self.idle_ms, MOST_IDLE),
        ] {
            if value > most {
                return Err(ScaleError::Range { name, value, most });
            }
        }
        if self.max != 0 && self.min > self.max {
            return Err(ScaleError::MinOverMax {
                min: self.min,
                max: self.max,
            });
        }
        Ok(())
    }

    /// Time without a request after which VMs go.
    #[must_use]
    pub fn idle(&self) -> Duration {
        Duration::from_millis(self.idle_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_checked() {
        let scale = Scale::default();
        assert_eq!(scale.check(), Ok(()));
        assert!(
            Scale {
                min: 3,
                max: 2,
                ..scale
            }
            .check()
            .is_err()
        );
        assert_eq!(Scale { min: 3, ..scale }.check(), Ok(()));
        assert!(Scale { max: 257, ..scale }.check().is_err());
        assert!(
            Scale {
                idle_ms: u64::MAX,
                ..scale
            }
            .check()
            .is_err()
        );
    }

    #[test]
    fn json_fills_in_defaults_and_refuses_what_it_does_not_know() {
        let scale: Scale = serde_json::from_str(r#"{"max": 4}"#).unwrap();
        assert_eq!(
            scale,
            Scale {
                max: 4,
                ..Scale::default()
            }
        );
        assert!(serde_json::from_str::<Scale>(r#"{"most": 4}"#).is_err());
    }
}
