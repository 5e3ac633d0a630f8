//! A long time at half of what the node can do: components of several kinds, traps, loops that are killed, clients that
//! go away. What grows that should not?

mod mix;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use self::mix::{Mix, Tally};
use crate::bench::Bench;
use crate::chart::Chart;
use crate::figures::slope;
use crate::memory::{self, MIB};
use crate::report::{Outcome, number};
use crate::servers::cloister::Node;

/// Share of the time that is not counted, as caches fill.
const WARM_UP: f64 = 0.2;
/// How long the node has for closing what clients have left.
const CALM: Duration = Duration::from_secs(10);

/// What the node has at a moment.
#[derive(Debug, Clone, Copy)]
struct Sample {
    seconds: f64,
    pss_mib: f64,
    daemon_rss_mib: f64,
    descriptors: f64,
}

/// Measures.
pub(super) async fn run(bench: &Bench) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let node = Node::start(bench)?;
    let mix = Arc::new(Mix::deploy(bench, &node, &mut outcome).await?);
    let time = if bench.quick {
        Duration::from_secs(3)
    } else {
        bench.time(600)
    };

    let probing = if bench.quick {
        Duration::from_secs(1)
    } else {
        Duration::from_secs(10)
    };
    let most = mix.load(None, probing).await?;
    let rate = most.asked as f64 / probing.as_secs_f64() / 2.0;
    eprintln!(
        "  at most {:.0} requests/s, so {rate:.0} for {} s",
        rate * 2.0,
        time.as_secs()
    );
    let before = calm_descriptors(&node, None).await?;

    let begin = Instant::now();
    let load = mix.load(Some(rate), time);
    let mut samples = Vec::new();
    let mut tick = tokio::time::interval(if bench.quick {
        Duration::from_millis(100)
    } else {
        Duration::from_secs(2)
    });
    tokio::pin!(load);
    let tally = loop {
        tokio::select! {
            tally = &mut load => break tally?,
            _ = tick.tick() => samples.push(sample(&node, begin)?),
        }
    };
    let after = calm_descriptors(&node, Some(before)).await?;
    report(&mut outcome, &tally, rate, &samples);
    outcome.at_most(
        "descriptors more when all is quiet again",
        0.0,
        after - before,
    );
    let first = tally
        .wrong
        .first()
        .or(most.wrong.first())
        .cloned()
        .unwrap_or_else(|| "none".to_owned());
    let wrong = tally.wrong.len() + most.wrong.len();
    outcome.must(
        "errors that were not asked for",
        format!("{wrong}: {first}"),
        wrong == 0,
    );
    Ok(outcome)
}

fn sample(node: &Node, begin: Instant) -> Result<Sample> {
    Ok(Sample {
        seconds: begin.elapsed().as_secs_f64(),
        pss_mib: memory::of_family(node.pid())? as f64 / MIB,
        daemon_rss_mib: memory::resident(node.pid())? as f64 / MIB,
        descriptors: memory::descriptors(node.pid())? as f64,
    })
}

/// Descriptors of all processes while nobody asks for anything: the count at which they stay, or the one that is wanted
/// as soon as it is there.
async fn calm_descriptors(node: &Node, wanted: Option<f64>) -> Result<f64> {
    let begin = Instant::now();
    let mut last = f64::NAN;
    loop {
        let now = memory::descriptors(node.pid())? as f64;
        let is_there = wanted.map_or(now == last, |wanted| now <= wanted);
        if is_there || begin.elapsed() > CALM {
            return Ok(now);
        }
        last = now;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn report(outcome: &mut Outcome, tally: &Tally, rate: f64, samples: &[Sample]) {
    let rows = tally
        .answered
        .iter()
        .map(|(kind, count)| vec![(*kind).to_owned(), count.to_string()]);
    outcome.table(
        "requests that went as they should",
        &["", "requests"],
        rows.collect(),
    );
    let line = |of: fn(&Sample) -> f64| -> Vec<(f64, f64)> {
        samples.iter().map(|s| (s.seconds, of(s))).collect()
    };
    let whole = samples.last().map_or(0.0, |last| last.seconds);
    let warm = |line: &[(f64, f64)]| -> Vec<(f64, f64)> {
        line.iter()
            .copied()
            .filter(|(at, _)| *at >= whole * WARM_UP)
            .collect()
    };
    let lines = [
        ("memory of all processes, MiB", line(|s| s.pss_mib)),
        ("memory of the daemon, MiB", line(|s| s.daemon_rss_mib)),
        ("descriptors of all processes", line(|s| s.descriptors)),
    ];
    let rows = lines.iter().map(|(what, line)| {
        let warm = warm(line);
        let ends = [warm.first(), warm.last()].map(|end| number(end.map_or(f64::NAN, |end| end.1)));
        let [first, last] = ends;
        vec![(*what).to_owned(), first, last, number(slope(&warm) * 60.0)]
    });
    let title = format!("{whole:.0} s at {rate:.0} requests/s");
    outcome.table(
        &title,
        &["", "when warm", "at the end", "slope, a minute"],
        rows.collect(),
    );
    let [all, daemon, descriptors] = lines;
    outcome.at_most(
        "memory of all processes, slope when warm, MiB/min",
        1.0,
        slope(&warm(&all.1)) * 60.0,
    );
    outcome.figure("requests_per_second", rate.into());
    outcome.figure("answered", json!(tally.answered));
    outcome.figure("memory_mib", json!(all.1));
    outcome.figure("daemon_mib", json!(daemon.1));
    outcome.figure("descriptors", json!(descriptors.1));
    let lines = [
        ("all processes (PSS)".to_owned(), all.1),
        ("daemon (RSS)".to_owned(), daemon.1),
    ];
    outcome.charts.push(Chart::numbers(
        "soak",
        "Memory under mixed load",
        ("s", "MiB"),
        lines,
    ));
}
