//! What can be typed.

pub(crate) mod access;
pub(crate) mod hosts;
pub(crate) mod limits;
pub(crate) mod policy;
pub(crate) mod release;
pub(crate) mod scale;
pub(crate) mod settings;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use platform_model::{
    AllowHost, AppName, DeploymentId, EnvError, EnvVar, Isolation, LogStreams, LogTime, TenantName,
};

use crate::args::access::{AuditArgs, TenantCommand, TokenCommand};
use crate::args::hosts::{DomainCommand, RouteCommand};
use crate::args::limits::LimitArgs;
use crate::args::policy::AppPolicyArgs;
use crate::args::release::{
    CanaryArgs, HistoryArgs, PromoteArgs, ReleaseArgs, RollbackArgs, SplitArgs,
};
use crate::args::scale::ScaleArgs;
use crate::args::settings::{ConfigCommand, SecretCommand};
use crate::failure::exit;
use crate::terminal::Color;

/// Deploy wasi:http components to a Cloister node, and see what they do.
#[derive(Debug, Parser)]
#[command(name = "cloister", version, propagate_version = true, after_help = exit::HELP)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The admin address of the node
    #[arg(
        long,
        global = true,
        env = "CLOISTER_URL",
        default_value = "http://127.0.0.1:7381"
    )]
    #[arg(value_name = "URL", help_heading = "Node", hide_default_value = false)]
    pub(crate) url: String,
    /// A file with a token, such as the node's DIR/admin-token [or the token itself in CLOISTER_TOKEN, or that of `login`]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Node")]
    pub(crate) token_file: Option<PathBuf>,
    /// Print JSON; errors are JSON on standard error
    #[arg(long, global = true, help_heading = "Output")]
    pub(crate) json: bool,
    /// When to colour; NO_COLOR counts too
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    #[arg(
        value_name = "WHEN",
        help_heading = "Output",
        hide_possible_values = true
    )]
    #[arg(
        long_help = "When to colour: auto (on a terminal, unless NO_COLOR is set), always, never"
    )]
    pub(crate) color: Color,
}

/// One command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a node here, deploy a sample app to it and ask it for an answer
    Quickstart(QuickstartArgs),
    /// Make a folder with an app that can be deployed
    New(NewArgs),
    /// Write a manifest, cloister.toml, for a component that is there
    Init(InitArgs),
    /// Show what a deploy of the manifest would change
    Diff(DiffArgs),
    /// Deploy a component, or the apps of the manifest: upload, compile, start, switch over
    Deploy(Box<DeployArgs>),
    /// List the apps
    Apps(AppsArgs),
    /// Print the URL of an app, and open it in a browser
    Open(OpenArgs),
    /// List the deployments of an app
    Deployments(AppArgs),
    /// Let an older deployment answer again, or give up the canary that is under way
    Rollback(RollbackArgs),
    /// Let one deployment answer all requests of an app
    Promote(PromoteArgs),
    /// Share the requests of an app among deployments, or show how they are shared
    Split(SplitArgs),
    /// Show how the canary of an app does, or give it up
    Canary(CanaryArgs),
    /// Show who answered when, by whom and why
    History(HistoryArgs),
    /// Show or change what an app may take at the router, and how many of its deployments are kept
    Policy(AppPolicyArgs),
    /// Print what an app wrote to its standard output and error, and the requests that it answered
    Logs(LogsArgs),
    /// Delete an app with all its deployments, or one deployment
    Delete(DeleteArgs),
    /// Set, list and take out variables that every deployment of an app sees
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Set, list, rotate and take away secrets: variables whose values are not shown again
    #[command(subcommand)]
    Secret(SecretCommand),
    /// List, set, add and remove routes: the hosts and paths that lead to an app
    #[command(subcommand)]
    Route(RouteCommand),
    /// Add, prove, list and remove domains, and give them certificates
    #[command(subcommand)]
    Domain(DomainCommand),
    /// List the tenants
    Tenants,
    /// Create, list and delete tenants, and set what they may have
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// Make, list and revoke tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Keep a token for the node, read from standard input, --token-file or CLOISTER_TOKEN
    Login,
    /// Forget the token for the node that `login` has kept
    Logout,
    /// Show whose token is used, and what it may
    Whoami,
    /// Show who changed what, from where, and what came of it
    Audit(AuditArgs),
    /// Show what the node is doing: its VMs and workers
    Status,
    /// Print what the node counts, as Prometheus reads it
    Metrics,
    /// Check whether this host can run a node, or whether the data of one is as it should be
    Doctor(DoctorArgs),
    /// Write a page for man(1) for each command
    #[command(after_help = "Example: cloister man ~/.local/share/man/man1")]
    Man {
        /// Where they are put
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Print completions for a shell
    #[command(
        after_help = "Example: cloister completions bash > ~/.local/share/bash-completion/completions/cloister"
    )]
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// An app of a tenant.
#[derive(Debug, Args)]
pub(crate) struct AppArgs {
    /// The app's name
    pub(crate) app: AppName,
    /// The tenant that the app belongs to
    #[arg(long, short, default_value_t)]
    pub(crate) tenant: TenantName,
}

