//! What Cloister is compared with: `wasmtime serve` as it comes, and hyper with nothing behind it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::Component;

/// How long a server may take until it answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server under measurement.
pub(crate) trait Server {
    /// Its name in the report.
    fn name(&self) -> &'static str;
    /// Where it listens.
    fn address(&self) -> SocketAddr;
    /// The host that requests name.
    fn host(&self) -> String;
    /// Memory of all its processes, in bytes, each page counted once.
    fn memory(&self) -> Result<u64>;
    /// Times from "there is no process or VM" to the first answer.
    fn cold_start(&self, path: &str, rounds: u32) -> Result<Vec<Duration>>;
    /// Exits from its VMs so far, where it has any.
    fn exits(&self) -> Result<Option<u64>> {
        Ok(None)
    }
    /// What it answers to a request.
    fn answer(&self, path: &str) -> Result<Answer> {
        ask(self.address(), &self.host(), path)
    }
}

/// A whole answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) kind: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// A child that ends with its owner.
#[derive(Debug)]
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends one request over a connection of its own.
pub(crate) fn ask(address: SocketAddr, host: &str, path: &str) -> Result<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let what = format!("an answer of {address}");
        let answer =
            tokio::time::timeout(PATIENCE, cloister_tests::client::get(address, host, path));
        let answer = answer
            .await
            .with_context(|| format!("waited in vain for {what}"))??;
        let kind = answer
            .headers
            .get("content-type")
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned);
        Ok(Answer {
            status: answer.status.as_u16(),
            kind,
            body: answer.body.to_vec(),
        })
    })
}

/// Asks with a bare socket until there is a first answer: no client library in the time that counts.
pub(crate) fn first_answer(
    address: SocketAddr,
    host: &str,
    path: &str,
    begin: Instant,
) -> Result<Duration> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    while begin.elapsed() < PATIENCE {
        let Ok(mut stream) = TcpStream::connect(address) else {
            std::thread::sleep(Duration::from_micros(500));
            continue;
        };
        let mut answer = Vec::new();
        if stream.write_all(request.as_bytes()).is_ok()
            && stream.read_to_end(&mut answer).is_ok()
            && answer.starts_with(b"HTTP/1.1 2")
        {
            return Ok(begin.elapsed());
        }
    }
    bail!("waited {PATIENCE:?} in vain for the first answer of {address}")
}

/// Proportional set sizes of these processes together, in bytes.
pub(crate) fn memory_of(pids: &[u32]) -> Result<u64> {
    let mut sum = 0;
    for pid in pids {
        let file = format!("/proc/{pid}/smaps_rollup");
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib: u64 = line
            .and_then(|l| l.split_whitespace().next())
            .context("no Pss")?
            .parse()?;
        sum += kib * 1024;
    }
    Ok(sum)
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// `wasmtime serve` with its defaults, and the command-line world that Cloister gives too.
#[derive(Debug)]
pub(crate) struct Wasmtime {
    process: Process,
    address: SocketAddr,
    exe: PathBuf,
    component: PathBuf,
    /// Compiled ahead, so that starting again does not measure the compiler.
    _folder: tempfile::TempDir,
}

impl Wasmtime {
    /// Compiles and serves a component.
    pub(crate) fn start(component: &Component) -> Result<Self> {
        let exe = find_wasmtime()?;
        let folder = tempfile::tempdir()?;
        let compiled = folder.path().join("component.cwasm");
        let done = Command::new(&exe)
            .arg("compile")
            .arg(&component.file)
            .arg("-o")
            .arg(&compiled)
            .status()?;
        if !done.success() {
            bail!("wasmtime compile failed with {done}");
        }
        let (process, address) = serve(&exe, &compiled)?;
        first_answer(address, "localhost", "/", Instant::now()).ok();
        Ok(Self {
            process,
            address,
            exe,
            component: compiled,
            _folder: folder,
        })
    }
}

fn serve(exe: &Path, compiled: &Path) -> Result<(Process, SocketAddr)> {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let child = Command::new(exe)
        .args([
            "serve",
            "-S",
            "cli",
            "--allow-precompiled",
            "--addr",
            &address.to_string(),
        ])
        .arg(compiled)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok((Process(child), address))
}

/// `$WASMTIME`, the PATH, or the usual place of the peers of this comparison.
fn find_wasmtime() -> Result<PathBuf> {
    let given = std::env::var_os("WASMTIME").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::var_os("HOME")
        .map(|home| PathBuf::from(home).join(".cache/cloister-peers/bin/wasmtime"));
    let places = given
        .into_iter()
        .chain(std::env::split_paths(&path).map(|folder| folder.join("wasmtime")))
        .chain(home);
    places
        .into_iter()
        .find(|file| file.is_file())
        .context("no wasmtime to compare with: install it or set WASMTIME")
}

impl Server for Wasmtime {
    fn name(&self) -> &'static str {
        "wasmtime serve"
    }
    fn address(&self) -> SocketAddr {
        self.address
    }
    fn host(&self) -> String {
        "localhost".to_owned()
    }
    fn memory(&self) -> Result<u64> {
        memory_of(&[self.process.0.id()])
    }
    fn cold_start(&self, path: &str, rounds: u32) -> Result<Vec<Duration>> {
        let one = || {
            let begin = Instant::now();
            let (_process, address) = serve(&self.exe, &self.component)?;
            first_answer(address, "localhost", path, begin)
        };
        (0..rounds).map(|_| one()).collect()
    }
}

