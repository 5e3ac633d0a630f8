//! Requests that find no VM: the deployment is scaled to zero, a request comes over a new connection and is answered.
//!
//! Beside it, what a request takes that finds no process: a node on data that has the app, and `wasmtime serve` of a
//! component that was compiled ahead.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::json;

use crate::bench::{Bench, Component};
use crate::chart::Chart;
use crate::figures::{median, percentile};
use crate::report::{Outcome, number};
use crate::servers::cloister::{DEFAULT, Node};
use crate::servers::{Server, wasmtime};

/// Cold requests.
const REQUESTS: usize = 500;
/// How long a deployment may take to scale to zero that has nothing to do.
const ASLEEP: Duration = Duration::from_secs(30);

/// What is asked, and the bars for its p50 and p99, in milliseconds.
const APPS: [(&str, f64, f64); 2] = [("rust-hello", 3.0, 8.0), ("js-hello", 10.0, 25.0)];

/// Measures.
pub(super) async fn run(bench: &Bench) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut apps = Vec::new();
    let mut components = Vec::new();
    let node = Node::start(bench)?;
    for (name, p50, p99) in APPS {
        let Some(component) = bench.component(name, &mut outcome)? else {
            continue;
        };
        let server = node
            .app(name, &component, json!({"scale": {"idle_ms": 0}}))
            .await?;
        apps.push((server.named(name), p50, p99));
        components.push(component);
    }
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); apps.len()];
    for _ in 0..bench.count(REQUESTS, 5) {
        for ((server, ..), times) in apps.iter().zip(&mut times) {
            node.sleeps(ASLEEP).await?;
            times.push(answered(server).await?);
        }
    }
    let rows = apps.iter().zip(&times).map(|((server, ..), times)| {
        vec![
            server.name.clone(),
            times.len().to_string(),
            number(median(times.iter().copied())),
            number(percentile(times, 90.0)),
            number(percentile(times, 99.0)),
            number(percentile(times, 100.0)),
        ]
    });
    let columns = ["", "requests", "p50 ms", "p90 ms", "p99 ms", "most ms"];
    outcome.table(
        "no VM to the whole answer, on a new connection",
        &columns,
        rows.collect(),
    );
    for ((server, p50, p99), times) in apps.iter().zip(&times) {
        outcome.at_most(
            &format!("{}, cold p50, ms", server.name),
            *p50,
            percentile(times, 50.0),
        );
        outcome.at_most(
            &format!("{}, cold p99, ms", server.name),
            *p99,
            percentile(times, 99.0),
        );
        outcome.figure(&format!("{}_ms", server.name), times.clone().into());
    }
    let lines = apps
        .iter()
        .zip(times)
        .map(|((server, ..), times)| (server.name.clone(), times));
    let title = "Cold requests: no VM to the whole answer";
    outcome
        .charts
        .push(Chart::distribution("cold", title, "ms", lines));
    drop((apps, node));
    processes(bench, &components, &mut outcome).await?;
    Ok(outcome)
}

/// Time of one request over a new connection until its whole answer, in milliseconds.
async fn answered(server: &Server) -> Result<f64> {
    let begin = Instant::now();
    let answer = server.answer("/").await?;
    let time = begin.elapsed();
    if answer.status != 200 {
        let text = String::from_utf8_lossy(&answer.body);
        bail!("{} answers with {}: {text}", server.name, answer.status);
    }
    Ok(time.as_secs_f64() * 1000.0)
}

/// From no process to the first answer: the node's, and the peer's.
async fn processes(bench: &Bench, components: &[Component], outcome: &mut Outcome) -> Result<()> {
    let rounds = bench.rounds * 4;
    let mut rows = Vec::new();
    for component in components {
        let folder = Rc::new(tempfile::tempdir()?);
        let node = Node::start_on(bench, &folder)?;
        let digest = node.upload(DEFAULT, component).await?;
        node.deploy(DEFAULT, &component.name, &digest, &json!({}))
            .await?;
        drop(node);
        let compiled = wasmtime::Compiled::new(component);
        let compiled = bench.optional("wasmtime serve", compiled, outcome)?;
        let (mut mine, mut its) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let begin = Instant::now();
            let node = Node::start_on(bench, &folder)?;
            answered(&node.server(&component.name)).await?;
            mine.push(begin.elapsed().as_secs_f64() * 1000.0);
            drop(node);
            if let Some(compiled) = &compiled {
                its.push(compiled.cold_start("/").await?.as_secs_f64() * 1000.0);
            }
        }
        for (name, times) in [("cloister", &mine), ("wasmtime serve", &its)] {
            let name = format!("{}, {name}", component.name);
            let (p50, most) = (median(times.iter().copied()), percentile(times, 100.0));
            rows.push(vec![
                name,
                times.len().to_string(),
                number(p50),
                number(most),
            ]);
        }
        let figures = json!({"cloister_ms": mine, "wasmtime_serve_ms": its});
        outcome.figure(&format!("{}_from_no_process", component.name), figures);
    }
    outcome.table(
        "no process to the whole answer",
        &["", "starts", "p50 ms", "most ms"],
        rows,
    );
    Ok(())
}