/// `delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    pub(crate) app: AppArgs,
    /// Only this deployment, which must not answer for the app
    #[arg(long, short, value_name = "N")]
    pub(crate) deployment: Option<DeploymentId>,
}

/// `apps`.
#[derive(Debug, Args)]
pub(crate) struct AppsArgs {
    /// Only those of one tenant
    #[arg(long, short)]
    pub(crate) tenant: Option<TenantName>,
}

/// `open`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples: cloister open shop\n          cloister open --print    # the app of ./cloister.toml"
)]
pub(crate) struct OpenArgs {
    /// The app's name [default: that of the only app in the manifest]
    pub(crate) app: Option<AppName>,
    /// The tenant that the app belongs to [default: that of the manifest, or default]
    #[arg(long, short)]
    pub(crate) tenant: Option<TenantName>,
    /// Only print it
    #[arg(long, short)]
    pub(crate) print: bool,
    #[command(flatten)]
    pub(crate) manifest: ManifestArgs,
}

/// `logs`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: cloister logs shop --follow --since 10m --grep 'timeout|refused' --stream stderr,system"
)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    pub(crate) app: AppArgs,
    /// Go on with what is written from now on
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only the last N of the lines that are there
    #[arg(long, short = 'n', value_name = "N")]
    pub(crate) tail: Option<u64>,
    /// Only lines since a time of RFC 3339, or since 90s, 15m, 2h or 7d ago
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<LogTime>,
    /// Only lines before a time, given in the same way
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<LogTime>,
    /// Only lines in which this regular expression has a match
    #[arg(long, short, value_name = "PATTERN")]
    pub(crate) grep: Option<String>,
    /// Only lines of one request: the x-request-id of its answer. All streams, unless told otherwise
    #[arg(long, value_name = "ID")]
    pub(crate) request: Option<String>,
    /// Only lines of these streams: stdout, stderr, system, access [default: all but access]
    #[arg(long, value_name = "STREAM[,STREAM]")]
    pub(crate) stream: Option<LogStreams>,
    /// Only lines of one deployment
    #[arg(long, short, value_name = "N")]
    pub(crate) deployment: Option<DeploymentId>,
    /// Print time, deployment, stream and request before each line
    #[arg(long, short = 'T')]
    pub(crate) timestamps: bool,
}

