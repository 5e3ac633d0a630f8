//! What quickstart shows: steps as they are done, then the answer and what to try next.

use std::path::Path;
use std::time::Duration;

use platform_model::{Deployment, Status, TenantName};
use sdk_client::Timing;
use serde::Serialize;

use super::QuickstartError;
use crate::doctor::{Check, State};
use crate::failure::CliError;
use crate::quantity::{duration, size};
use crate::quickstart::node::{Node, Ready};
use crate::quickstart::visit::Visit;
use crate::terminal::{Terminal, Tone};

/// All that there is to tell.
pub(super) struct Report<'a> {
    pub(super) node: &'a Node,
    pub(super) ready: &'a Ready,
    pub(super) deployment: &'a Deployment,
    pub(super) timings: &'a [Timing],
    pub(super) deployed: Duration,
    pub(super) visit: &'a Visit,
    pub(super) status: &'a Status,
    pub(super) once: bool,
}

/// What `quickstart --json` prints. Times are in milliseconds.
#[derive(Debug, Serialize)]
struct Output<'a> {
    url: &'a str,
    admin: String,
    token_file: String,
    status: u16,
    body: &'a str,
    tenant: &'a TenantName,
    app: &'a str,
    deployment: u64,
    node_pid: Option<u32>,
    worker_pid: Option<u32>,
    wasmtime: &'a str,
    node_start_ms: f64,
    deploy_ms: f64,
    steps_ms: serde_json::Map<String, serde_json::Value>,
    first_request_ms: f64,
    warm_request_ms: f64,
}

/// One step that is done.
fn step(terminal: &Terminal, name: &str, text: &str) {
    if terminal.json {
        return;
    }
    let mark = terminal.paint_err(Tone::Good, "✓");
    terminal.say(&format!("{mark} {name:<8} {text}"));
}

/// The host was looked at and will do.
pub(super) fn host(checks: &[Check], terminal: &Terminal) {
    let found = |name: &str| {
        checks
            .iter()
            .find(|check| check.name == name)
            .map(|check| check.detail.as_str())
    };
    let kvm = found("kvm").unwrap_or("KVM works");
    let memory = found("memory").unwrap_or_default();
    let warned = checks
        .iter()
        .filter(|check| check.state == State::Warn)
        .count();
    let rest = if warned == 0 {
        String::new()
    } else {
        format!(" ({warned} to know about: `cloister doctor`)")
    };
    step(terminal, "host", &format!("{kvm}, {memory}{rest}"));
}

/// The node is ready.
pub(super) fn started(node: &Node, ready: &Ready, terminal: &Terminal) {
    let pid = node
        .pid()
        .map(|pid| format!("process {pid}, "))
        .unwrap_or_default();
    let text = format!(
        "ready in {} ({pid}apps on {})",
        duration(ready.after),
        ready.endpoints.listen
    );
    step(terminal, "node", &text);
}

/// The sample app is deployed.
pub(super) fn deployed(
    deployment: &Deployment,
    timings: &[Timing],
    time: Duration,
    bytes: usize,
    terminal: &Terminal,
) {
    let steps: Vec<_> = timings
        .iter()
        .map(|timing| format!("{} {}", timing.step, duration(timing.time)))
        .collect();
    let steps = if steps.is_empty() {
        String::new()
    } else {
        format!(" ({})", steps.join(", "))
    };
    let text = format!(
        "{} deployed in {}{steps}: {}",
        deployment.app,
        duration(time),
        size(bytes as u64)
    );
    step(terminal, "deploy", &text);
}

