//! The load of the soak: what is asked for, how often, and what it has to answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use cloister_tests::client::{Answer, Connection, empty, full};
use cloister_tests::dice::Dice;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::bench::{Bench, probe};
use crate::report::Outcome;
use crate::servers::cloister::Node;

/// Clients, each with one connection.
const CLIENTS: u32 = 32;
/// Bytes of a body that is echoed.
const BODY: usize = 64 << 10;
/// Processor time that a loop without end has, in milliseconds.
const CPU_MS: u64 = 20;
/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Errors that are kept for the report.
const KEPT: usize = 100;

/// What a request is to come to.
#[derive(Debug, Clone)]
enum Wanted {
    /// 200 with so many bytes; what they are may have the time in it.
    Says(usize),
    /// 200 with the body that was sent.
    Echoes,
    /// This status.
    Fails(u16),
    /// A body without end begins; the client goes away.
    IsLeft,
}

/// A kind of request.
#[derive(Debug, Clone)]
struct Kind {
    name: &'static str,
    host: String,
    path: &'static str,
    wanted: Wanted,
    /// So many of all weights together.
    weight: u64,
}

/// What is asked for.
#[derive(Debug)]
pub(super) struct Mix {
    address: SocketAddr,
    kinds: Vec<Kind>,
    body: Bytes,
}

/// How it went.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Requests, however they went.
    pub(super) asked: u64,
    /// Those that went as they should, by kind.
    pub(super) answered: BTreeMap<&'static str, u64>,
    /// What went wrong with the others: the first of each client.
    pub(super) wrong: Vec<String>,
}

impl Mix {
    /// Deploys what there is, each app with one VM, so that the number of VMs does not move what is measured.
    pub(super) async fn deploy(bench: &Bench, node: &Node, outcome: &mut Outcome) -> Result<Self> {
        let one = json!({"scale": {"min": 1, "max": 1}});
        let mut kinds = Vec::new();
        for (name, weight) in [("rust-hello", 40), ("js-hello", 20), ("py-hello", 5)] {
            let Some(component) = bench.component(name, outcome)? else {
                continue;
            };
            let server = node.app(name, &component, one.clone()).await?;
            let answer = server.answer("/").await?;
            ensure!(
                answer.status == 200,
                "{name} answers with {}",
                answer.status
            );
            let wanted = Wanted::Says(answer.body.len());
            kinds.push(Kind {
                name,
                host: server.host,
                path: "/",
                wanted,
                weight,
            });
        }
        let (component, path) = bench.component_or_probe("rust-echo", "/", "/echo", outcome)?;
        let echo = node.app("echo", &component, one.clone()).await?.host;
        let endless = node.app("endless", &probe(), one).await?.host;
        let more = json!({"scale": {"min": 1, "max": 1}, "limits": {"cpu_ms": CPU_MS}});
        let faults = node.app("faults", &probe(), more).await?.host;
        for (name, host, path, wanted, weight) in [
            ("echo of 64 KiB", &echo, path, Wanted::Echoes, 15),
            (
                "client that goes away",
                &endless,
                "/endless",
                Wanted::IsLeft,
                8,
            ),
            ("trap", &faults, "/trap/unreachable", Wanted::Fails(500), 10),
            (
                "loop that is killed",
                &faults,
                "/spin",
                Wanted::Fails(504),
                1,
            ),
        ] {
            kinds.push(Kind {
                name,
                host: host.clone(),
                path,
                wanted,
                weight,
            });
        }
        Ok(Self {
            address: node.listen,
            kinds,
            body: (0..BODY).map(|n| (n % 251) as u8).collect(),
        })
    }

    /// Asks for this time: so many times a second, or as often as it is answered.
    pub(super) async fn load(self: &Arc<Self>, rate: Option<f64>, time: Duration) -> Result<Tally> {
        let mut clients = JoinSet::new();
        let until = Instant::now() + time;
        for n in 0..CLIENTS {
            clients.spawn(Arc::clone(self).client(n, rate, until));
        }
        let mut all = Tally::default();
        while let Some(tally) = clients.join_next().await {
            let tally = tally.context("a client failed")?;
            all.asked += tally.asked;
            for (kind, count) in tally.answered {
                *all.answered.entry(kind).or_default() += count;
            }
            all.wrong.extend(tally.wrong);
        }
        Ok(all)
    }

    async fn client(self: Arc<Self>, n: u32, rate: Option<f64>, until: Instant) -> Tally {
        let mut tally = Tally::default();
        let mut dice = Dice::seeded(u64::from(n));
        let mut tick = rate.map(|rate| {
            let period = Duration::from_secs_f64(f64::from(CLIENTS) / rate);
            let first =
                tokio::time::Instant::now() + period.mul_f64(f64::from(n) / f64::from(CLIENTS));
            let mut tick = tokio::time::interval_at(first, period);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            tick
        });
        let mut open = None;
        while Instant::now() < until {
            if let Some(tick) = &mut tick {
                tick.tick().await;
            }
            let kind = self.roll(&mut dice);
            tally.asked += 1;
            let asked = tokio::time::timeout(PATIENCE, self.ask(kind, &mut open)).await;
            match asked.context("no answer in time").flatten() {
                Ok(()) => *tally.answered.entry(kind.name).or_default() += 1,
                Err(error) => {
                    open = None;
                    if tally.wrong.len() < KEPT {
                        tally.wrong.push(format!("{}: {error:#}", kind.name));
                    }
                }
            }
        }
        tally
    }

    fn roll(&self, dice: &mut Dice) -> &Kind {
        let sum = self.kinds.iter().map(|kind| kind.weight).sum();
        let mut left = dice.roll(sum);
        for kind in &self.kinds {
            if left < kind.weight {
                return kind;
            }
            left -= kind.weight;
        }
        &self.kinds[0]
    }

    async fn ask(&self, kind: &Kind, open: &mut Option<Connection>) -> Result<()> {
        let connection = match open {
            Some(connection) => connection,
            None => open.insert(Connection::h1(self.address).await?),
        };
        let (method, body) = match kind.wanted {
            Wanted::Echoes => ("POST", full(self.body.clone())),
            _ => ("GET", empty()),
        };
        let request = connection.request(method, &kind.host, kind.path, body);
        let response = connection.send(request).await?;
        let status = response.status().as_u16();
        if let Wanted::IsLeft = kind.wanted {
            let first = response.into_body().frame().await;
            ensure!(
                status == 200 && matches!(first, Some(Ok(_))),
                "{status} without a body"
            );
            *open = None;
            return Ok(());
        }
        let answer = Answer::of(response).await?;
        match &kind.wanted {
            Wanted::Says(length) if status == 200 && answer.body.len() == *length => Ok(()),
            Wanted::Echoes if status == 200 && answer.body == self.body => Ok(()),
            Wanted::Fails(wanted) if status == *wanted => Ok(()),
            _ => bail!("{status} {:.200}", answer.text()),
        }
    }
}