/// `deploy`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples: cloister deploy hello.wasm --app hello --env GREETING=Hi --allow-host api.example.com:443\n          \
                  cloister deploy        # the apps of ./cloister.toml"
)]
pub(crate) struct DeployArgs {
    /// The component: a file that `wasmtime serve` would take. Without one the apps of the manifest are deployed
    #[arg(value_name = "X.wasm", requires = "app")]
    pub(crate) component: Option<PathBuf>,
    /// The app that it is deployed as; it becomes a part of its host name. Of a manifest only this app
    #[arg(long, short, value_name = "NAME")]
    pub(crate) app: Option<AppName>,
    /// The tenant that the app belongs to; created where it does not exist [default: that of the manifest, or default]
    #[arg(long, short)]
    pub(crate) tenant: Option<TenantName>,
    #[command(flatten)]
    pub(crate) manifest: ManifestArgs,
    /// Do not run the commands of the manifest that build components
    #[arg(long, conflicts_with = "component", help_heading = "Manifest")]
    pub(crate) no_build: bool,
    /// A variable that the component sees; without =VALUE the value is that of this environment
    #[arg(long, short, value_name = "NAME[=VALUE]", value_parser = variable, requires = "component")]
    pub(crate) env: Vec<EnvVar>,
    /// A host that the component may call; without a port every port of it. None by default
    #[arg(long, value_name = "HOST[:PORT]", requires = "component")]
    pub(crate) allow_host: Vec<AllowHost>,
    /// How much requests are kept apart: instance (a fresh instance each), vm (a VM that is put back to what it was after
    /// each; vm:N after N), reuse (an instance has several; reuse:N, reuse:N,Ts)
    #[arg(long, value_name = "MODE", default_value_t, help_heading = "Isolation")]
    pub(crate) isolation: Isolation,
    #[command(flatten)]
    pub(crate) release: ReleaseArgs,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    pub(crate) scale: ScaleArgs,
}

/// The manifest.
#[derive(Debug, Args)]
#[command(next_help_heading = "Manifest")]
pub(crate) struct ManifestArgs {
    /// The manifest
    #[arg(long, value_name = "FILE", default_value = crate::manifest::FILE)]
    pub(crate) manifest: PathBuf,
}

/// `diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    pub(crate) manifest: ManifestArgs,
    /// Only this app
    #[arg(long, short, value_name = "NAME")]
    pub(crate) app: Option<AppName>,
    /// The tenant that the apps belong to [default: that of the manifest]
    #[arg(long, short)]
    pub(crate) tenant: Option<TenantName>,
}

/// What a new app begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Template {
    /// A crate in Rust with a script that builds it.
    Rust,
    /// A component that is built already.
    Hello,
}

/// `new`.
#[derive(Debug, Args)]
#[command(after_help = "Example: cloister new shop && cd shop && cloister deploy")]
pub(crate) struct NewArgs {
    /// The app's name, and that of the folder that is made
    pub(crate) app: AppName,
    /// What it begins with: a crate in Rust, or a component that is built already
    #[arg(long, value_enum, default_value_t = Template::Rust)]
    pub(crate) template: Template,
}

/// `init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The component: the file that is to be deployed
    #[arg(value_name = "X.wasm")]
    pub(crate) component: PathBuf,
    /// The app's name
    #[arg(long, short, value_name = "NAME")]
    pub(crate) app: AppName,
    /// A command for `sh` that makes the component
    #[arg(long, value_name = "COMMAND")]
    pub(crate) build: Option<String>,
}

/// `quickstart`.
#[derive(Debug, Args)]
pub(crate) struct QuickstartArgs {
    /// Stop the node after the answer and remove what it made
    #[arg(long)]
    pub(crate) once: bool,
    /// Where the node keeps its data [default: ./.cloister/quickstart; with --once a temporary folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Where the apps are served [default: 127.0.0.1:7380; with --once, or where that is taken, a free port]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Where the admin API is [default: 127.0.0.1:7381; with --once, or where that is taken, a free port]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) admin: Option<SocketAddr>,
}

/// `doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// The folder where a node would keep its data, or has it
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) data: PathBuf,
    /// Check the data of a node that does not run, instead of the host: every record, component and sealed value
    #[arg(long)]
    pub(crate) store: bool,
}

