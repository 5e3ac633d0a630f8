//! The node's own log, on standard error.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::EnvFilter;

use crate::failure::Failure;
use crate::options::LogFormat;

/// Starts the log with what the filter lets through. Where there is one already, as in a test, it stays.
///
/// # Errors
/// When the filter cannot be read.
pub(crate) fn start(format: LogFormat, filter: &str) -> Result<(), Failure> {
    let wrong = |error: tracing_subscriber::filter::ParseError| Failure::LogFilter {
        filter: filter.to_owned(),
        reason: error.to_string(),
    };
    let filter = EnvFilter::builder().parse(filter).map_err(wrong)?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_target(false);
    let started = match format {
        LogFormat::Human => log.with_ansi(stderr().is_terminal()).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    // Only a second start in one process fails.
    drop(started);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        for good in ["info", "warn,platform_data=debug", ""] {
            assert!(start(LogFormat::Json, good).is_ok(), "{good}");
        }
        let error = start(LogFormat::Human, "platform_data=loud").unwrap_err();
        assert!(error.to_string().contains("loud"), "{error}");
    }
}