impl Report<'_> {
    /// Prints the answer, the times and what to try next.
    pub(super) fn print(&self, terminal: &Terminal) -> Result<(), QuickstartError> {
        let printed = if terminal.json {
            terminal.print_json(&self.output())
        } else {
            terminal.print(&self.text(terminal))
        };
        printed.map_err(|error| match error {
            CliError::Output(source) => QuickstartError::Output(source),
            other => QuickstartError::Output(std::io::Error::other(other.to_string())),
        })
    }

    /// The process that holds the VM which answered.
    fn worker(&self) -> Option<u32> {
        let worker = self
            .status
            .workers
            .iter()
            .find(|worker| worker.tenant == self.deployment.tenant);
        worker.and_then(|worker| worker.pid)
    }

    /// Which VM answered, as the node itself tells it.
    fn vm(&self) -> String {
        let Deployment {
            tenant,
            app,
            deployment,
            ..
        } = self.deployment;
        let vm = self
            .status
            .vms
            .iter()
            .find(|vm| (&vm.tenant, &vm.app, &vm.deployment) == (tenant, app, deployment));
        let worker = self
            .worker()
            .map(|pid| format!(" in worker process {pid}"))
            .unwrap_or_default();
        let figures = vm.map(|vm| {
            format!(
                " It has answered {} requests with {} exits to the VMM and has {} resident.",
                vm.requests,
                vm.exits,
                size(vm.resident_bytes)
            )
        });
        format!(
            "Answered by wasmtime {} in a KVM microVM of tenant {tenant}{worker} (deployment {deployment}).{}",
            self.status.wasmtime,
            figures.unwrap_or_default()
        )
    }

    fn text(&self, terminal: &Terminal) -> String {
        let Visit {
            status,
            body,
            first,
            warm,
            count,
        } = self.visit;
        let url = &self.deployment.url;
        let mut lines = vec![
            String::new(),
            format!("GET {} → {status}", terminal.paint(Tone::Strong, url)),
            String::new(),
        ];
        lines.extend(
            body.lines()
                .map(|line| format!("    {}", terminal.paint(Tone::Good, line))),
        );
        lines.extend([String::new(), self.vm(), String::new()]);
        let mut row = |name: &str, time: Duration, note: &str| {
            lines.push(
                format!(
                    "  {name:<14} {:>9}  {}",
                    duration(time),
                    terminal.paint(Tone::Dim, note)
                )
                .trim_end()
                .to_owned(),
            );
        };
        row(
            "node start",
            self.ready.after,
            "process start until it listens",
        );
        row(
            "deploy",
            self.deployed,
            "upload, compile, boot a VM, store, switch over",
        );
        for timing in self.timings {
            row(&format!("  {}", timing.step), timing.time, "");
        }
        row(
            "first request",
            *first,
            "on a new connection, in a fresh wasm instance",
        );
        row(
            "warm request",
            *warm,
            &format!("median of {count}, each in a fresh wasm instance"),
        );
        lines.push(String::new());
        if self.once {
            lines.push("Without --once the node stays: `cloister quickstart`.".to_owned());
        } else {
            lines.extend(self.next(terminal));
        }
        lines.join("\n")
    }

    /// What to try while the node runs.
    fn next(&self, terminal: &Terminal) -> Vec<String> {
        let cloister = program();
        let token = shown(&self.node.data().join("admin-token"));
        vec![
            terminal.paint(Tone::Strong, "Try next, in another terminal:"),
            format!("  curl {}", self.deployment.url),
            format!(
                "  export CLOISTER_URL=http://{} CLOISTER_TOKEN=$(cat {token})",
                self.ready.endpoints.admin
            ),
            format!(
                "  {cloister} deploy YOUR.wasm --app mine    # any component that `wasmtime serve` runs"
            ),
            format!("  {cloister} logs mine -f"),
            format!("  {cloister} status"),
            String::new(),
            format!(
                "The node keeps its data in {}. Ctrl-C stops it.",
                shown(self.node.data())
            ),
        ]
    }

    fn output(&self) -> Output<'_> {
        let millis = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        let steps = self
            .timings
            .iter()
            .map(|timing| (timing.step.clone(), millis(timing.time).into()));
        Output {
            url: &self.deployment.url,
            admin: format!("http://{}", self.ready.endpoints.admin),
            token_file: self.node.data().join("admin-token").display().to_string(),
            status: self.visit.status,
            body: &self.visit.body,
            tenant: &self.deployment.tenant,
            app: self.deployment.app.as_str(),
            deployment: self.deployment.deployment.0,
            node_pid: self.node.pid(),
            worker_pid: self.worker(),
            wasmtime: &self.status.wasmtime,
            node_start_ms: millis(self.ready.after),
            deploy_ms: millis(self.deployed),
            steps_ms: steps.collect(),
            first_request_ms: millis(self.visit.first),
            warm_request_ms: millis(self.visit.warm),
        }
    }
}

/// A path as short as it can be said from here.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let short = path.strip_prefix(&here).unwrap_or(path);
    short.display().to_string()
}

/// How this executable is called from here.
fn program() -> String {
    std::env::current_exe().map_or_else(|_| "cloister".to_owned(), |exe| shown(&exe))
}
