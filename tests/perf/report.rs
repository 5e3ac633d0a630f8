//! The figures: medians over the rounds, ratios to Cloister, and how far the rounds lie apart.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::wrk::Measured;

/// One run of one server.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    measured: Measured,
    exits_per_1000: Option<f64>,
}

impl Run {
    /// With the exits from VMs during the run, where there are VMs.
    pub(crate) fn new(measured: Measured, exits: Option<u64>) -> Self {
        let per_1000 = |exits: u64| exits as f64 * 1000.0 / measured.requests as f64;
        Self {
            exits_per_1000: exits.map(per_1000),
            measured,
        }
    }
}

#[derive(Debug, Default)]
struct Row {
    name: &'static str,
    runs: Vec<Run>,
    cold: Vec<Duration>,
    memory: u64,
    memory_loaded: u64,
}

/// The figures of one component; the first server is the one that the others are compared with.
#[derive(Debug)]
pub(crate) struct Table {
    component: String,
    rows: Vec<Row>,
}

/// All tables.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) tables: Vec<Table>,
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

impl Row {
    fn throughput(&self) -> f64 {
        median(self.runs.iter().map(|run| run.measured.throughput))
    }

    /// Distance of the best run from the worst, as a share of the median.
    fn spread(&self) -> f64 {
        let all = || self.runs.iter().map(|run| run.measured.throughput);
        (all().fold(f64::MIN, f64::max) - all().fold(f64::MAX, f64::min)) / self.throughput()
    }

    fn p50(&self) -> f64 {
        median(self.runs.iter().map(|run| run.measured.p50 as f64))
    }

    fn p99(&self) -> f64 {
        median(self.runs.iter().map(|run| run.measured.p99 as f64))
    }

    fn cold_ms(&self) -> f64 {
        median(self.cold.iter().map(|time| time.as_secs_f64() * 1000.0))
    }

    fn exits(&self) -> Option<f64> {
        self.runs
            .iter()
            .map(|run| run.exits_per_1000)
            .collect::<Option<Vec<_>>>()
            .map(|all| median(all.into_iter()))
    }

    fn errors(&self) -> u64 {
        self.runs.iter().map(|run| run.measured.errors).sum()
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name, "requests_per_second": self.throughput(), "spread": self.spread(), "p50_us": self.p50(), "p99_us": self.p99(),
            "cold_start_ms": self.cold_ms(), "memory_bytes": self.memory, "memory_loaded_bytes": self.memory_loaded,
            "exits_per_1000_requests": self.exits(), "errors": self.errors(),
            "runs": self.runs.iter().map(|run| json!({
                "requests": run.measured.requests, "requests_per_second": run.measured.throughput, "p50_us": run.measured.p50,
                "p99_us": run.measured.p99, "errors": run.measured.errors, "exits_per_1000_requests": run.exits_per_1000,
            })).collect::<Vec<_>>(),
            "cold_starts_ms": self.cold.iter().map(|time| time.as_secs_f64() * 1000.0).collect::<Vec<_>>(),
        })
    }
}

impl Table {
    pub(crate) fn new(component: &str) -> Self {
        Self {
            component: component.to_owned(),
            rows: Vec::new(),
        }
    }

    fn row(&mut self, name: &'static str) -> &mut Row {
        let at = self
            .rows
            .iter()
            .position(|row| row.name == name)
            .unwrap_or_else(|| {
                self.rows.push(Row {
                    name,
                    ..Row::default()
                });
                self.rows.len() - 1
            });
        &mut self.rows[at]
    }

    pub(crate) fn run(&mut self, name: &'static str, run: Run) {
        self.row(name).runs.push(run);
    }

    pub(crate) fn started(&mut self, name: &'static str, times: Vec<Duration>) {
        self.row(name).cold = times;
    }

    pub(crate) fn memory(&mut self, name: &'static str, bytes: u64) {
        self.row(name).memory = bytes;
    }

    pub(crate) fn memory_loaded(&mut self, name: &'static str, bytes: u64) {
        self.row(name).memory_loaded = bytes;
    }

    /// Of Cloister to each of the others, round by round: the median of the ratios.
    fn ratios(&self) -> Vec<(&'static str, Value)> {
        let Some((first, others)) = self.rows.split_first() else {
            return Vec::new();
        };
        let by_round = |other: &Row, figure: &dyn Fn(&Run) -> f64| {
            median(
                first
                    .runs
                    .iter()
                    .zip(&other.runs)
                    .map(|(mine, its)| figure(mine) / figure(its)),
            )
        };
        let ratio = |other: &Row| {
            json!({
                "throughput": by_round(other, &|run| run.measured.throughput), "p50": by_round(other, &|run| run.measured.p50 as f64),
                "p99": by_round(other, &|run| run.measured.p99 as f64), "cold_start": first.cold_ms() / other.cold_ms(),
                "memory": first.memory as f64 / other.memory as f64,
            })
        };
        others
            .iter()
            .map(|other| (other.name, ratio(other)))
            .collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: f64 = 1024.0 * 1024.0;
        writeln!(f, "\n{}", self.component)?;
        writeln!(
            f,
            "{:<16}{:>12}{:>9}{:>11}{:>11}{:>11}{:>10}{:>10}{:>14}{:>8}",
            "",
            "requests/s",
            "spread",
            "p50 us",
            "p99 us",
            "cold ms",
            "idle MiB",
            "load MiB",
            "exits/1000",
            "errors"
        )?;
        for row in &self.rows {
            let exits = row
                .exits()
                .map_or_else(|| "-".to_owned(), |exits| format!("{exits:.2}"));
            writeln!(
                f,
                "{:<16}{:>12.0}{:>8.0}%{:>11.0}{:>11.0}{:>11.1}{:>10.1}{:>10.1}{exits:>14}{:>8}",
                row.name,
                row.throughput(),
                row.spread() * 100.0,
                row.p50(),
                row.p99(),
                row.cold_ms(),
                row.memory as f64 / MIB,
                row.memory_loaded as f64 / MIB,
                row.errors()
            )?;
        }
        for (name, ratio) in self.ratios() {
            let of = |figure: &str| ratio[figure].as_f64().unwrap_or(f64::NAN);
            writeln!(
                f,
                "cloister / {name}: throughput {:.2}, p50 {:.2}, p99 {:.2}, cold start {:.2}, memory {:.2}",
                of("throughput"),
                of("p50"),
                of("p99"),
                of("cold_start"),
                of("memory")
            )?;
        }
        Ok(())
    }
}

impl Report {
    /// All figures, for programs.
    pub(crate) fn json(&self, connections: u32, time: Duration) -> Value {
        let tables = self.tables.iter().map(|table| {
            let ratios: serde_json::Map<String, Value> = table.ratios().into_iter().map(|(name, ratio)| (name.to_owned(), ratio)).collect();
            json!({
                "component": table.component, "servers": table.rows.iter().map(Row::json).collect::<Vec<_>>(), "cloister_to": ratios,
            })
        });
        json!({
            "version": 1, "connections": connections, "seconds": time.as_secs(), "cpus": std::thread::available_parallelism().map_or(0, usize::from),
            "components": tables.collect::<Vec<_>>(),
        })
    }
}
