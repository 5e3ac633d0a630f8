//! How the requests of an app are shared among its deployments.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use utoipa::ToSchema;

use crate::DeploymentId;
use crate::schema::{schema, text};

/// Most deployments that may share an app's requests.
pub const MAX_SHARES: usize = 8;

/// Longest name of a header field or a cookie that is looked at.
const MAX_NAME: usize = 64;

/// Why requests cannot be shared so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrafficError {
    /// Not the shape of a share.
    #[error("{0:?} is no share: give DEPLOYMENT=PERCENT, several with commas, as in 3=90,4=10")]
    Share(String),
    /// No share, or too many.
    #[error("there are {0} shares: 1 to {MAX_SHARES} are possible")]
    Count(usize),
    /// A share that is none.
    #[error("the share of deployment {0} is {1} %: 1 to 100 are possible")]
    Weight(DeploymentId, u8),
    /// A deployment that is there twice.
    #[error("deployment {0} is there twice")]
    Twice(DeploymentId),
    /// The shares are not the whole.
    #[error("the shares add up to {0} %, not to 100")]
    Sum(u32),
    /// Neither a header nor a cookie.
    #[error(
        "{0:?} is neither header:NAME nor cookie:NAME, with a name of 1 to {MAX_NAME} letters, digits, '-' and '_'"
    )]
    Sticky(String),
}

/// The part of an app's requests that one deployment answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The deployment.
    pub deployment: DeploymentId,
    /// How many of 100 requests it answers; 1 to 100.
    #[schema(minimum = 1, maximum = 100)]
    pub weight: u8,
}

/// By what a client is known again, so that the same deployment answers it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Sticky {
    /// By the value of a header field; a request without it goes anywhere. In lower case.
    Header(String),
    /// By the value of a cookie, which the router sets where it is not there.
    Cookie(String),
}

impl FromStr for Sticky {
    type Err = TrafficError;

    fn from_str(text: &str) -> Result<Self, TrafficError> {
        let bad = || TrafficError::Sticky(text.to_owned());
        let (kind, name) = text.split_once(':').ok_or_else(bad)?;
        let fits = (1..=MAX_NAME).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        match kind {
            "header" if fits => Ok(Self::Header(name.to_ascii_lowercase())),
            "cookie" if fits => Ok(Self::Cookie(name.to_owned())),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Sticky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
        }
    }
}

impl Serialize for Sticky {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sticky {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

schema!(
    Sticky,
    "Sticky",
    text(
        "By what a client is known again: header:NAME, or cookie:NAME, which the router sets where it is not there.",
        "^(header|cookie):[A-Za-z0-9_-]{1,64}$",
        "cookie:session"
    )
);

/// The deployments that answer an app's requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"shares": [{"deployment": 1, "weight": 100}]})))]
pub struct Traffic {
    /// Who answers how much; the weights add up to 100.
    #[schema(min_items = 1, max_items = 8)]
    pub shares: Vec<Share>,
    /// How a client stays with one deployment. Not at all by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Sticky>,
}

impl Traffic {
    /// All requests to one deployment.
    #[must_use]
    pub fn all_to(deployment: DeploymentId) -> Self {
        Self {
            shares: vec![Share {
                deployment,
                weight: 100,
            }],
            sticky: None,
        }
    }

    /// The deployment with the largest share; of equals the first.
    #[must_use]
    pub fn main(&self) -> Option<DeploymentId> {
        let largest = self.shares.iter().rev().max_by_key(|share| share.weight);
        largest.map(|share| share.deployment)
    }

    /// Whether a deployment answers requests.
    #[must_use]
    pub fn has(&self, deployment: DeploymentId) -> bool {
        self.shares
            .iter()
            .any(|share| share.deployment == deployment)
    }

    /// Checks what the types alone do not.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), TrafficError> {
        if !(1..=MAX_SHARES).contains(&self.shares.len()) {
            return Err(TrafficError::Count(self.shares.len()));
        }
        let mut seen = BTreeSet::new();
        for share in &self.shares {
            if !(1..=100).contains(&share.weight) {
                return Err(TrafficError::Weight(share.deployment, share.weight));
            }
            if !seen.insert(share.deployment) {
                return Err(TrafficError::Twice(share.deployment));
            }
        }
        let sum = self
            .shares
            .iter()
            .map(|share| u32::from(share.weight))
            .sum();
        if sum == 100 {
            Ok(())
        } else {
            Err(TrafficError::Sum(sum))
        }
    }
}

impl FromStr for Traffic {
    type Err = TrafficError;

    /// Reads `3=90,4=10`.
    fn from_str(text: &str) -> Result<Self, TrafficError> {
        let share = |text: &str| {
            let (deployment, weight) = text.trim().split_once('=')?;
            Some(Share {
                deployment: deployment.parse().ok()?,
                weight: weight.strip_suffix('%').unwrap_or(weight).parse().ok()?,
            })
        };
        let shares = text
            .split(',')
            .map(|part| share(part).ok_or_else(|| TrafficError::Share(part.to_owned())))
            .collect::<Result<_, _>>()?;
        let traffic = Self {
            shares,
            sticky: None,
        };
        traffic.check()?;
        Ok(traffic)
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, share) in self.shares.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{}={}", share.deployment, share.weight)?;
        }
        match &self.sticky {
            Some(sticky) => write!(f, " by {sticky}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_the_whole() {
        let traffic: Traffic = "3=90, 4=10%".parse().unwrap();
        assert_eq!(traffic.to_string(), "3=90,4=10");
        assert_eq!(traffic.main(), Some(DeploymentId(3)));
        assert!(traffic.has(DeploymentId(4)) && !traffic.has(DeploymentId(5)));
        for (bad, word) in [
            ("", "no share"),
            ("3", "no share"),
            ("3=x", "no share"),
            ("3=300", "no share"),
            ("3=90", "add up to 90"),
            ("3=0,4=100", "is 0 %"),
            ("3=50,3=50", "twice"),
            ("1=20,2=10,3=10,4=10,5=10,6=10,7=10,8=10,9=10", "9 shares"),
        ] {
            let error = bad.parse::<Traffic>().unwrap_err().to_string();
            assert!(error.contains(word), "{bad}: {error}");
        }
    }

    #[test]
    fn clients_are_known_by_header_or_cookie() {
        for (text, sticky) in [
            ("header:X-User", Sticky::Header("x-user".into())),
            ("cookie:Sid", Sticky::Cookie("Sid".into())),
        ] {
            assert_eq!(text.parse(), Ok(sticky));
        }
        for bad in [
            "",
            "header",
            "header:",
            "query:x",
            "cookie:a b",
            "cookie:a;b",
        ] {
            assert!(bad.parse::<Sticky>().is_err(), "{bad}");
        }
    }

    #[test]
    fn json_is_small() {
        let traffic = Traffic {
            sticky: Some(Sticky::Cookie("sid".into())),
            ..Traffic::all_to(DeploymentId(3))
        };
        let json = r#"{"shares":[{"deployment":3,"weight":100}],"sticky":"cookie:sid"}"#;
        assert_eq!(serde_json::to_string(&traffic).unwrap(), json);
        assert_eq!(serde_json::from_str::<Traffic>(json).unwrap(), traffic);
    }
}
