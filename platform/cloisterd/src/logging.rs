//! The node's own log, on standard error.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::EnvFilter;

use crate::options::LogFormat;

/// Sets what the log has.
const VARIABLE: &str = "CLOISTER_LOG";

/// Starts the log. Where there is one already, as in a test, it stays.
pub(crate) fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_env(VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
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
}
