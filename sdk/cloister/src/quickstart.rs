//! `quickstart`: a node, an app and an answer in one command.
//!
//! It checks the host, starts a node of its own, deploys the sample app that is in this executable, asks it for answers
//! and shows what happened and what it took. Then it waits for Ctrl-C, or, with `--once`, stops the node and ends.
//!
//! # Invariants
//! - The node never outlives this process, however this process ends: see [`role`].
//! - Nothing is waited for without an end, and a node that dies is noticed at once.

mod folder;
mod node;
mod report;
pub(crate) mod role;
mod signals;
mod visit;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use platform_model::{AppName, DeployRequest, NameError, Status, TenantName};
use sdk_client::{Client, ClientError, Deployed};

use crate::args::QuickstartArgs;
use crate::doctor::{self, Check, State};
use crate::quickstart::folder::Folder;
use crate::quickstart::node::Node;
use crate::quickstart::report::Report;
use crate::quickstart::signals::Signals;
use crate::quickstart::visit::Visit;
use crate::terminal::Terminal;

/// The sample app: a component that says hello. Its source is in `examples/rust-hello`.
const SAMPLE: &[u8] = include_bytes!("../../../examples/rust-hello/rust-hello.wasm");

/// What the sample app is deployed as.
const APP: &str = "hello";

/// Where a node listens by default: the apps, then the admin API.
const PORTS: (u16, u16) = (7380, 7381);

/// Quickstart did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QuickstartError {
    /// The host cannot run a node.
    #[error("this host cannot run a node: {}", first(.0))]
    Host(Vec<Check>),
    /// A folder or file cannot be used.
    #[error("cannot use {}", path.display())]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The node cannot be started at all.
    #[error("cannot start the node")]
    Spawn(#[source] std::io::Error),
    /// The signals cannot be listened to.
    #[error("cannot listen to signals")]
    Signal(#[source] std::io::Error),
    /// The node ended by itself.
    #[error("the node ended ({status}){}", log_says(.log))]
    Ended {
        /// How.
        status: ExitStatus,
        /// The last lines of its log.
        log: String,
    },
    /// The node does not become ready.
    #[error("the node was not ready within {} s{}", .after.as_secs(), log_says(.log))]
    NotReady {
        /// How long it was waited for.
        after: Duration,
        /// The last lines of its log.
        log: String,
    },
    /// A file that the node wrote makes no sense.
    #[error("the node wrote {}, which is not of this version", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The sample's name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The sample app was not deployed, or the node does not say how it is.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The app does not answer.
    #[error("no answer from {url}")]
    Request {
        /// The URL.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The app answers with an error.
    #[error("{url} answered {status}: {body}")]
    Answer {
        /// The URL.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of the body.
        body: String,
    },
    /// The node did not stop as it should.
    #[error("the node did not stop cleanly ({0})")]
    Unclean(String),
    /// The output cannot be written.
    #[error("cannot write the output")]
    Output(#[source] std::io::Error),
    /// It was interrupted before its end.
    #[error("interrupted: the node was stopped")]
    Interrupted,
}

/// The first check that failed, with what to do.
fn first(checks: &[Check]) -> String {
    let failed = checks.iter().find(|check| check.state == State::Fail);
    failed.map_or_else(String::new, |check| {
        let fix = check.fix.as_deref().unwrap_or("see `cloister doctor`");
        format!("{}\n  → {fix}", check.detail)
    })
}

/// The last lines of a log as the end of a message.
fn log_says(log: &str) -> String {
    if log.is_empty() {
        String::new()
    } else {
        format!("; the last of its log:\n{log}")
    }
}

/// Runs quickstart on this thread, which must be the main one.
pub(crate) async fn run(args: &QuickstartArgs, terminal: &Terminal) -> Result<(), QuickstartError> {
    let folder = Folder::open(args)?;
    let checks = doctor::host(folder.data());
    if checks.iter().any(|check| check.state == State::Fail) {
        return Err(QuickstartError::Host(checks));
    }
    report::host(&checks, terminal);
    let mut signals = Signals::new()?;
    let apps = listen(args.listen, PORTS.0, args.once);
    let admin = listen(args.admin, PORTS.1, args.once);
    let mut node = Node::spawn(&folder, apps, admin)?;
    let ended = tokio::select! {
        ended = show(&mut node, args.once, terminal) => ended,
        () = signals.next() => Err(QuickstartError::Interrupted),
    };
    let ended = match ended {
        Ok(()) if !args.once => tokio::select! {
            ended = node.ended() => Err(ended),
            () = signals.next() => Ok(()),
        },
        other => other,
    };
    let stopped = node.stop(&mut signals, terminal).await;
    ended.and(stopped)
}

/// Starts, deploys, asks and shows.
async fn show(node: &mut Node, once: bool, terminal: &Terminal) -> Result<(), QuickstartError> {
    let ready = {
        let _shown = terminal.spinner("starting the node");
        node.ready().await?
    };
    report::started(node, &ready, terminal);
    let client = Client::new(
        &format!("http://{}", ready.endpoints.admin),
        Some(&ready.token),
    )?;
    let (tenant, app) = (TenantName::default(), APP.parse::<AppName>()?);
    let began = Instant::now();
    let Deployed {
        deployment,
        timings,
    } = {
        let _shown = terminal.spinner("compiling and starting the sample app");
        let upload = client.upload_bytes(&tenant, SAMPLE.into()).await?;
        node.or_end(client.deploy(&tenant, &app, &DeployRequest::new(upload.digest)))
            .await??
    };
    let deployed = began.elapsed();
    report::deployed(&deployment, &timings, deployed, SAMPLE.len(), terminal);
    let visit = {
        let _shown = terminal.spinner("asking it");
        node.or_end(Visit::make(ready.endpoints.listen, &deployment.url))
            .await??
    };
    let status: Status = client.status().await?;
    Report {
        node,
        ready: &ready,
        deployment: &deployment,
        timings: &timings,
        deployed,
        visit: &visit,
        status: &status,
        once,
    }
    .print(terminal)
}

/// Where to listen: what was asked for, or the default, or a free port.
fn listen(wanted: Option<SocketAddr>, port: u16, once: bool) -> SocketAddr {
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let free = || !once && TcpListener::bind(default).is_ok();
    wanted.unwrap_or_else(|| {
        if free() {
            default
        } else {
            SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(listen(None, address.port(), false).port(), 0);
        assert_eq!(listen(Some(address), 1, true), address);
        assert_eq!(listen(None, address.port(), true).port(), 0);
        drop(taken);
        assert_eq!(listen(None, address.port(), false), address);
    }

    #[test]
    fn the_sample_is_a_component() {
        assert!(
            SAMPLE.starts_with(b"\0asm\x0d\0\x01\0"),
            "its header is that of a component"
        );
        assert!(APP.parse::<AppName>().is_ok());
    }

    #[test]
    fn what_blocks_is_told_with_its_fix() {
        let check = Check {
            name: "kvm",
            state: State::Fail,
            detail: "no KVM".to_owned(),
            fix: Some("load it".to_owned()),
        };
        let error = QuickstartError::Host(vec![check]).to_string();
        assert_eq!(error, "this host cannot run a node: no KVM\n  → load it");
    }
}
