//! A long body that goes to the component and comes back while it goes, beside `wasmtime serve`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use cloister_tests::client::Connection;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::json;

use crate::bench::Bench;
use crate::compare::in_turns;
use crate::figures::{median, spread};
use crate::memory::MIB;
use crate::report::{Outcome, number};
use crate::servers::cloister::Node;
use crate::servers::{Server, wasmtime};

/// Bytes of a piece that the client sends at once.
const PIECE: usize = 64 << 10;
/// Pieces of a whole body: 1 GiB.
const PIECES: usize = (1 << 30) / PIECE;
/// How long a body may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Measures.
pub(super) async fn run(bench: &Bench) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let (component, path) = bench.component_or_probe("rust-echo", "/", "/echo", &mut outcome)?;
    let pieces = if bench.quick { PIECES / 64 } else { PIECES };
    let node = Node::start(bench)?;
    let mut servers = vec![node.app("stream", &component, json!({})).await?];
    servers.extend(wasmtime::beside(bench, &component, &mut outcome)?);
    // No two pages of a piece are alike, so that what comes in another order is noticed.
    let piece: Vec<u8> = (0..PIECE)
        .map(|n| (n ^ (n >> 8) ^ (n >> 12)) as u8)
        .collect();
    let piece = Bytes::from(piece);
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); servers.len()];
    for n in in_turns(bench.rounds, servers.len()) {
        let echoed = tokio::time::timeout(PATIENCE, echo(&servers[n], path, &piece, pieces));
        let time = echoed
            .await
            .with_context(|| format!("waited in vain for {}", servers[n].name))??;
        rates[n].push((pieces * PIECE) as f64 / MIB / time.as_secs_f64());
    }
    let rows = servers.iter().zip(&rates).map(|(server, rates)| {
        let (rate, spread) = (median(rates.iter().copied()), spread(rates) * 100.0);
        vec![server.name.clone(), number(rate), format!("{spread:.0} %")]
    });
    let title = format!(
        "{} MiB there and back over one connection",
        (pieces * PIECE) >> 20
    );
    outcome.table(&title, &["", "MiB/s", "spread"], rows.collect());
    if let [mine, its] = rates.as_slice() {
        let ratio = median(mine.iter().zip(its).map(|(mine, its)| mine / its));
        outcome.at_least("MiB/s: cloister / wasmtime serve", 2.0, ratio);
    }
    outcome.figure("mib", ((pieces * PIECE) >> 20).into());
    outcome.figure("mib_per_second", json!(rates));
    Ok(outcome)
}

/// Sends pieces and reads them back; the time of that. Each byte that comes is compared with what went.
async fn echo(server: &Server, path: &str, piece: &Bytes, pieces: usize) -> Result<Duration> {
    let begin = Instant::now();
    let mut connection = Connection::h1(server.address).await?;
    let frames = std::iter::repeat_n(piece.clone(), pieces).map(|piece| Ok(Frame::data(piece)));
    let body = StreamBody::new(stream::iter(frames)).boxed();
    let mut request = connection.request("POST", &server.host, path, body);
    let length = pieces * PIECE;
    request
        .headers_mut()
        .insert(http::header::CONTENT_LENGTH, length.into());
    let response = connection.send(request).await?;
    if response.status() != 200 {
        bail!(
            "{} answers POST {path} with {}",
            server.name,
            response.status()
        );
    }
    let mut body = response.into_body();
    let mut got = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        let mut rest = &data[..];
        while !rest.is_empty() {
            let at = got % PIECE;
            let (now, later) = rest.split_at(rest.len().min(PIECE - at));
            if now != &piece[at..at + now.len()] {
                bail!(
                    "{} sends other bytes back than it got, near byte {got}",
                    server.name
                );
            }
            got += now.len();
            rest = later;
        }
    }
    match got == length {
        true => Ok(begin.elapsed()),
        false => bail!("{} sent {got} of {length} bytes back", server.name),
    }
}
