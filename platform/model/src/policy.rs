//! What an app, or all apps of a tenant together, may take at the router. What is left out is not limited.
//!
//! Unlike [`crate::Limits`] a policy is not of a deployment: it holds across all of them and changes without a deploy.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use crate::schema::{self, schema};

/// Most requests that a rate may name.
const MAX_REQUESTS: u32 = 10_000_000;

/// Why a policy is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// No rate.
    #[error(
        "{0:?} is no rate: give N/s, N/m or N/h, with ,burst=N behind it if wanted; N from 1 to {MAX_REQUESTS}"
    )]
    Rate(String),
    /// A value that admits nothing.
    #[error("{0} is 0, which admits nothing: leave it out for no limit")]
    Zero(&'static str),
}

/// A period that a rate counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Per {
    Second,
    Minute,
    Hour,
}

/// Requests in a period, spread evenly, and how many may come at once. Written `100/s` or `600/m,burst=50`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    requests: u32,
    per: Per,
    burst: Option<u32>,
}

impl Rate {
    /// Requests that come in evenly, for each second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        let seconds = match self.per {
            Per::Second => 1.0,
            Per::Minute => 60.0,
            Per::Hour => 3600.0,
        };
        f64::from(self.requests) / seconds
    }

    /// Requests that may come at once after a pause: what is said, or a second's worth, but at least one.
    #[must_use]
    pub fn burst(&self) -> f64 {
        self.burst
            .map_or_else(|| self.per_second().max(1.0), f64::from)
    }
}

impl FromStr for Rate {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let bad = || PolicyError::Rate(text.to_owned());
        let number = |text: &str| {
            let number = text.parse().ok()?;
            (1..=MAX_REQUESTS).contains(&number).then_some(number)
        };
        let (rate, burst) = match text.split_once(',') {
            Some((rate, burst)) => {
                let burst = burst.trim().strip_prefix("burst=").and_then(number);
                (rate, Some(burst.ok_or_else(bad)?))
            }
            None => (text, None),
        };
        let (requests, per) = rate.split_once('/').ok_or_else(bad)?;
        let per = match per.trim() {
            "s" => Per::Second,
            "m" => Per::Minute,
            "h" => Per::Hour,
            _ => return Err(bad()),
        };
        let requests = number(requests.trim()).ok_or_else(bad)?;
        Ok(Self {
            requests,
            per,
            burst,
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = match self.per {
            Per::Second => 's',
            Per::Minute => 'm',
            Per::Hour => 'h',
        };
        write!(f, "{}/{per}", self.requests)?;
        match self.burst {
            Some(burst) => write!(f, ",burst={burst}"),
            None => Ok(()),
        }
    }
}

schema!(
    Rate,
    "Rate",
    schema::text(
        "Requests in a second, a minute or an hour, and how many may come at once.",
        "^[0-9]+/[smh](,burst=[0-9]+)?$",
        "600/m,burst=50",
    )
);

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// What may be taken. `None` and what JSON leaves out: as much as there is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Requests. Beyond them: 429 with `Retry-After`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Requests that are answered at the same time. Beyond them: 503 with `Retry-After`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// CPU time, in milliseconds for each minute. Once it is used up: 429 with `Retry-After`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ms_per_minute: Option<u64>,
    /// Length of a request's body, in bytes, where it is less than the deployment's own limit. Beyond it: 413.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_body_bytes: Option<u64>,
    /// Length of a response's body, in bytes. Beyond it: 502, or the response is cut off where it has begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_body_bytes: Option<u64>,
}

impl Policy {
    /// CPU time of a minute.
    #[must_use]
    pub fn cpu_per_minute(&self) -> Option<Duration> {
        self.cpu_ms_per_minute.map(Duration::from_millis)
    }

    /// Checks what the types alone do not.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), PolicyError> {
        if self.concurrency == Some(0) {
            return Err(PolicyError::Zero("concurrency"));
        }
        if self.cpu_ms_per_minute == Some(0) {
            return Err(PolicyError::Zero("cpu_ms_per_minute"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read() {
        for (text, per_second, burst) in [
            ("100/s", 100.0, 100.0),
            ("60/m", 1.0, 1.0),
            ("6/m", 0.1, 1.0),
            ("36/h,burst=20", 0.01, 20.0),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.per_second(), rate.burst()), (per_second, burst));
            assert_eq!(rate.to_string(), text);
        }
        for bad in [
            "",
            "100",
            "0/s",
            "-1/s",
            "1/d",
            "1/s,burst=0",
            "1/s,2",
            "99999999/s",
        ] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_left_out_is_not_limited() {
        let policy: Policy = serde_json::from_str(r#"{"rate":"5/s"}"#).unwrap();
        assert_eq!(policy.rate, "5/s".parse().ok());
        assert_eq!(policy.concurrency, None);
        assert_eq!(serde_json::to_string(&policy).unwrap(), r#"{"rate":"5/s"}"#);
        assert!(serde_json::from_str::<Policy>(r#"{"rates":"5/s"}"#).is_err());
        let none = Policy {
            concurrency: Some(0),
            ..Policy::default()
        };
        assert_eq!(none.check(), Err(PolicyError::Zero("concurrency")));
    }
}
