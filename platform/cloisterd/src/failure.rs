//! Why the daemon ended, and with which exit code.

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;

use platform_control::data_dir::DataDirError;
use platform_control::engine::DeployError;
use platform_control::keyring::KeyringError;
use platform_control::store::OpenError;
use platform_data::StartError;

use crate::kvm::KvmError;
use crate::token::TokenError;

/// Exit code of a wrong command line.
pub const USAGE: u8 = 2;

/// The exit codes as `--help` has them.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  stopped by SIGTERM or SIGINT, after requests in flight were answered
  1  anything else
  2  wrong command line
  3  KVM cannot be used
  4  the data folder cannot be used: another node has it, it cannot be written, the disk is full
  5  the state in the data folder cannot be used: damaged, of a newer version, or its key is missing
  6  an address cannot be listened on
";

/// Why the daemon did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// KVM.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The data folder.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The stored state.
    #[error(transparent)]
    State(#[from] OpenError),
    /// The keys of secrets.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The address of the apps.
    #[error(transparent)]
    Data(#[from] StartError),
    /// The address of the admin API.
    #[error("cannot listen on {address}: choose another with --admin")]
    Admin {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The address of the metrics.
    #[error("cannot listen on {address}: choose another with --metrics")]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The filter of the node's own log.
    #[error("--log {filter:?} cannot be read: {reason}")]
    LogFilter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The settings for traces.
    #[error("traces cannot be sent: see to the environment, OTEL_EXPORTER_OTLP_…")]
    Traces(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The apps cannot be restored.
    #[error("the apps cannot be restored")]
    Restore(#[source] DeployError),
    /// A part of the process.
    #[error("cannot start {what}")]
    Part {
        /// The part.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Failure {
    /// The exit code.
    fn code(&self) -> u8 {
        match self {
            Self::Kvm(_) => 3,
            Self::DataDir(_) | Self::Token(_) => 4,
            Self::Keyring(KeyringError::File(_)) => 4,
            Self::State(_) | Self::Keyring(_) => 5,
            Self::Data(_) | Self::Admin { .. } | Self::Metrics { .. } => 6,
            Self::LogFilter { .. } => USAGE,
            Self::Restore(_) | Self::Traces(_) | Self::Part { .. } => 1,
        }
    }
}

/// Tells of a failure in one line on standard error; its exit code.
pub(crate) fn report(failure: &Failure) -> ExitCode {
    eprintln!("cloisterd: {}", one_line(failure));
    ExitCode::from(failure.code())
}

/// An error and its causes.
fn one_line(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_told_once() {
        let source = std::io::Error::from(std::io::ErrorKind::AddrInUse);
        let address = SocketAddr::from(([127, 0, 0, 1], 7381));
        let text = one_line(&Failure::Admin { address, source });
        assert_eq!(
            text,
            "cannot listen on 127.0.0.1:7381: choose another with --admin: address in use"
        );
    }
}
