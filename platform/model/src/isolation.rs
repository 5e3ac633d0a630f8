//! How much requests of one deployment are kept apart from each other.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::schema;

/// Requests that an instance has at most where nothing else is said.
const REUSE_REQUESTS: u32 = 128;
/// Seconds that an instance has at most where nothing else is said.
const REUSE_SECONDS: u32 = 60;
/// Most requests between two resets of a VM.
const MOST_VM_REQUESTS: u32 = 1024;

/// What a request finds of those before it. Written in one word: `instance`, `vm`, `vm:8`, `reuse`, `reuse:100`,
/// `reuse:100,30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Isolation {
    /// A fresh instance of the component; what a bug of wasmtime might leave in the VM's memory would still be there.
    #[default]
    Instance,
    /// A VM that was put back to its template: after each request, or after so many.
    Vm {
        /// Requests between two resets, at least one. More than one share a VM as with [`Isolation::Instance`].
        requests: u32,
    },
    /// The instance of earlier requests, with what they left in its memory, as `wasmtime serve` reuses instances.
    Reuse {
        /// Requests until the instance is replaced.
        requests: u32,
        /// Seconds since its first request until it is replaced.
        seconds: u32,
    },
}

/// A text that is no isolation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "isolation {0:?} is not known: it is instance, vm, vm:N (reset after N requests, up to {MOST_VM_REQUESTS}), \
     reuse, reuse:N (an instance has N requests) or reuse:N,Ts (or T seconds)"
)]
pub struct IsolationError(String);

schema::schema!(
    Isolation,
    "Isolation",
    schema::text(
        "How much requests are kept apart: a fresh instance for each (instance), a VM that is put back after each (vm) or \
         after N of them (vm:N), an instance for several (reuse, reuse:N, reuse:N,Ts).",
        "^(instance|vm(:[0-9]+)?|reuse(:[0-9]+(,[0-9]+s)?)?)$",
        "instance"
    )
);

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Isolation::Instance => f.write_str("instance"),
            Isolation::Vm { requests: 1 } => f.write_str("vm"),
            Isolation::Vm { requests } => write!(f, "vm:{requests}"),
            Isolation::Reuse { requests, seconds } => write!(f, "reuse:{requests},{seconds}s"),
        }
    }
}

impl FromStr for Isolation {
    type Err = IsolationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || IsolationError(text.chars().take(64).collect());
        let number = |text: &str| match text.parse() {
            Ok(0) | Err(_) => Err(wrong()),
            Ok(number) => Ok(number),
        };
        let (word, rest) = match text.split_once(':') {
            Some((word, rest)) => (word, Some(rest)),
            None => (text, None),
        };
        match (word, rest) {
            ("instance", None) => Ok(Isolation::Instance),
            ("vm", None) => Ok(Isolation::Vm { requests: 1 }),
            ("vm", Some(requests)) => match number(requests)? {
                requests @ 1..=MOST_VM_REQUESTS => Ok(Isolation::Vm { requests }),
                _ => Err(wrong()),
            },
            ("reuse", None) => Ok(Isolation::Reuse {
                requests: REUSE_REQUESTS,
                seconds: REUSE_SECONDS,
            }),
            ("reuse", Some(rest)) => {
                let (requests, seconds) = match rest.split_once(',') {
                    None => (rest, None),
                    Some((requests, seconds)) => (requests, Some(seconds)),
                };
                let seconds = match seconds {
                    None => REUSE_SECONDS,
                    Some(seconds) => number(seconds.strip_suffix('s').ok_or_else(wrong)?)?,
                };
                Ok(Isolation::Reuse {
                    requests: number(requests)?,
                    seconds,
                })
            }
            _ => Err(wrong()),
        }
    }
}

impl Serialize for Isolation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Isolation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_back() {
        let vm = |requests| Isolation::Vm { requests };
        let reuse = |requests, seconds| Isolation::Reuse { requests, seconds };
        for (text, isolation, shown) in [
            ("instance", Isolation::Instance, "instance"),
            ("vm", vm(1), "vm"),
            ("vm:1", vm(1), "vm"),
            ("vm:8", vm(8), "vm:8"),
            ("reuse", reuse(128, 60), "reuse:128,60s"),
            ("reuse:5", reuse(5, 60), "reuse:5,60s"),
            ("reuse:5,7s", reuse(5, 7), "reuse:5,7s"),
        ] {
            assert_eq!(text.parse(), Ok(isolation), "{text}");
            assert_eq!(isolation.to_string(), shown);
            assert_eq!(shown.parse(), Ok(isolation));
        }
    }

    #[test]
    fn other_words_are_refused() {
        for text in [
            "",
            "vms",
            "vm:",
            "vm:0",
            "vm:1025",
            "vm:-1",
            "reuse:0",
            "reuse:1,2",
            "reuse:1,0s",
            "instance:1",
            "reuse:1,2s,3",
        ] {
            assert!(text.parse::<Isolation>().is_err(), "{text}");
        }
    }
}
