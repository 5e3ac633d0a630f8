//! `rust-hello` over one connection: what a request takes when nothing else is going on.

use anyhow::Result;

use super::throughput::{self, PLAIN, of};
use crate::bench::Bench;
use crate::chart::Chart;
use crate::compare::{self, Load, Series, take_turns};
use crate::report::Outcome;
use crate::wrk::PERCENTILES;

/// Measures.
pub(super) async fn run(bench: &Bench) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let Some((wrk, servers)) = throughput::servers(bench, &mut outcome).await? else {
        return Ok(outcome);
    };
    let load = Load {
        path: "/",
        connections: 1,
        time: bench.time(5),
    };
    let all = take_turns(&wrk, &servers, load, bench.rounds).await?;
    compare::report(
        &mut outcome,
        "connections_1",
        "rust-hello, one connection",
        &all,
    );
    if let (Some(cloister), Some(peer)) = (of(&all, "cloister"), of(&all, PLAIN)) {
        outcome.at_most(
            "p50, one connection: cloister / wasmtime serve",
            1.5,
            cloister.p50_to(peer).median,
        );
    }
    let names = PERCENTILES.map(|p| format!("p{p}")).to_vec();
    let lines = all
        .iter()
        .map(|series| (series.name.clone(), Series::latency(series)));
    let title = "rust-hello, one connection: latency percentiles";
    outcome.charts.push(Chart::over(
        "latency",
        title,
        ("percentile", "us"),
        names,
        lines,
    ));
    Ok(outcome)
}
