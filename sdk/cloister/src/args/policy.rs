//! What an app, or all apps of a tenant, may take at the router, as flags; `policy`.

use clap::Args;
use platform_model::{Policy, Rate};

use super::AppArgs;
use crate::quantity::{parse_millis, parse_size};

/// `policy`.
#[derive(Debug, Args)]
#[command(after_help = "Example: cloister policy shop --rate 100/s,burst=200 --keep 5")]
pub(crate) struct AppPolicyArgs {
    #[command(flatten)]
    pub(crate) app: AppArgs,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    /// How many of its last deployments are kept, besides those that answer: 1 to 1000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) keep: Option<u32>,
}

/// What may be taken at the router.
#[derive(Debug, Args)]
#[command(next_help_heading = "Policy")]
pub(crate) struct PolicyArgs {
    /// Requests, such as 100/s or 600/m,burst=50; none for as many as come
    #[arg(long, value_name = "RATE", value_parser = or_none::<Rate>)]
    rate: Option<OrNone<Rate>>,
    /// Requests that are answered at the same time; none for as many as deployments take
    #[arg(long, value_name = "N", value_parser = or_none::<u32>)]
    concurrency: Option<OrNone<u32>>,
    /// CPU time in each minute; none for as much as there is
    #[arg(long, value_name = "TIME", value_parser = millis_or_none)]
    cpu_per_minute: Option<OrNone<u64>>,
    /// Length of a request's body; none for what deployments take
    #[arg(long, value_name = "SIZE", value_parser = size_or_none)]
    request_body: Option<OrNone<u64>>,
    /// Length of a response's body; none for as long as they get
    #[arg(long, value_name = "SIZE", value_parser = size_or_none)]
    response_body: Option<OrNone<u64>>,
}

impl PolicyArgs {
    /// What is typed in place of what `policy` has; nothing where nothing is typed.
    pub(crate) fn changed(&self, policy: &Policy) -> Option<Policy> {
        let Self {
            rate,
            concurrency,
            cpu_per_minute,
            request_body,
            response_body,
        } = self;
        let untyped = rate.is_none()
            && concurrency.is_none()
            && cpu_per_minute
                .or(*request_body)
                .or(*response_body)
                .is_none();
        (!untyped).then(|| Policy {
            rate: rate.map_or(policy.rate, |new| new.0),
            concurrency: concurrency.map_or(policy.concurrency, |new| new.0),
            cpu_ms_per_minute: cpu_per_minute.map_or(policy.cpu_ms_per_minute, |new| new.0),
            request_body_bytes: request_body.map_or(policy.request_body_bytes, |new| new.0),
            response_body_bytes: response_body.map_or(policy.response_body_bytes, |new| new.0),
        })
    }
}

/// A value, or that there is to be none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OrNone<T>(Option<T>);

fn or_none_by<T, E: std::fmt::Display>(
    text: &str,
    read: impl Fn(&str) -> Result<T, E>,
) -> Result<OrNone<T>, String> {
    match text {
        "none" => Ok(OrNone(None)),
        text => (read(text))
            .map(|value| OrNone(Some(value)))
            .map_err(|e| e.to_string()),
    }
}

fn or_none<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<OrNone<T>, String> {
    or_none_by(text, T::from_str)
}

fn millis_or_none(text: &str) -> Result<OrNone<u64>, String> {
    or_none_by(text, parse_millis)
}

fn size_or_none(text: &str) -> Result<OrNone<u64>, String> {
    or_none_by(text, parse_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_can_be_taken_away() {
        assert_eq!(or_none::<u32>("none"), Ok(OrNone(None)));
        assert_eq!(or_none::<u32>("7"), Ok(OrNone(Some(7))));
        assert!(or_none::<Rate>("7").is_err() && millis_or_none("x").is_err());
        assert_eq!(millis_or_none("2s"), Ok(OrNone(Some(2_000))));
    }
}
