//! Servers that take turns under the same load, so that what slows the machine down slows all of them down.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::figures::{median, spread};
use crate::report::{Outcome, number};
use crate::servers::Server;
use crate::wrk::{Measured, PERCENTILES, Wrk};

/// What a run asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load<'a> {
    pub(crate) path: &'a str,
    pub(crate) connections: u32,
    pub(crate) time: Duration,
}

/// One run of one server.
#[derive(Debug)]
struct Run {
    measured: Measured,
    exits_per_1000: Option<f64>,
}

/// The runs of one server.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    runs: Vec<Run>,
}

/// Ratios of two servers, round by round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Series {
    fn of(&self, figure: impl Fn(&Measured) -> f64) -> Vec<f64> {
        self.runs.iter().map(|run| figure(&run.measured)).collect()
    }

    /// Requests a second: the median of the runs.
    pub(crate) fn throughput(&self) -> f64 {
        median(self.of(|run| run.throughput))
    }

    /// Latency for each of [`PERCENTILES`], in microseconds: the median of the runs.
    pub(crate) fn latency(&self) -> Vec<f64> {
        let at = |n: usize| median(self.of(|run| run.latency[n] as f64));
        (0..PERCENTILES.len()).map(at).collect()
    }

    /// Latency at one of [`PERCENTILES`], in microseconds: the median of the runs.
    pub(crate) fn latency_at(&self, percent: f64) -> f64 {
        let place = PERCENTILES.iter().position(|p| *p == percent);
        place.map_or(f64::NAN, |place| self.latency()[place])
    }

    /// Exits from its VMs for 1,000 requests, where it has VMs: the median of the runs.
    pub(crate) fn exits(&self) -> Option<f64> {
        let all: Option<Vec<f64>> = self.runs.iter().map(|run| run.exits_per_1000).collect();
        all.filter(|all| !all.is_empty()).map(median)
    }

    /// Requests that failed, of all runs.
    pub(crate) fn errors(&self) -> u64 {
        self.runs.iter().map(|run| run.measured.errors).sum()
    }

    /// How far the runs lie apart, as a share of the median.
    fn spread(&self) -> f64 {
        spread(&self.of(|run| run.throughput))
    }

    /// Of a figure of this one to that of another, round by round.
    fn ratio(&self, other: &Self, figure: impl Fn(&Measured) -> f64) -> Ratio {
        let pairs = self.runs.iter().zip(&other.runs);
        let all: Vec<f64> = pairs
            .map(|(mine, its)| figure(&mine.measured) / figure(&its.measured))
            .collect();
        Ratio {
            median: median(all.iter().copied()),
            least: all.iter().copied().fold(f64::MAX, f64::min),
            most: all.iter().copied().fold(f64::MIN, f64::max),
        }
    }

    /// Of its throughput to another's.
    pub(crate) fn throughput_to(&self, other: &Self) -> Ratio {
        self.ratio(other, |run| run.throughput)
    }

    /// Of its median latency to another's.
    pub(crate) fn p50_to(&self, other: &Self) -> Ratio {
        self.ratio(other, |run| run.latency[0] as f64)
    }

    fn json(&self) -> Value {
        let runs = self.runs.iter().map(|run| {
            json!({
                "requests": run.measured.requests, "requests_per_second": run.measured.throughput, "errors": run.measured.errors,
                "latency_us": run.measured.latency, "exits_per_1000_requests": run.exits_per_1000,
            })
        });
        json!({
            "name": self.name, "requests_per_second": self.throughput(), "spread": self.spread(), "percentiles": PERCENTILES,
            "latency_us": self.latency(), "exits_per_1000_requests": self.exits(), "errors": self.errors(),
            "runs": runs.collect::<Vec<_>>(),
        })
    }
}

/// Whose turn it is, in rounds: each of so many servers once a round, another one first each time.
pub(crate) fn in_turns(rounds: u32, servers: usize) -> impl Iterator<Item = usize> {
    let rounds = 0..rounds as usize;
    rounds.flat_map(move |round| (0..servers).map(move |turn| (turn + round) % servers))
}

/// Has the servers take turns; who is first changes from round to round.
pub(crate) async fn take_turns(
    wrk: &Wrk,
    servers: &[Server],
    load: Load<'_>,
    rounds: u32,
) -> Result<Vec<Series>> {
    let mut all: Vec<Series> = servers
        .iter()
        .map(|server| Series {
            name: server.name.clone(),
            runs: Vec::new(),
        })
        .collect();
    for n in in_turns(rounds, servers.len()) {
        let server = &servers[n];
        let before = server.exits().await?;
        let measured = wrk
            .run(server, load.path, load.connections, load.time)
            .await?;
        let after = server.exits().await?;
        // A VM that is gone takes its count along: nothing is known of that run.
        let exits = before
            .zip(after)
            .and_then(|(before, after)| after.checked_sub(before));
        let exits_per_1000 = exits.map(|exits| exits as f64 * 1000.0 / measured.requests as f64);
        all[n].runs.push(Run {
            measured,
            exits_per_1000,
        });
    }
    Ok(all)
}

/// Adds a table of the series, and of the first one's ratios to the others; and says whether all was answered.
pub(crate) fn report(outcome: &mut Outcome, name: &str, title: &str, all: &[Series]) {
    let rows = all.iter().map(|series| {
        vec![
            series.name.clone(),
            number(series.throughput()),
            format!("{:.0} %", series.spread() * 100.0),
            number(series.latency_at(50.0)),
            number(series.latency_at(99.0)),
            series.exits().map_or_else(|| "-".to_owned(), number),
            series.errors().to_string(),
        ]
    });
    let columns = [
        "",
        "requests/s",
        "spread",
        "p50 us",
        "p99 us",
        "exits/1000",
        "errors",
    ];
    outcome.table(title, &columns, rows.collect());
    if let Some((first, others)) = all.split_first() {
        let range = |ratio: Ratio| {
            format!(
                "{} ({} to {})",
                number(ratio.median),
                number(ratio.least),
                number(ratio.most)
            )
        };
        let rows = others.iter().map(|other| {
            vec![
                format!("{} / {}", first.name, other.name),
                range(first.throughput_to(other)),
                range(first.p50_to(other)),
            ]
        });
        let rows: Vec<_> = rows.collect();
        if !rows.is_empty() {
            outcome.table(
                "ratios, round by round: median (least to most)",
                &["", "throughput", "p50"],
                rows,
            );
        }
        let what = format!("{title}: every request to {} is answered well", first.name);
        outcome.must(
            &what,
            format!("{} errors", first.errors()),
            first.errors() == 0,
        );
    }
    outcome.figure(name, all.iter().map(Series::json).collect());
}
