//! How a new deployment comes to answer, as flags; and what is typed about who answers.

use clap::Args;
use platform_model::{AbortRule, CanaryPlan, DeploymentId, Sticky, Traffic};

use super::AppArgs;
use crate::quantity::parse_millis;

/// How a new deployment comes to answer: at once, unless told otherwise.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Release")]
pub(crate) struct ReleaseArgs {
    /// A path that has to answer with a status from 200 to 399 before the deployment answers anybody
    #[arg(long, value_name = "PATH")]
    pub(crate) health: Option<String>,
    /// Answer under a name of its own only: N--APP
    #[arg(long, conflicts_with = "canary")]
    pub(crate) preview: bool,
    /// Get a part of the requests that grows as long as it does well: the steps in percent; one alone goes on to 25 and 50
    #[arg(long, value_name = "PERCENT[,PERCENT]")]
    canary: Option<Steps>,
    /// When the canary is given up [default: error-rate>2%]
    #[arg(long, value_name = "RULE", requires = "canary")]
    abort_if: Option<AbortRule>,
    /// How long a step of the canary lasts [default: 60s]
    #[arg(long, value_name = "TIME", requires = "canary", value_parser = seconds)]
    step: Option<u32>,
    /// How a client stays with the canary, or with the other: header:NAME or cookie:NAME
    #[arg(long, value_name = "BY", requires = "canary")]
    sticky: Option<Sticky>,
    /// Let it have more than the deployment that answers: hosts, imports, limits
    #[arg(long, short)]
    pub(crate) yes: bool,
}

impl ReleaseArgs {
    /// The plan of the canary, if it is to be one.
    pub(crate) fn canary(&self) -> Option<CanaryPlan> {
        let Steps(plan) = self.canary.as_ref()?;
        Some(CanaryPlan {
            step_seconds: self.step.unwrap_or(plan.step_seconds),
            abort_if: self.abort_if.unwrap_or(plan.abort_if),
            sticky: self.sticky.clone(),
            ..plan.clone()
        })
    }
}

/// The steps of a canary.
#[derive(Debug, Clone)]
struct Steps(CanaryPlan);

impl std::str::FromStr for Steps {
    type Err = String;

    /// Reads `10%`, `10` or `5,20,50%`.
    fn from_str(text: &str) -> Result<Self, String> {
        let step = |text: &str| text.trim().trim_end_matches('%').parse::<u8>();
        let steps: Result<Vec<_>, _> = text.split(',').map(step).collect();
        let steps = steps.map_err(|_| "give a part such as 10%, or steps such as 5,20,50%")?;
        let plan = match steps[..] {
            [first] => CanaryPlan::from(first),
            _ => CanaryPlan {
                steps,
                ..CanaryPlan::from(1)
            },
        };
        plan.check().map_err(|error| error.to_string())?;
        Ok(Self(plan))
    }
}

/// Whole seconds, at least one.
fn seconds(text: &str) -> Result<u32, String> {
    let millis = parse_millis(text).map_err(|error| error.to_string())?;
    let seconds = u32::try_from(millis.div_ceil(1000)).ok();
    let seconds = seconds.filter(|seconds| (1..=86_400).contains(seconds));
    seconds.ok_or_else(|| "give 1s to 24h".to_owned())
}

/// `rollback`.
#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// The app's name
    pub(crate) app: platform_model::AppName,
    /// The deployment that is to answer again [default: the one that answered before]
    #[arg(value_name = "N")]
    pub(crate) to: Option<DeploymentId>,
    /// The tenant that the app belongs to
    #[arg(long, short, default_value_t)]
    pub(crate) tenant: platform_model::TenantName,
}

/// `promote`.
#[derive(Debug, Args)]
pub(crate) struct PromoteArgs {
    /// The app's name
    pub(crate) app: platform_model::AppName,
    /// The deployment that is to answer everything
    #[arg(value_name = "N")]
    pub(crate) deployment: DeploymentId,
    /// The tenant that the app belongs to
    #[arg(long, short, default_value_t)]
    pub(crate) tenant: platform_model::TenantName,
}

/// `split`.
#[derive(Debug, Args)]
#[command(after_help = "Example: cloister split shop 3=90,4=10 --sticky cookie:side")]
pub(crate) struct SplitArgs {
    /// The app's name
    pub(crate) app: platform_model::AppName,
    /// Who answers how much, in percent; 100 in all. Who answers now, where it is left out
    #[arg(value_name = "N=PERCENT[,N=PERCENT]")]
    pub(crate) shares: Option<Traffic>,
    /// How a client stays with one deployment: header:NAME or cookie:NAME
    #[arg(long, value_name = "BY", requires = "shares")]
    pub(crate) sticky: Option<Sticky>,
    /// The tenant that the app belongs to
    #[arg(long, short, default_value_t)]
    pub(crate) tenant: platform_model::TenantName,
}

/// `history`.
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    #[command(flatten)]
    pub(crate) app: AppArgs,
    /// Only the latest N
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20)]
    pub(crate) last: usize,
}

/// `canary`.
#[derive(Debug, Args)]
pub(crate) struct CanaryArgs {
    #[command(flatten)]
    pub(crate) app: AppArgs,
    /// Give it up: its requests go where they went before
    #[arg(long)]
    pub(crate) abort: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_a_canary() {
        let steps = |text: &str| text.parse::<Steps>().map(|steps| steps.0.steps);
        assert_eq!(steps("10%"), Ok(vec![10, 25, 50]));
        assert_eq!(steps("10"), Ok(vec![10, 25, 50]));
        assert_eq!(steps("5,20,50%"), Ok(vec![5, 20, 50]));
        for bad in ["", "0", "some", "20,10", "101", "-1"] {
            assert!(steps(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn steps_last_whole_seconds() {
        assert_eq!(seconds("500ms"), Ok(1));
        assert_eq!(seconds("2min"), Ok(120));
        assert!(seconds("0s").is_err() && seconds("25h").is_err());
    }
}
