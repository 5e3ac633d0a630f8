//! Neighbours: tenant A floods with endless loops that its deadline kills, tenant B has ten requests a second. Quiet
//! and flooded times take turns.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cloister_tests::client::{Connection, empty};
use serde_json::json;
use tokio::task::JoinSet;

use crate::bench::{Bench, probe};
use crate::figures::{median, percentile};
use crate::report::{Outcome, number};
use crate::servers::ask;
use crate::servers::cloister::Node;

/// Connections of tenant A.
const FLOOD: usize = 256;
/// Time between two requests of tenant B.
const PACE: Duration = Duration::from_millis(100);
/// Time that a request of tenant A has until its head, in milliseconds.
const DEADLINE_MS: u64 = 1000;
/// Time for what was begun to end, between quiet and flooded times.
const CALM: Duration = Duration::from_secs(2);

/// Measures.
pub(super) async fn run(bench: &Bench) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let Some(hello) = bench.component("rust-hello", &mut outcome)? else {
        return Ok(outcome);
    };
    let node = Node::start(bench)?;
    for tenant in ["a", "b"] {
        node.tenant(tenant).await?;
    }
    let digest = node.upload("a", &probe()).await?;
    let limits = json!({"limits": {"head_timeout_ms": DEADLINE_MS}});
    node.deploy("a", "loops", &digest, &limits).await?;
    let digest = node.upload("b", &hello).await?;
    node.deploy("b", "hello", &digest, &json!({})).await?;
    // Whose VM is there before the first time that counts, as the flood's will be.
    ask(node.listen, "hello.b.localhost", "/").await?;

    let time = bench.time(20);
    let connections = if bench.quick { 32 } else { FLOOD };
    let (mut quiet, mut flooded, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
    let mut flood = Counts::default();
    for _ in 0..bench.rounds {
        quiet.push(paced(node.listen, time, &mut wrong).await);
        let mut loops = JoinSet::new();
        let until = Instant::now() + time + Duration::from_millis(DEADLINE_MS);
        for _ in 0..connections {
            loops.spawn(endless(node.listen, until));
        }
        // The flood is there before the time that counts.
        tokio::time::sleep(Duration::from_millis(DEADLINE_MS)).await;
        flooded.push(paced(node.listen, time, &mut wrong).await);
        while let Some(counts) = loops.join_next().await {
            flood.add(&counts?);
        }
        tokio::time::sleep(if bench.quick { PACE } else { CALM }).await;
    }
    let all = |rounds: &[Vec<f64>]| rounds.concat();
    let rows = [("quiet", all(&quiet)), ("flooded", all(&flooded))].map(|(name, times)| {
        let at = |percent| number(percentile(&times, percent));
        vec![
            name.to_owned(),
            times.len().to_string(),
            at(50.0),
            at(99.0),
            at(100.0),
        ]
    });
    let title =
        format!("tenant B at 10 requests/s, while tenant A has {connections} endless loops");
    outcome.table(
        &title,
        &["", "requests", "p50 ms", "p99 ms", "most ms"],
        rows.to_vec(),
    );
    let each = quiet.iter().zip(&flooded);
    let each: Vec<f64> = each
        .map(|(quiet, flooded)| percentile(flooded, 99.0) / percentile(quiet, 99.0))
        .collect();
    let ratio = percentile(&all(&flooded), 99.0) / percentile(&all(&quiet), 99.0);
    outcome.at_most("p99 of tenant B: flooded / quiet", 2.0, ratio);
    outcome.note(format!(
        "round by round the ratio of the p99s is {} in the median",
        number(median(each.iter().copied()))
    ));
    outcome.note(format!(
        "tenant A: {} killed by the deadline (504), {} turned away (503)",
        flood.killed, flood.turned_away
    ));
    let first = wrong.first().cloned().unwrap_or_else(|| "none".to_owned());
    outcome.must(
        "wrong answers to tenant B",
        format!("{}: {first}", wrong.len()),
        wrong.is_empty(),
    );
    outcome.must(
        "loops of tenant A that are killed",
        flood.killed,
        flood.killed > 0,
    );
    let other = flood
        .other
        .first()
        .cloned()
        .unwrap_or_else(|| "none".to_owned());
    outcome.must(
        "other answers to tenant A",
        format!("{}: {other}", flood.other.len()),
        flood.other.is_empty(),
    );
    outcome.figure("quiet_ms", json!(quiet));
    outcome.figure("flooded_ms", json!(flooded));
    outcome.figure("p99_ratios", json!(each));
    Ok(outcome)
}

/// Asks tenant B at its pace, whether earlier requests are answered or not; the times in milliseconds.
async fn paced(address: SocketAddr, time: Duration, wrong: &mut Vec<String>) -> Vec<f64> {
    let mut tick = tokio::time::interval(PACE);
    let mut asked = JoinSet::new();
    let end = Instant::now() + time;
    while Instant::now() < end {
        tick.tick().await;
        asked.spawn(async move {
            let begin = Instant::now();
            let answer = ask(address, "hello.b.localhost", "/").await;
            let answer = answer.context("no answer")?;
            anyhow::ensure!(answer.status == 200, "status {}", answer.status);
            Ok(begin.elapsed().as_secs_f64() * 1000.0)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = asked.join_next().await {
        match done.map_err(anyhow::Error::from).flatten() {
            Ok(time) => times.push(time),
            Err(error) => wrong.push(format!("{error:#}")),
        }
    }
    times
}

/// What the flood was answered.
#[derive(Debug, Default)]
struct Counts {
    killed: u64,
    turned_away: u64,
    other: Vec<String>,
}

impl Counts {
    fn add(&mut self, more: &Self) {
        self.killed += more.killed;
        self.turned_away += more.turned_away;
        self.other.extend_from_slice(&more.other);
    }
}

/// One connection of the flood: a loop without end, and the next one when it was killed.
async fn endless(address: SocketAddr, until: Instant) -> Counts {
    let mut counts = Counts::default();
    let mut open = None;
    while Instant::now() < until {
        match once(address, &mut open).await {
            Ok(504) => counts.killed += 1,
            Ok(503) => {
                counts.turned_away += 1;
                // It was told to come again later.
                tokio::time::sleep(PACE).await;
            }
            Ok(status) => counts.other.push(format!("status {status}")),
            Err(error) => {
                open = None;
                counts.other.push(format!("{error:#}"));
                tokio::time::sleep(PACE).await;
            }
        }
    }
    counts
}

async fn once(address: SocketAddr, open: &mut Option<Connection>) -> Result<u16> {
    let connection = match open {
        Some(connection) => connection,
        None => open.insert(Connection::h1(address).await?),
    };
    let request = connection.request("GET", "loops.a.localhost", "/spin", empty());
    Ok(connection.call(request).await?.status.as_u16())
}
