//! Many VMs at once: each is an app's own, each has answered a request, all of them answer again at the end.
//!
//! Memory is the whole machine's: what is available before the node starts, less what is available while all VMs live.
//! The sizes of the node's processes are beside it, which have not what the kernel keeps for a VM.

use std::time::Instant;

use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use crate::bench::{Bench, Component};
use crate::chart::Chart;
use crate::figures::median;
use crate::memory::{self, MIB};
use crate::report::{Outcome, number};
use crate::servers::ask;
use crate::servers::cloister::Node;

/// VMs.
const VMS: usize = 2000;
/// Apps of a tenant, whose VMs are in one process.
const APPS: usize = 100;
/// Deploys, or requests, at once.
const AT_ONCE: usize = 8;

/// One of many apps: tenant and name.
#[derive(Debug, Clone)]
pub(super) struct App {
    tenant: String,
    name: String,
}

impl App {
    /// So many, spread over tenants.
    pub(super) fn many(count: usize) -> Vec<Self> {
        let app = |n: usize| App {
            tenant: format!("tenant-{}", n / APPS),
            name: format!("app-{}", n % APPS),
        };
        (0..count).map(app).collect()
    }

    /// The host that its requests name.
    pub(super) fn host(&self) -> String {
        format!("{}.{}.localhost", self.name, self.tenant)
    }
}

/// Deploys the component as each of these apps, `scale` as the API has it.
pub(super) async fn deploy(
    node: &Node,
    apps: &[App],
    component: &Component,
    scale: &serde_json::Value,
) -> Result<()> {
    for of_tenant in apps.chunk_by(|a, b| a.tenant == b.tenant) {
        let Some(App { tenant, .. }) = of_tenant.first() else {
            continue;
        };
        node.tenant(tenant).await?;
        let digest = node.upload(tenant, component).await?;
        let more = json!({ "scale": scale });
        let deploys = stream::iter(of_tenant)
            .map(async |app| node.deploy(tenant, &app.name, &digest, &more).await);
        deploys
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;
    }
    Ok(())
}

/// Asks each of the apps once; times in milliseconds of those that answered 200, and what went wrong with the others.
pub(super) async fn ask_each(node: &Node, apps: &[App], at_once: usize) -> (Vec<f64>, Vec<String>) {
    let asked = stream::iter(apps).map(async |app| {
        let begin = Instant::now();
        match ask(node.listen, &app.host(), "/").await {
            Ok(answer) if answer.status == 200 => Ok(begin.elapsed().as_secs_f64() * 1000.0),
            Ok(answer) => Err(format!(
                "{}: {} {}",
                app.host(),
                answer.status,
                String::from_utf8_lossy(&answer.body)
            )),
            Err(error) => Err(format!("{}: {error:#}", app.host())),
        }
    });
    let (mut times, mut wrong) = (Vec::new(), Vec::new());
    for answer in asked.buffer_unordered(at_once).collect::<Vec<_>>().await {
        match answer {
            Ok(time) => times.push(time),
            Err(what) => wrong.push(what),
        }
    }
    (times, wrong)
}

/// Measures.
pub(super) async fn run(bench: &Bench) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let Some(component) = bench.component("rust-hello", &mut outcome)? else {
        return Ok(outcome);
    };
    let apps = App::many(bench.count(VMS, 8));
    let before = memory::available()?;
    let node = Node::start(bench)?;
    let mut grown = vec![(0.0, taken(before)?)];
    let mut wrong = Vec::new();
    let begin = Instant::now();
    // A deploy has its VM ready, and one at least stays; the guest runs when the first request comes.
    for (n, some) in apps.chunks(apps.len().div_ceil(10)).enumerate() {
        let deployed = deploy(&node, some, &component, &json!({"min": 1, "max": 1})).await;
        deployed.with_context(|| {
            format!(
                "after {} VMs; the node says: {}",
                n * some.len(),
                last_words(&node)
            )
        })?;
        let (_, failed) = ask_each(&node, some, AT_ONCE).await;
        wrong.extend(failed);
        let so_far = grown.last().map_or(0.0, |(vms, _)| *vms) + some.len() as f64;
        grown.push((so_far, taken(before)?));
        eprintln!("  {so_far} VMs, {:.0} MiB", taken(before)?);
    }
    let took = begin.elapsed().as_secs_f64();
    let ready = node
        .vms()
        .await?
        .iter()
        .filter(|vm| vm["state"] == "ready")
        .count();
    let machine = taken(before)?;
    let processes = memory::of_family(node.pid())? as f64 / MIB;
    let (daemon, descriptors) = (
        memory::resident(node.pid())? as f64 / MIB,
        memory::most_descriptors(node.pid())? as f64,
    );
    let (times, failed) = ask_each(&node, &apps, AT_ONCE).await;
    wrong.extend(failed);

    let vms = apps.len() as f64;
    let row = |what: &str, value: f64| vec![what.to_owned(), number(value)];
    let rows = vec![
        row("VMs that live", ready as f64),
        row("deploys and first answers, s", took),
        row("memory of the machine, MiB", machine),
        row("memory of the machine for each, MiB", machine / vms),
        row("memory of the processes for each, MiB", processes / vms),
        row("memory of the daemon, MiB", daemon),
        row("most descriptors of a process", descriptors),
        row("last answer of all, p50, ms", median(times.iter().copied())),
    ];
    outcome.table(&format!("{} VMs at once", apps.len()), &["", ""], rows);
    outcome.must("VMs that live at once", ready, ready == apps.len());
    let first = wrong.first().cloned().unwrap_or_else(|| "none".to_owned());
    outcome.must(
        "wrong answers",
        format!("{}: {first}", wrong.len()),
        wrong.is_empty(),
    );
    outcome.at_most("memory of the machine for each VM, MiB", 1.0, machine / vms);
    outcome.figure("vms", apps.len().into());
    outcome.figure("machine_mib", machine.into());
    outcome.figure("processes_mib", processes.into());
    outcome.figure("daemon_mib", daemon.into());
    outcome.figure("growth", json!(grown));
    let title = "Memory of the machine against live VMs";
    outcome.charts.push(Chart::numbers(
        "density",
        title,
        ("VMs", "MiB"),
        [("cloister".to_owned(), grown)],
    ));
    Ok(outcome)
}

/// What is not available any more, in MiB.
fn taken(before: u64) -> Result<f64> {
    Ok((before as f64 - memory::available()? as f64) / MIB)
}

/// The end of the node's own log.
pub(super) fn last_words(node: &Node) -> String {
    let said = node.said();
    let lines: Vec<&str> = said.lines().rev().take(3).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}
