//! Wasm code that just computes: the time of a request that counts primes, less that of one that counts none.
//!
//! The component answers HTTP, so `wasmtime run` cannot run it; `wasmtime serve` runs the same compiled code.

use std::time::Instant;

use anyhow::{Result, bail};
use serde_json::json;

use crate::bench::Bench;
use crate::compare::in_turns;
use crate::figures::{median, spread};
use crate::report::{Outcome, number};
use crate::servers::cloister::Node;
use crate::servers::{Server, wasmtime};

/// Requests of a server in a round.
const REQUESTS: u32 = 5;

/// Measures.
pub(super) async fn run(bench: &Bench) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    // What is asked for and what it answers: nothing, and work that fits in the processor's caches or does not.
    let primes = [
        ("/0", "0"),
        ("/10000000", "664579"),
        ("/100000000", "5761455"),
    ];
    let turns = [
        ("/work?0", "done"),
        ("/work?100", "done"),
        ("/work?400", "done"),
    ];
    let (component, works) =
        bench.component_or_probe("rust-primes", primes, turns, &mut outcome)?;
    let node = Node::start(bench)?;
    let mut servers = vec![node.app("compute", &component, json!({})).await?];
    servers.extend(wasmtime::beside(bench, &component, &mut outcome)?);
    let [nothing, works @ ..] = works;
    for work in works
        .into_iter()
        .take(if bench.quick { 1 } else { works.len() })
    {
        let mut rounds: Vec<Vec<f64>> = vec![Vec::new(); servers.len()];
        for n in in_turns(bench.rounds, servers.len()) {
            let idle = timed(&servers[n], nothing).await?;
            rounds[n].push(timed(&servers[n], work).await? - idle);
        }
        report(&mut outcome, work.0, &servers, &rounds);
    }
    Ok(outcome)
}

/// Time of a request, in milliseconds: the median of some.
async fn timed(server: &Server, (path, wanted): (&str, &str)) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..REQUESTS {
        let begin = Instant::now();
        let answer = server.answer(path).await?;
        times.push(begin.elapsed().as_secs_f64() * 1000.0);
        let said = String::from_utf8_lossy(&answer.body);
        if answer.status != 200 || said.trim() != wanted {
            bail!(
                "{} answers GET {path} with {} {said:?}, not {wanted:?}",
                server.name,
                answer.status
            );
        }
    }
    Ok(median(times))
}

fn report(outcome: &mut Outcome, path: &str, servers: &[Server], rounds: &[Vec<f64>]) {
    let rows = servers.iter().zip(rounds).map(|(server, times)| {
        let (time, spread) = (median(times.iter().copied()), spread(times) * 100.0);
        vec![server.name.clone(), number(time), format!("{spread:.1} %")]
    });
    let title = format!("time of the guest's code for GET {path}");
    outcome.table(&title, &["", "ms", "spread"], rows.collect());
    if let [mine, its] = rounds {
        let ratio = median(mine.iter().zip(its).map(|(mine, its)| mine / its));
        outcome.at_most(
            &format!("GET {path}: cloister / wasmtime serve"),
            1.03,
            ratio,
        );
    }
    outcome.figure(path, json!({"ms": rounds}));
}