/// Reads `NAME=VALUE`, or `NAME` for a variable of this process.
fn variable(text: &str) -> Result<EnvVar, EnvError> {
    match text.parse() {
        Err(EnvError::NoEquals(_)) => {}
        other => return other,
    }
    match std::env::var(text) {
        Ok(value) => format!("{text}={value}").parse(),
        Err(_) => Err(EnvError::NoEquals(text.chars().take(80).collect())),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    fn deploy(line: &str) -> DeployArgs {
        match parse(line).unwrap().command {
            Command::Deploy(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_holds() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_stand_anywhere() {
        for line in [
            "cloister --url http://n:1 --token-file t --json deploy x.wasm --app a",
            "cloister deploy x.wasm --app a --json --url http://n:1 --token-file t",
        ] {
            let cli = parse(line).unwrap();
            assert!(cli.global.json, "{line}");
            assert_eq!(cli.global.url, "http://n:1");
            assert_eq!(cli.global.token_file, Some("t".into()));
        }
    }

    #[test]
    fn a_deploy_with_everything() {
        let args = deploy(
            "cloister deploy x.wasm --app shop --tenant acme --env A=b=c --env B= --allow-host example.com:443 \
             --allow-host 10.0.0.1 --memory 64MiB --cpu-ms 500 --wall 30s --scratch 1MiB",
        );
        assert_eq!(args.app, "shop".parse().ok());
        assert_eq!(args.tenant, "acme".parse().ok());
        assert_eq!(
            (args.env[0].name.as_str(), args.env[0].value.as_str()),
            ("A", "b=c")
        );
        assert_eq!(args.env[1].value, "");
        assert_eq!(args.allow_host.len(), 2);
        let limits = args.limits.limits();
        assert_eq!((limits.memory_bytes, limits.cpu_ms), (64 << 20, 500));
        assert_eq!((limits.wall_ms, limits.scratch_bytes), (30_000, 1 << 20));
        assert_eq!(limits.concurrency, 128);
    }

    #[test]
    fn a_deploy_with_little() {
        let args = deploy("cloister deploy x.wasm --app a");
        assert_eq!(args.tenant, None);
        assert_eq!(args.limits.limits(), platform_model::Limits::default());
    }

    #[test]
    fn mistakes_are_told_before_anything_is_sent() {
        for (line, what) in [
            ("cloister deploy x.wasm", "--app"),
            ("cloister deploy --app a --env A=b", "X.wasm"),
            ("cloister deploy x.wasm --app ../etc", "a-z, 0-9"),
            ("cloister deploy x.wasm --app a --tenant Acme", "a-z, 0-9"),
            (
                "cloister deploy x.wasm --app a --env NO_SUCH_VARIABLE_HERE",
                "NAME=VALUE",
            ),
            (
                "cloister deploy x.wasm --app a --allow-host http://x",
                "HOST:PORT",
            ),
            ("cloister deploy x.wasm --app a --memory lots", "256MiB"),
            ("cloister logs", "APP"),
            ("cloister logs a --tail some", "some"),
            ("cloister logs a --since yesterday", "15m"),
            ("cloister logs a --stream out", "stderr"),
            ("cloister apps --color blue", "blue"),
            ("cloister quickstart --listen here", "here"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.to_string().contains(what), "{line}: {error}");
            assert_eq!(error.exit_code(), i32::from(exit::USAGE), "{line}");
        }
    }

    #[test]
    fn help_is_no_error_and_has_the_exit_codes() {
        let error = parse("cloister --help").unwrap_err();
        assert_eq!(
            (error.kind(), error.exit_code()),
            (ErrorKind::DisplayHelp, 0)
        );
        assert!(error.to_string().contains("Exit codes:"), "{error}");
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
        }
    }

    #[test]
    fn variables_come_from_the_environment_too() {
        let path = variable("PATH").unwrap();
        assert_eq!(Some(path.value), std::env::var("PATH").ok());
        assert!(matches!(variable("=x"), Err(EnvError::Name(_))));
    }
}