/// A hyper server that always says the same, in a process of its own.
#[derive(Debug)]
pub(crate) struct Hyper {
    process: Process,
    address: SocketAddr,
    answer: tempfile::NamedTempFile,
}

impl Hyper {
    /// Serves this answer.
    pub(crate) fn start(answer: &Answer) -> Result<Self> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), serde_json::to_vec(answer)?)?;
        let (process, address) = Self::spawn(file.path())?;
        Ok(Self {
            process,
            address,
            answer: file,
        })
    }

    fn spawn(answer: &Path) -> Result<(Process, SocketAddr)> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--serve-hyper")
            .arg(answer)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().context("no output")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        let process = Process(child);
        let address = line
            .trim()
            .parse()
            .with_context(|| format!("the bare server said {line:?}"))?;
        Ok((process, address))
    }
}

impl Server for Hyper {
    fn name(&self) -> &'static str {
        "bare hyper"
    }
    fn address(&self) -> SocketAddr {
        self.address
    }
    fn host(&self) -> String {
        "localhost".to_owned()
    }
    fn memory(&self) -> Result<u64> {
        memory_of(&[self.process.0.id()])
    }
    fn cold_start(&self, path: &str, rounds: u32) -> Result<Vec<Duration>> {
        let one = || {
            let begin = Instant::now();
            let (_process, address) = Self::spawn(self.answer.path())?;
            first_answer(address, "localhost", path, begin)
        };
        (0..rounds).map(|_| one()).collect()
    }
}

/// The bare server's process: prints its address, then answers until it is ended.
pub(crate) fn serve_hyper(answer: &Path) -> Result<()> {
    use std::convert::Infallible;

    let answer: Answer = serde_json::from_slice(&std::fs::read(answer)?)?;
    let body = bytes::Bytes::from(answer.body);
    let status = http::StatusCode::from_u16(answer.status)?;
    let kind = answer
        .kind
        .map(|kind| http::HeaderValue::from_str(&kind))
        .transpose()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let (body, kind) = (body.clone(), kind.clone());
            tokio::spawn(async move {
                let service = hyper::service::service_fn(move |_request| {
                    let mut response = http::Response::new(http_body_util::Full::new(body.clone()));
                    *response.status_mut() = status;
                    if let Some(kind) = &kind {
                        response
                            .headers_mut()
                            .insert(http::header::CONTENT_TYPE, kind.clone());
                    }
                    std::future::ready(Ok::<_, Infallible>(response))
                });
                let io = hyper_util::rt::TokioIo::new(stream);
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(io, service)
                    .await;
            });
        }
    })
}
