//! Cloister beside `wasmtime serve` and a bare hyper server, on the same components, in the same minutes.
//!
//! Absolute times of one machine mean little on another; ratios within one run mean more. So the three
//! take turns, several rounds, with `wrk` as the client of all, and what is printed first is the ratio
//! and its spread. `--quick` is for checks: it fails when this program is broken, never for a time.
//!
//! ```text
//! cargo build --release && cargo run --release -p cloister-tests --bin perf -- [--quick] [--out F.json]
//! ```

mod cloister;
mod peer;
mod report;
mod wrk;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;

use crate::cloister::Cloister;
use crate::peer::{Hyper, Server, Wasmtime};
use crate::report::{Run, Table};

/// Compares Cloister with `wasmtime serve` and a bare hyper server.
#[derive(Debug, Parser)]
#[command(name = "perf")]
struct Args {
    /// Seconds of a second and one round: only whether everything works.
    #[arg(long)]
    quick: bool,
    /// Writes all figures to this file as JSON.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Another component to measure, beside the example `rust-hello`.
    #[arg(long, value_name = "NAME=FILE")]
    component: Vec<String>,
    /// Path that requests ask for.
    #[arg(long, default_value = "/")]
    path: String,
    /// Connections of the client.
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// Rounds; each measures every server once.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Seconds of a measurement.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// The executable `cloister`; by default the one beside this program.
    #[arg(long, value_name = "FILE")]
    cloister: Option<PathBuf>,
    /// Plays the bare hyper server: answers as this file says. Not for people.
    #[arg(long, hide = true, value_name = "FILE")]
    serve_hyper: Option<PathBuf>,
}

/// A component to measure.
#[derive(Debug, Clone)]
struct Component {
    name: String,
    file: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.serve_hyper {
        Some(answer) => peer::serve_hyper(answer),
        None => compare(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("perf: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn components(args: &Args) -> Result<Vec<Component>> {
    let example =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/rust-hello/rust-hello.wasm");
    let mut found = vec![Component {
        name: "rust-hello".to_owned(),
        file: example,
    }];
    for given in &args.component {
        let (name, file) = given
            .split_once('=')
            .context("--component wants NAME=FILE")?;
        found.push(Component {
            name: name.to_owned(),
            file: file.into(),
        });
    }
    Ok(found)
}

fn compare(args: &Args) -> Result<()> {
    let wrk = wrk::find()?;
    let (rounds, time) = match args.quick {
        true => (1, Duration::from_secs(1)),
        false => (args.rounds, Duration::from_secs(args.seconds)),
    };
    let mut report = report::Report::default();
    for component in components(args)? {
        eprintln!("{}: {}", component.name, component.file.display());
        let mut table = Table::new(&component.name);
        let node = Cloister::start(args.cloister.as_deref(), &component)?;
        let answer = node.answer(&args.path)?;
        // The bare server says what the component says, so that all three send the same bytes.
        let mut servers: Vec<Box<dyn Server>> = vec![Box::new(node)];
        match Wasmtime::start(&component) {
            Ok(peer) => servers.push(Box::new(peer)),
            Err(error) if args.quick => eprintln!("  without wasmtime serve: {error:#}"),
            Err(error) => return Err(error),
        }
        servers.push(Box::new(Hyper::start(&answer)?));
        for server in &servers {
            let got = server.answer(&args.path)?;
            if got.body != answer.body || got.status != answer.status {
                bail!(
                    "{} answers with {} and {} bytes, cloister with {} and {}",
                    server.name(),
                    got.status,
                    got.body.len(),
                    answer.status,
                    answer.body.len()
                );
            }
            table.started(server.name(), server.cold_start(&args.path, rounds)?);
            table.memory(server.name(), server.memory()?);
        }
        for round in 0..rounds {
            // Who is first changes from round to round.
            for turn in 0..servers.len() {
                let server = &servers[(turn + round as usize) % servers.len()];
                let before = server.exits()?;
                let measured = wrk.run(server.as_ref(), &args.path, args.connections, time)?;
                let exits = before
                    .zip(server.exits()?)
                    .map(|(before, after)| after.saturating_sub(before));
                table.run(server.name(), Run::new(measured, exits));
            }
        }
        for server in &servers {
            table.memory_loaded(server.name(), server.memory()?);
        }
        print!("{table}");
        report.tables.push(table);
    }
    if let Some(file) = &args.out {
        let json = serde_json::to_vec_pretty(&report.json(args.connections, time))?;
        std::fs::write(file, json).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}
