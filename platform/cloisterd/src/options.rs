//! The daemon's command line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use crate::failure;

/// How the node's own log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Runs a Cloister node: serves WebAssembly components over HTTP, each tenant's in microVMs of its own.
#[derive(Debug, Clone, Parser)]
#[command(name = "cloisterd", version, after_help = failure::EXIT_CODES)]
pub struct Options {
    /// Folder for all that the node keeps; created where it is not there
    #[arg(long, value_name = "DIR", env = "CLOISTER_DATA")]
    pub data: PathBuf,
    /// Address that serves the apps; port 0 picks a free one
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:7380")]
    pub listen: SocketAddr,
    /// Address that serves the apps over TLS, with the certificates of their domains; none by default, port 0 picks a
    /// free one
    #[arg(long, value_name = "IP:PORT")]
    pub listen_tls: Option<SocketAddr>,
    /// Address of the admin API; port 0 picks a free one
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:7381")]
    pub admin: SocketAddr,
    /// Requests that one token may make in a second to the admin API; 0 for as many as come
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub api_rate: u32,
    /// How the node's own log is written to standard error; CLOISTER_LOG sets what is (default: info)
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub log_format: LogFormat,
}

/// Reads the command line; the first argument is the executable's name.
///
/// # Errors
/// The exit code, where there is nothing to run: help and version were printed, or what is wrong.
pub fn read(args: impl IntoIterator<Item = OsString>) -> Result<Options, ExitCode> {
    Options::try_parse_from(args).map_err(|error| {
        // Where nothing can be printed there is nobody to be told.
        let _ = error.print();
        if error.use_stderr() {
            ExitCode::from(failure::USAGE)
        } else {
            ExitCode::SUCCESS
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options, ExitCode> {
        read(text.split(' ').map(OsString::from))
    }

    #[test]
    fn only_the_folder_is_needed() {
        let options = parse("cloisterd --data /var/lib/cloister").unwrap();
        assert_eq!(options.listen.to_string(), "127.0.0.1:7380");
        assert_eq!(options.admin.to_string(), "127.0.0.1:7381");
        assert_eq!(options.listen_tls, None);
        assert!(parse("cloisterd --data /x --listen nowhere").is_err());
    }
}
