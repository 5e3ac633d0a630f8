//! How deployments come to answer: by a switch, a split, a canary, a rollback; and what is remembered of it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::schema::{schema, text};
use crate::{AllowHost, DeploymentId, Sticky, Traffic};

/// Steps of a canary at most.
const MAX_STEPS: usize = 16;

/// Why a canary, a health check or a rule is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// No rule.
    #[error("{0:?} is no rule: give error-rate>PERCENT%, as in error-rate>2% or error-rate>0.5%")]
    Rule(String),
    /// Steps that do not go up to the end.
    #[error(
        "the steps of a canary are 1 to {MAX_STEPS} numbers from 1 to 100 that go up: {0:?} are not"
    )]
    Steps(Vec<u8>),
    /// A step that is too short or too long.
    #[error("a step of a canary lasts 1 to 86,400 seconds, not {0}")]
    StepTime(u32),
    /// A path that is none.
    #[error("health is a path such as /healthz, of visible ASCII characters, not {0:?}")]
    Health(String),
    /// A preview answers under its own name only.
    #[error("a deployment is either a preview or a canary: choose one")]
    PreviewAndCanary,
}

/// When a canary is given up. Written `error-rate>2%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AbortRule {
    /// In hundredths of a percent.
    error_rate: u16,
}

impl AbortRule {
    /// The share of failed requests that is still good, from 0 to 1.
    #[must_use]
    pub fn error_rate(&self) -> f64 {
        f64::from(self.error_rate) / 10_000.0
    }
}

impl Default for AbortRule {
    /// More than 2 % of the requests fail.
    fn default() -> Self {
        Self { error_rate: 200 }
    }
}

impl FromStr for AbortRule {
    type Err = ReleaseError;

    fn from_str(text: &str) -> Result<Self, ReleaseError> {
        let rate = || {
            let compact: String = text.split_whitespace().collect();
            let percent = compact.strip_prefix("error-rate>")?.strip_suffix('%')?;
            let (whole, part) = percent.split_once('.').unwrap_or((percent, "0"));
            let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            if !digits(whole) || !digits(part) || part.is_empty() || part.len() > 2 {
                return None;
            }
            let part: u16 = format!("{part:0<2}").parse().ok()?;
            let rate = whole.parse::<u16>().ok()?.checked_mul(100)? + part;
            (rate < 10_000).then_some(rate)
        };
        let error_rate = rate().ok_or_else(|| ReleaseError::Rule(text.to_owned()))?;
        Ok(Self { error_rate })
    }
}

impl fmt::Display for AbortRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.error_rate / 100, self.error_rate % 100);
        write!(f, "error-rate>{whole}")?;
        if part > 0 {
            write!(f, ".{}", format!("{part:02}").trim_end_matches('0'))?;
        }
        f.write_str("%")
    }
}

impl Serialize for AbortRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AbortRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

schema!(
    AbortRule,
    "AbortRule",
    text(
        "When a canary is given up: more than this share of its requests fail.",
        r"^error-rate>[0-9]{1,2}(\.[0-9]{1,2})?%$",
        "error-rate>2%"
    )
);

/// A deployment that gets a growing part of the requests, as long as it does well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CanaryPlan {
    /// Its part in percent, step by step, each more than the one before. After the last step it gets everything.
    pub steps: Vec<u8>,
    /// How long a step lasts, in seconds; longer where fewer than 10 requests came. Default 60; 1 to 86,400.
    #[serde(default = "minute")]
    #[schema(minimum = 1, maximum = 86400)]
    pub step_seconds: u32,
    /// When it is given up. Default `error-rate>2%`.
    #[serde(default)]
    pub abort_if: AbortRule,
    /// How a client stays with one of the two. As before by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Sticky>,
}

fn minute() -> u32 {
    60
}

impl CanaryPlan {
    /// A plan that begins with a part and goes on to 25 %, 50 % and everything.
    #[must_use]
    pub fn from(percent: u8) -> Self {
        let more = [25, 50].into_iter().filter(|step| *step > percent);
        Self {
            steps: [percent].into_iter().chain(more).collect(),
            step_seconds: minute(),
            abort_if: AbortRule::default(),
            sticky: None,
        }
    }

    /// Checks what the types alone do not.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), ReleaseError> {
        let up = self.steps.is_sorted_by(|a, b| a < b);
        let within = self.steps.iter().all(|step| (1..=100).contains(step));
        if !(1..=MAX_STEPS).contains(&self.steps.len()) || !up || !within {
            return Err(ReleaseError::Steps(self.steps.clone()));
        }
        if !(1..=86_400).contains(&self.step_seconds) {
            return Err(ReleaseError::StepTime(self.step_seconds));
        }
        Ok(())
    }
}

/// Checks the path of a health check.
///
/// # Errors
/// When it is none.
pub fn check_health(path: &str) -> Result<(), ReleaseError> {
    let visible = path
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if path.starts_with('/') && path.len() <= 1024 && visible {
        Ok(())
    } else {
        Err(ReleaseError::Health(path.chars().take(100).collect()))
    }
}

