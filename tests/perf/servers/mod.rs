//! Servers under measurement: where each listens, and what keeps it running.

pub(crate) mod cloister;
pub(crate) mod hyper;
pub(crate) mod wasmtime;
pub(crate) mod workerd;

use std::any::Any;
use std::fmt;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use self::cloister::Vms;
use crate::memory;

/// How long a server may take until it answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server under measurement. It runs until the last copy is dropped.
#[derive(Clone)]
pub(crate) struct Server {
    /// Its name in the report.
    pub(crate) name: String,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// The host that requests name.
    pub(crate) host: String,
    /// Its process; what this one started belongs to it.
    pub(crate) pid: u32,
    vms: Option<Vms>,
    /// Ends it when it is dropped.
    _keep: Rc<dyn Any>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {} for {}", self.name, self.address, self.host)
    }
}

impl Server {
    /// Under another name.
    pub(crate) fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Memory of all its processes, in bytes, each page counted once.
    pub(crate) fn memory(&self) -> Result<u64> {
        memory::of_family(self.pid)
    }

    /// Exits from its VMs so far, where it has any.
    pub(crate) async fn exits(&self) -> Result<Option<u64>> {
        match &self.vms {
            Some(vms) => Ok(Some(vms.exits().await?)),
            None => Ok(None),
        }
    }

    /// What it answers to `GET` over a connection of its own.
    pub(crate) async fn answer(&self, path: &str) -> Result<Answer> {
        ask(self.address, &self.host, path).await
    }
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) kind: Option<String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Whether another one says the same, digits aside: they may be the time.
    fn is_like(&self, other: &Self) -> bool {
        let masked = |answer: &Self| -> Vec<u8> {
            let body = answer.body.iter();
            body.map(|byte| if byte.is_ascii_digit() { b'0' } else { *byte })
                .collect()
        };
        self.status == other.status && masked(self) == masked(other)
    }
}

/// Sends one request over a connection of its own, and reads the whole answer.
pub(crate) async fn ask(address: SocketAddr, host: &str, path: &str) -> Result<Answer> {
    let answer = tokio::time::timeout(PATIENCE, cloister_tests::client::get(address, host, path));
    let answer = answer
        .await
        .with_context(|| format!("waited in vain for an answer of {address}"))??;
    let kind = answer.headers.get("content-type");
    let kind = kind.and_then(|value| value.to_str().ok());
    Ok(Answer {
        status: answer.status.as_u16(),
        kind: kind.map(str::to_owned),
        body: answer.body.to_vec(),
    })
}

/// Checks that all servers answer alike and well, so that they are compared at the same work.
pub(crate) async fn all_answer(servers: &[Server], path: &str) -> Result<()> {
    let mut first: Option<Answer> = None;
    for server in servers {
        let answer = server.answer(path).await?;
        if answer.status != 200 {
            bail!("{} answers GET {path} with {}", server.name, answer.status);
        }
        let first = first.get_or_insert_with(|| answer.clone());
        if !first.is_like(&answer) {
            bail!(
                "{} answers GET {path} with {} bytes, {} with {}",
                server.name,
                answer.body.len(),
                servers[0].name,
                first.body.len()
            );
        }
    }
    Ok(())
}

/// A child that ends with its owner.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    /// Starts it with nothing to read, and with its words thrown away unless `command` says otherwise.
    fn start(command: &mut Command) -> Result<Self> {
        let child = command.stdin(Stdio::null()).spawn();
        Ok(Self(
            child.with_context(|| format!("cannot start {command:?}"))?,
        ))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Asks it to end and waits for that; what does not listen is killed when it is dropped.
    pub(crate) fn end(&mut self) {
        let begin = Instant::now();
        if matches!(self.0.try_wait(), Ok(None)) {
            cloister_tests::process::terminate(self.0.id());
        }
        while matches!(self.0.try_wait(), Ok(None)) && begin.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// An error where it has ended already.
    fn lives(&mut self, what: &str) -> Result<()> {
        match self.0.try_wait()? {
            Some(status) => bail!("{what} ended with {status}"),
            None => Ok(()),
        }
    }

    /// Waits until somebody listens.
    fn listens(&mut self, what: &str, address: SocketAddr) -> Result<()> {
        let begin = Instant::now();
        while TcpStream::connect(address).is_err() {
            self.lives(what)?;
            if begin.elapsed() > PATIENCE {
                bail!("waited {PATIENCE:?} in vain for {what} on {address}");
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An address for a server that cannot pick one itself.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
