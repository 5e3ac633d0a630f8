//! Engines in wasm: JavaScript and Python, each request in a fresh instance, beside `wasmtime serve` that does the same.

use anyhow::Result;
use serde_json::json;

use crate::bench::Bench;
use crate::compare::{self, Load, take_turns};
use crate::report::Outcome;
use crate::servers::cloister::Node;
use crate::servers::{all_answer, wasmtime};

/// Measures.
pub(super) async fn run(bench: &Bench) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let Some(wrk) = bench.wrk(&mut outcome)? else {
        return Ok(outcome);
    };
    for name in ["js-hello", "py-hello"] {
        let Some(component) = bench.component(name, &mut outcome)? else {
            continue;
        };
        let node = Node::start(bench)?;
        let mut servers = vec![node.app(name, &component, json!({})).await?];
        servers.extend(wasmtime::beside(bench, &component, &mut outcome)?);
        all_answer(&servers, "/").await?;
        let load = Load {
            path: "/",
            connections: 8,
            time: bench.time(5),
        };
        let all = take_turns(&wrk, &servers, load, bench.rounds).await?;
        compare::report(&mut outcome, name, &format!("{name}, 8 connections"), &all);
        if let [cloister, peer] = all.as_slice() {
            let what = format!("{name}, throughput: cloister / wasmtime serve");
            outcome.at_least(&what, 4.0, cloister.throughput_to(peer).median);
        }
    }
    Ok(outcome)
}