/// A canary that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Canary {
    /// The deployment.
    pub deployment: DeploymentId,
    /// How it goes on.
    pub plan: CanaryPlan,
    /// Its part now, in percent.
    pub weight: u8,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// When the step began that it is in.
    #[serde(with = "time::serde::rfc3339")]
    pub step_started_at: OffsetDateTime,
    /// Requests that it got in this step, since the node is up.
    pub requests: u64,
    /// Those of them that failed.
    pub errors: u64,
}

/// What was done to who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReleaseAction {
    /// A new deployment answers everything.
    Deploy,
    /// A new deployment answers under its own name only.
    Preview,
    /// An older deployment answers everything again.
    Rollback,
    /// A deployment that was there answers everything.
    Promote,
    /// Several deployments share the requests.
    Split,
    /// A new deployment gets a part of the requests, which is to grow.
    CanaryStarted,
    /// Its part grew.
    CanaryRaised,
    /// It answers everything.
    CanaryFinished,
    /// It was given up.
    CanaryAborted,
}

impl fmt::Display for ReleaseAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Deploy => "deploy",
            Self::Preview => "preview",
            Self::Rollback => "rollback",
            Self::Promote => "promote",
            Self::Split => "split",
            Self::CanaryStarted => "canary-started",
            Self::CanaryRaised => "canary-raised",
            Self::CanaryFinished => "canary-finished",
            Self::CanaryAborted => "canary-aborted",
        })
    }
}

/// A line of an app's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Release {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub time: OffsetDateTime,
    /// Who: the id of a token, or `node` for what the node did by itself.
    pub who: String,
    /// What.
    pub action: ReleaseAction,
    /// The deployment that it was about.
    pub deployment: DeploymentId,
    /// Who answers since.
    pub traffic: Traffic,
    /// Why, where there is more to say than what was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Which deployment is to answer again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RollbackRequest {
    /// The deployment; the one that answered before where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<DeploymentId>,
}

/// Which deployment is to answer everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PromoteRequest {
    /// The deployment.
    pub deployment: DeploymentId,
}

/// A limit that is to be more than it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LimitGrowth {
    /// Its name.
    pub limit: String,
    /// What it was.
    pub from: u64,
    /// What it is to be.
    pub to: u64,
}

/// What a deployment wants more than the one that answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Growth {
    /// Hosts that it may call.
    pub allow_hosts: Vec<AllowHost>,
    /// Packages of interfaces that it imports, such as `wasi:sockets`.
    pub imports: Vec<String>,
    /// Limits.
    pub limits: Vec<LimitGrowth>,
}

impl Growth {
    /// Whether it wants nothing more.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = self.allow_hosts.iter().map(|host| format!("host {host}"));
        let imports = self.imports.iter().map(|name| format!("imports {name}"));
        let limits = self.limits.iter();
        let limits =
            limits.map(|grown| format!("{} {} instead of {}", grown.limit, grown.to, grown.from));
        let all: Vec<_> = hosts.chain(imports).chain(limits).collect();
        f.write_str(&all.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read() {
        for (text, rate, shown) in [
            ("error-rate>2%", 0.02, "error-rate>2%"),
            ("error-rate > 0.5%", 0.005, "error-rate>0.5%"),
            ("error-rate>0.05%", 0.0005, "error-rate>0.05%"),
            ("error-rate>0%", 0.0, "error-rate>0%"),
        ] {
            let rule: AbortRule = text.parse().unwrap();
            assert!((rule.error_rate() - rate).abs() < 1e-9, "{text}");
            assert_eq!(rule.to_string(), shown);
        }
        for bad in [
            "",
            "2%",
            "error-rate>2",
            "error-rate>100%",
            "error-rate>-1%",
            "error-rate>1.234%",
            "latency>2%",
            "error-rate>.%",
            "error-rate>+1%",
        ] {
            assert!(bad.parse::<AbortRule>().is_err(), "{bad}");
        }
    }

    #[test]
    fn canaries_go_up() {
        let plan = CanaryPlan::from(10);
        assert_eq!((&plan.steps[..], plan.check()), (&[10, 25, 50][..], Ok(())));
        assert_eq!(CanaryPlan::from(60).steps, [60]);
        for steps in [vec![], vec![0], vec![10, 10], vec![20, 10], vec![101]] {
            let bad = CanaryPlan {
                steps,
                ..plan.clone()
            };
            assert!(bad.check().is_err(), "{bad:?}");
        }
        let plan: CanaryPlan = serde_json::from_str(r#"{"steps":[5]}"#).unwrap();
        assert_eq!(
            (plan.step_seconds, plan.abort_if),
            (60, AbortRule::default())
        );
    }

    #[test]
    fn health_is_a_path() {
        assert_eq!(check_health("/healthz?deep=1"), Ok(()));
        for bad in ["", "healthz", "/a b", "/ä", "/a#b"] {
            assert!(check_health(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn growth_is_told() {
        let growth = Growth {
            allow_hosts: vec!["a.example:443".parse().unwrap()],
            imports: vec!["wasi:sockets".into()],
            limits: vec![LimitGrowth {
                limit: "cpu_ms".into(),
                from: 5,
                to: 7,
            }],
        };
        let told = "host a.example:443, imports wasi:sockets, cpu_ms 7 instead of 5";
        assert_eq!(growth.to_string(), told);
        assert!(!growth.is_empty() && Growth::default().is_empty());
    }
}
