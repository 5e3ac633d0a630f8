//! The daemon's command line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use http::Uri;

use crate::failure;

/// How the node's own log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Where requests are told of when they have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// In the log of their app, as the stream access.
    App,
    /// On standard output, one JSON object a line.
    Stdout,
    /// Both.
    Both,
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
    /// URL of the directory of a certificate authority (ACME) that certificates of domains are obtained from
    /// [default: none are obtained; Let's Encrypt has <https://acme-v02.api.letsencrypt.org/directory>]
    #[arg(long, value_name = "URL", value_parser = directory, env = "CLOISTER_ACME_DIRECTORY")]
    pub acme_directory: Option<Uri>,
    /// Address of mail that the certificate authority may write to
    #[arg(
        long,
        value_name = "MAIL",
        env = "CLOISTER_ACME_CONTACT",
        requires = "acme_directory"
    )]
    pub acme_contact: Option<String>,
    /// PEM file with certificates that the server of the directory is trusted by, besides those of public authorities
    #[arg(
        long,
        value_name = "FILE",
        env = "CLOISTER_ACME_CA",
        requires = "acme_directory"
    )]
    pub acme_ca: Option<PathBuf>,
    /// Name server that is asked for proofs of domains [default: those of the system]
    #[arg(long, value_name = "IP:PORT", env = "CLOISTER_DOMAIN_RESOLVER")]
    pub domain_resolver: Option<SocketAddr>,
    /// Ask domains for a proof over HTTP at private addresses too: tenants can then have the node ask port 80 of hosts of
    /// its own network
    #[arg(long, env = "CLOISTER_DOMAIN_PRIVATE")]
    pub domain_private: bool,
    /// Address of the admin API; port 0 picks a free one
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:7381")]
    pub admin: SocketAddr,
    /// Requests that one token may make in a second to the admin API; 0 for no limits, not on wrong tokens either
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub api_rate: u32,
    /// Connections to the admin API at a time, and as many to --metrics; where all are taken, those that have stood for
    /// longest make room
    #[arg(long, value_name = "N", default_value = "1024")]
    pub admin_connections: NonZeroUsize,
    /// How the node's own log is written to standard error
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "human",
        env = "CLOISTER_LOG_FORMAT"
    )]
    pub log_format: LogFormat,
    /// What the node's own log has: a level, or several for its parts such as info,platform_data=debug
    #[arg(
        long,
        value_name = "FILTER",
        default_value = "info",
        env = "CLOISTER_LOG"
    )]
    pub log: String,
    /// Where requests are told of when they have ended, at most 1000 a second of a deployment
    #[arg(
        long,
        value_name = "WHERE",
        default_value = "app",
        env = "CLOISTER_ACCESS_LOG"
    )]
    pub access_log: AccessLog,
    /// Address of a listener that serves just /metrics and wants no token [default: none; the admin API has /metrics]
    #[arg(long, value_name = "IP:PORT", env = "CLOISTER_METRICS")]
    pub metrics: Option<SocketAddr>,
    /// Apps that have metrics of their own; those beyond are shown as one
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1000,
        env = "CLOISTER_METRICS_APPS"
    )]
    pub metrics_apps: usize,
    /// Base URL of a collector that takes traces by OTLP over HTTP [default: requests are not traced]
    #[arg(long, value_name = "URL", value_parser = collector, env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<Uri>,
    /// Share of requests that are traced, from 0 to 1
    #[arg(long, value_name = "RATIO", default_value_t = 1.0, value_parser = ratio)]
    pub trace_ratio: f64,
}

/// Reads the URL of a collector.
fn collector(text: &str) -> Result<Uri, &'static str> {
    let uri = text.parse::<Uri>().ok();
    let usable = |uri: &Uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some()
            && uri.query().is_none()
    };
    uri.filter(usable)
        .ok_or("give the base URL of an OTLP receiver, such as http://127.0.0.1:4318")
}

/// Reads the URL of a directory, which is fetched over TLS only.
fn directory(text: &str) -> Result<Uri, &'static str> {
    let uri = text.parse::<Uri>().ok();
    let usable = |uri: &Uri| uri.scheme_str() == Some("https") && uri.host().is_some();
    uri.filter(usable).ok_or(
        "give the https URL of a directory, such as https://acme-v02.api.letsencrypt.org/directory",
    )
}

/// Reads a share.
fn ratio(text: &str) -> Result<f64, &'static str> {
    let ratio = text.parse().ok();
    ratio
        .filter(|ratio| (0.0..=1.0).contains(ratio))
        .ok_or("give a number from 0 to 1, such as 0.01")
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
        assert_eq!(options.access_log, AccessLog::App);
        assert!(options.metrics.is_none() && options.otlp_endpoint.is_none());
        assert_eq!(options.listen_tls, None);
        assert_eq!(options.admin_connections.get(), 1024);
        assert!(parse("cloisterd --data /x --admin-connections 0").is_err());
        assert!(parse("cloisterd --data /x --listen nowhere").is_err());
    }

    #[test]
    fn traces_have_a_collector_and_a_share() {
        let line = "cloisterd --data /x --otlp-endpoint http://c:4318 --trace-ratio 0.25";
        let options = parse(line).unwrap();
        assert_eq!(options.otlp_endpoint.unwrap().host(), Some("c"));
        assert!((options.trace_ratio - 0.25).abs() < f64::EPSILON);
        for wrong in [
            "--otlp-endpoint c:4318",
            "--otlp-endpoint ftp://c/",
            "--otlp-endpoint http://c/?x",
            "--trace-ratio 2",
            "--trace-ratio NaN",
            "--acme-directory http://ca.example/directory",
            "--acme-contact a@b.example",
            "--domain-resolver ns.example",
            "--log-format xml",
            "--access-log maybe",
        ] {
            assert!(
                parse(&format!("cloisterd --data /x {wrong}")).is_err(),
                "{wrong}"
            );
        }
    }
}
