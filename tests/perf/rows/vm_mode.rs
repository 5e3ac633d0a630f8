//! `--isolation vm`: the whole VM is put back to its template after each request. What that costs.

use anyhow::Result;
use serde_json::json;

use crate::bench::Bench;
use crate::compare::{self, Load, take_turns};
use crate::report::Outcome;
use crate::servers::cloister::Node;
use crate::servers::{all_answer, wasmtime};
use crate::wrk::Wrk;

/// Measures.
pub(super) async fn run(bench: &Bench) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let Some(wrk) = bench.wrk(&mut outcome)? else {
        return Ok(outcome);
    };
    javascript(bench, &wrk, &mut outcome).await?;
    hello(bench, &wrk, &mut outcome).await?;
    Ok(outcome)
}

/// A clean VM for each request, beside an instance for each that `wasmtime serve` makes.
async fn javascript(bench: &Bench, wrk: &Wrk, outcome: &mut Outcome) -> Result<()> {
    let Some(component) = bench.component("js-hello", outcome)? else {
        return Ok(());
    };
    let node = Node::start(bench)?;
    let vm = node
        .app("js-hello", &component, json!({"isolation": "vm"}))
        .await?;
    let mut servers = vec![vm.named("cloister vm")];
    servers.extend(wasmtime::beside(bench, &component, outcome)?);
    all_answer(&servers, "/").await?;
    let load = Load {
        path: "/",
        connections: 8,
        time: bench.time(5),
    };
    let all = take_turns(wrk, &servers, load, bench.rounds).await?;
    compare::report(outcome, "js_hello", "js-hello, 8 connections", &all);
    if let [cloister, peer] = all.as_slice() {
        let ratio = cloister.throughput_to(peer).median;
        outcome.at_least(
            "js-hello, throughput: cloister vm / wasmtime serve",
            1.0,
            ratio,
        );
    }
    Ok(())
}

/// What the reset adds to a request, on the same node.
async fn hello(bench: &Bench, wrk: &Wrk, outcome: &mut Outcome) -> Result<()> {
    let Some(component) = bench.component("rust-hello", outcome)? else {
        return Ok(());
    };
    let node = Node::start(bench)?;
    let vm = node
        .app("hello-vm", &component, json!({"isolation": "vm"}))
        .await?;
    let instance = node.app("hello-instance", &component, json!({})).await?;
    let servers = [vm.named("cloister vm"), instance.named("cloister instance")];
    all_answer(&servers, "/").await?;
    let load = Load {
        path: "/",
        connections: 1,
        time: bench.time(5),
    };
    let all = take_turns(wrk, &servers, load, bench.rounds).await?;
    compare::report(outcome, "rust_hello", "rust-hello, one connection", &all);
    if let [vm, instance] = all.as_slice() {
        let more = (vm.latency_at(50.0) - instance.latency_at(50.0)) / 1000.0;
        outcome.at_most(
            "rust-hello, p50 of vm above that of instance, ms",
            0.5,
            more,
        );
    }
    Ok(())
}
