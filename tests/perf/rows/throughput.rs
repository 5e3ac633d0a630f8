//! `rust-hello` with many connections: Cloister, `wasmtime serve` as it comes and tuned, hyper with nothing behind it.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::bench::Bench;
use crate::chart::Chart;
use crate::compare::{self, Load, Series, take_turns};
use crate::memory::MIB;
use crate::report::{Outcome, number};
use crate::servers::cloister::Node;
use crate::servers::{Server, all_answer, hyper, wasmtime};
use crate::wrk::Wrk;

/// Connections of the main comparison.
const MANY: u32 = 64;
/// Connections of the chart.
const SWEEP: [u32; 5] = [1, 8, 16, MANY, 256];

/// The names of the servers in reports.
pub(super) const PLAIN: &str = "wasmtime serve";
pub(super) const TUNED: &str = "wasmtime tuned";
pub(super) const HYPER: &str = "bare hyper";

/// Cloister and the others, all of which say the same.
pub(super) async fn servers(
    bench: &Bench,
    outcome: &mut Outcome,
) -> Result<Option<(Wrk, Vec<Server>)>> {
    let wrk = bench.wrk(outcome)?;
    let component = bench.component("rust-hello", outcome)?;
    let (Some(wrk), Some(component)) = (wrk, component) else {
        return Ok(None);
    };
    let node = Node::start(bench)?;
    let mut servers = vec![node.app("rust-hello", &component, json!({})).await?];
    let compiled = bench.optional(PLAIN, wasmtime::Compiled::new(&component), outcome)?;
    if let Some(compiled) = compiled {
        servers.push(compiled.serve(&[])?);
        servers.push(compiled.serve(&wasmtime::TUNED)?.named(TUNED));
    }
    // The bare server says what the component says, so that all send the same bytes.
    let answer = servers[0].answer("/").await?;
    servers.push(hyper::start(&answer)?);
    all_answer(&servers, "/").await?;
    Ok(Some((wrk, servers)))
}

/// The series of a server.
pub(super) fn of<'s>(all: &'s [Series], name: &str) -> Option<&'s Series> {
    all.iter().find(|series| series.name == name)
}

/// Measures.
pub(super) async fn run(bench: &Bench) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let Some((wrk, servers)) = servers(bench, &mut outcome).await? else {
        return Ok(outcome);
    };
    let idle = memory(&servers)?;
    let mut load = Load {
        path: "/",
        connections: MANY,
        time: bench.time(5),
    };
    let many = take_turns(&wrk, &servers, load, bench.rounds).await?;
    let loaded = memory(&servers)?;
    compare::report(
        &mut outcome,
        "connections_64",
        "rust-hello, 64 connections",
        &many,
    );
    let rows = servers.iter().zip(idle.iter().zip(&loaded));
    let rows = rows
        .map(|(server, (idle, loaded))| vec![server.name.clone(), number(*idle), number(*loaded)]);
    outcome.table(
        "memory of all processes, MiB",
        &["", "idle", "after the load"],
        rows.collect(),
    );
    outcome.figure("memory_idle_mib", idle.into());
    outcome.figure("memory_loaded_mib", loaded.into());
    judge(&mut outcome, &many);

    // The chart: fewer and shorter rounds, as no ratio hangs on it.
    load.time = load.time.min(Duration::from_secs(2));
    let mut lines: Vec<(String, Vec<f64>)> = servers
        .iter()
        .map(|s| (s.name.clone(), Vec::new()))
        .collect();
    for connections in SWEEP {
        load.connections = connections;
        let swept = match connections {
            MANY => None,
            _ => Some(take_turns(&wrk, &servers, load, bench.rounds.min(3)).await?),
        };
        for (line, series) in lines.iter_mut().zip(swept.as_ref().unwrap_or(&many)) {
            line.1.push(series.throughput());
        }
    }
    let rows = lines.iter().map(|(name, values)| {
        let values = values.iter().map(|value| number(*value));
        std::iter::once(name.clone()).chain(values).collect()
    });
    outcome.table(
        "requests/s with so many connections",
        &["", "1", "8", "16", "64", "256"],
        rows.collect(),
    );
    outcome.figure(
        "connections",
        json!({"connections": SWEEP, "requests_per_second": lines}),
    );
    let names = SWEEP.map(|n| n.to_string()).to_vec();
    let title = "rust-hello: throughput against connections";
    outcome.charts.push(Chart::over(
        "throughput",
        title,
        ("connections", "requests/s"),
        names,
        lines,
    ));
    Ok(outcome)
}

fn judge(outcome: &mut Outcome, all: &[Series]) {
    let Some(cloister) = of(all, "cloister") else {
        return;
    };
    for (name, bar) in [(PLAIN, 4.0), (TUNED, 2.5), (HYPER, 0.6)] {
        if let Some(peer) = of(all, name) {
            let what = format!("throughput, 64 connections: cloister / {name}");
            outcome.at_least(&what, bar, cloister.throughput_to(peer).median);
        }
    }
    if let Some(exits) = cloister.exits() {
        outcome.at_most("exits to the VMM per 1,000 requests", 20.0, exits);
    }
}

fn memory(servers: &[Server]) -> Result<Vec<f64>> {
    let bytes = servers.iter().map(Server::memory);
    bytes.map(|bytes| Ok(bytes? as f64 / MIB)).collect()
}
