//! JavaScript in a fresh instance for each request, beside workerd: V8 that compiles at run time and keeps one isolate.

use anyhow::Result;
use serde_json::json;

use crate::bench::Bench;
use crate::compare::{self, Load, take_turns};
use crate::report::Outcome;
use crate::servers::cloister::Node;
use crate::servers::{all_answer, workerd};

/// Measures.
pub(super) async fn run(bench: &Bench) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let wrk = bench.wrk(&mut outcome)?;
    let component = bench.component("js-hello", &mut outcome)?;
    let exe = bench.optional("workerd", workerd::find(!bench.quick), &mut outcome)?;
    let (Some(wrk), Some(component), Some(exe)) = (wrk, component, exe) else {
        return Ok(outcome);
    };
    let node = Node::start(bench)?;
    let cloister = node.app("js-hello", &component, json!({})).await?;
    let answer = cloister.answer("/").await?;
    let servers = [cloister, workerd::start(&exe, &answer)?];
    all_answer(&servers, "/").await?;
    let load = Load {
        path: "/",
        connections: 16,
        time: bench.time(5),
    };
    let all = take_turns(&wrk, &servers, load, bench.rounds).await?;
    compare::report(
        &mut outcome,
        "connections_16",
        "js-hello, 16 connections",
        &all,
    );
    if let [cloister, peer] = all.as_slice() {
        outcome.at_least(
            "js-hello, throughput: cloister / workerd",
            0.4,
            cloister.throughput_to(peer).median,
        );
    }
    Ok(outcome)
}
