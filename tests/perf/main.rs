//! Cloister under measurement, beside what it is compared with: on the same components, in the same minutes.
//!
//! Absolute times of one machine mean little on another; ratios within one run mean more. So servers that are
//! compared take turns, several rounds, and what counts is the ratio and its spread. A bar that is missed is
//! reported and is no failure; a wrong answer is one. `--quick` is for checks: it fails when this program or the
//! node is broken, never for a time. `docs/performance.md` says what each row measures.
//!
//! ```text
//! cargo build --release && target/release/perf [ROW…] [--quick] [--rounds N] [--seconds S] [--components DIR]
//! ```

mod bench;
mod chart;
mod compare;
mod figures;
mod memory;
mod report;
mod rows;
mod servers;
mod wrk;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use serde_json::{Value, json};

use crate::bench::Bench;
use crate::report::Outcome;
use crate::rows::Row;

/// Measures Cloister, and what it is compared with.
#[derive(Debug, Parser)]
#[command(name = "perf")]
struct Args {
    /// What to measure; all of it by default.
    #[arg(value_enum)]
    rows: Vec<Row>,
    /// Everything at its smallest: only whether it works. Peers that are missing are left out.
    #[arg(long)]
    quick: bool,
    /// Rounds of a comparison; each measures every server once.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of one measurement, where the row is not to have its own number.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// VMs of `density`, deployments of `sleeping`, requests of `cold`, where they are not to have their own number.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Folder with components, NAME.wasm; what it has not is looked for in examples/.
    #[arg(long, value_name = "DIR")]
    components: Option<PathBuf>,
    /// Folder for results.json and the charts; by default `perf` beside this program's folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The executable `cloister`; by default the one beside this program.
    #[arg(long, value_name = "FILE")]
    cloister: Option<PathBuf>,
    /// Plays the bare hyper server: answers as this file says. Not for people.
    #[arg(long, hide = true, value_name = "FILE")]
    serve_hyper: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.serve_hyper {
        Some(answer) => servers::hyper::serve(answer).map(|()| true),
        None => measure(args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("perf: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures one row after the other; says whether all went well.
fn measure(args: Args) -> Result<bool> {
    let exe = std::env::current_exe()?;
    let target = exe
        .ancestors()
        .nth(2)
        .context("no folder beside this program's")?;
    let out = args.out.unwrap_or_else(|| target.join("perf"));
    let bench = Bench {
        quick: args.quick,
        rounds: if args.quick { 1 } else { args.rounds },
        seconds: args.seconds,
        count: args.count.map(usize::try_from).transpose()?,
        components: args.components,
        cloister: args
            .cloister
            .unwrap_or_else(|| exe.with_file_name("cloister")),
    };
    servers::cloister::check(&bench.cloister)?;
    let rows = match args.rows.is_empty() {
        true => Row::value_variants().to_vec(),
        false => args.rows,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut is_well = true;
    for row in rows {
        let name = row.name();
        eprintln!("{name}");
        let conditions = conditions(&bench);
        match runtime.block_on(unless_ended(row.run(&bench))) {
            Ok(outcome) => {
                println!(
                    "\n== {name}{}\n{outcome}",
                    if bench.quick {
                        " (quick: no measurement)"
                    } else {
                        ""
                    }
                );
                is_well &= outcome.is_well();
                report::keep(&out, &name, conditions, &outcome)?;
            }
            Err(error) => {
                eprintln!("perf: {name}: {error:#}");
                is_well = false;
                if error.is::<Ended>() {
                    break;
                }
            }
        }
    }
    println!("figures and charts are in {}", out.display());
    Ok(is_well)
}

/// This program was told to end.
#[derive(Debug, thiserror::Error)]
#[error("ended by a signal")]
struct Ended;

/// A row's outcome, unless this program is to end: then the servers are ended first, and their folders removed.
async fn unless_ended(row: impl Future<Output = Result<Outcome>>) -> Result<Outcome> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    tokio::select! {
        outcome = row => outcome,
        _ = interrupt.recv() => Err(Ended.into()),
        _ = terminate.recv() => Err(Ended.into()),
    }
}

/// On what, and how, a row is measured.
fn conditions(bench: &Bench) -> Value {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()))
    };
    let began = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    json!({
        "quick": bench.quick, "rounds": bench.rounds, "seconds": bench.seconds, "count": bench.count,
        "began_unix_s": began.map_or(0, |time| time.as_secs()),
        "processors": std::thread::available_parallelism().map_or(0, usize::from),
        "processor": field(&read("/proc/cpuinfo"), "model name"),
        "memory": field(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load_before": read("/proc/loadavg").trim(),
        "wasmtime": servers::wasmtime::version(),
    })
}
