//! Many deployments that are scaled to zero: what they cost while they sleep, and how long any of them takes to wake.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cloister_tests::dice::Dice;
use serde_json::json;

use super::density::{App, ask_each, deploy, last_words};
use crate::bench::Bench;
use crate::chart::Chart;
use crate::figures::percentile;
use crate::memory::{self, MIB};
use crate::report::{Outcome, number};
use crate::servers::cloister::Node;

/// Deployments.
const DEPLOYMENTS: usize = 10_000;
/// How many of them are woken.
const WOKEN: usize = 500;
/// How long all of them may take to scale to zero.
const ASLEEP: Duration = Duration::from_secs(120);

/// Measures.
pub(super) async fn run(bench: &Bench) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let Some(component) = bench.component("rust-hello", &mut outcome)? else {
        return Ok(outcome);
    };
    let apps = App::many(bench.count(DEPLOYMENTS, 20));
    let node = Node::start(bench)?;
    let begin = Instant::now();
    for (n, some) in apps.chunks(apps.len().div_ceil(10)).enumerate() {
        let deployed = deploy(&node, some, &component, &json!({"idle_ms": 0})).await;
        deployed.with_context(|| {
            format!(
                "after {}; the node says: {}",
                n * some.len(),
                last_words(&node)
            )
        })?;
        eprintln!(
            "  {} deployments, {:.0} s",
            n * some.len() + some.len(),
            begin.elapsed().as_secs_f64()
        );
    }
    let deploys = begin.elapsed().as_secs_f64();
    node.sleeps(ASLEEP).await?;
    let asleep = Sizes::of(&node)?;

    let mut dice = Dice::seeded(2_026);
    let mut chosen = BTreeSet::new();
    while chosen.len() < WOKEN.min(apps.len() / 2) {
        chosen.insert(dice.roll(apps.len() as u64) as usize);
    }
    let chosen: Vec<App> = chosen.into_iter().map(|n| apps[n].clone()).collect();
    let (times, wrong) = ask_each(&node, &chosen, 1).await;
    node.sleeps(ASLEEP).await?;
    let after = Sizes::of(&node)?;

    let row = |what: &str, value: f64| vec![what.to_owned(), number(value)];
    let rows = vec![
        row("deploys a second", apps.len() as f64 / deploys),
        row("memory of the daemon, MiB", asleep.daemon),
        row("memory of all processes, MiB", asleep.all),
        row("processes", asleep.processes),
        row("memory of the daemon after the waking, MiB", after.daemon),
        row("woken", times.len() as f64),
        row("to the answer, p50, ms", percentile(&times, 50.0)),
        row("to the answer, p99, ms", percentile(&times, 99.0)),
    ];
    outcome.table(
        &format!("{} deployments scaled to zero", apps.len()),
        &["", ""],
        rows,
    );
    let first = wrong.first().cloned().unwrap_or_else(|| "none".to_owned());
    outcome.must(
        "wrong answers",
        format!("{}: {first}", wrong.len()),
        wrong.is_empty(),
    );
    outcome.at_most("memory of the daemon, MiB", 600.0, asleep.daemon);
    outcome.at_most("waking, p50, ms", 3.0, percentile(&times, 50.0));
    outcome.at_most("waking, p99, ms", 8.0, percentile(&times, 99.0));
    outcome.figure("deployments", apps.len().into());
    outcome.figure("deploys_s", deploys.into());
    outcome.figure("daemon_mib", asleep.daemon.into());
    outcome.figure("all_processes_mib", asleep.all.into());
    outcome.figure("daemon_after_mib", after.daemon.into());
    outcome.figure("waking_ms", times.clone().into());
    let title = format!("Waking one of {} deployments", apps.len());
    outcome.charts.push(Chart::distribution(
        "sleeping",
        &title,
        "ms",
        [("rust-hello".to_owned(), times)],
    ));
    Ok(outcome)
}

/// What the node's processes have of memory, in MiB.
struct Sizes {
    daemon: f64,
    all: f64,
    processes: f64,
}

impl Sizes {
    fn of(node: &Node) -> Result<Self> {
        Ok(Self {
            daemon: memory::resident(node.pid())? as f64 / MIB,
            all: memory::of_family(node.pid())? as f64 / MIB,
            processes: memory::family(node.pid()).len() as f64,
        })
    }
}
