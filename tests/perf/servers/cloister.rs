//! The node under measurement: the release executable, as operators run it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::Component;
use crate::peer::{Process, Server, first_answer, memory_of};

/// How long the node may take until it serves.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running node with one app.
#[derive(Debug)]
pub(crate) struct Cloister {
    process: Process,
    listen: SocketAddr,
    admin: SocketAddr,
    token: String,
    exe: PathBuf,
    component: Component,
    folder: tempfile::TempDir,
}

/// The executable beside this program, unless another is given.
fn executable(given: Option<&Path>) -> Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name("cloister");
    let exe = given.map_or(beside, Path::to_owned);
    if !exe.is_file() {
        bail!(
            "{} is not there: cargo build --release makes it",
            exe.display()
        );
    }
    Ok(exe)
}

/// Starts a daemon on a data folder; its addresses when it serves.
fn spawn(exe: &Path, data: &Path) -> Result<(Process, SocketAddr, SocketAddr)> {
    let endpoints = data.join("endpoints.json");
    if let Err(error) = std::fs::remove_file(&endpoints)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error.into());
    }
    let child = Command::new(exe)
        .args([
            "__node",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--data",
        ])
        .arg(data)
        .env("RUST_LOG", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::from(std::fs::File::create(data.join("perf.log"))?))
        .spawn()?;
    let mut process = Process(child);
    let begin = Instant::now();
    loop {
        let found: Option<Value> = std::fs::read(&endpoints)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if let Some(found) = found {
            let address = |name: &str| {
                Ok::<_, anyhow::Error>(found[name].as_str().context("no address")?.parse()?)
            };
            return Ok((process, address("listen")?, address("admin")?));
        }
        if let Some(status) = process.0.try_wait()? {
            let said = std::fs::read_to_string(data.join("perf.log")).unwrap_or_default();
            bail!("the node ended with {status}: {said}");
        }
        if begin.elapsed() > PATIENCE {
            bail!("waited {PATIENCE:?} in vain for the node");
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

impl Cloister {
    /// Starts a node on a fresh folder and deploys the component with the command line.
    pub(crate) fn start(exe: Option<&Path>, component: &Component) -> Result<Self> {
        let exe = executable(exe)?;
        let folder = tempfile::tempdir()?;
        let (process, listen, admin) = spawn(&exe, folder.path())?;
        let token = std::fs::read_to_string(folder.path().join("admin-token"))?
            .trim()
            .to_owned();
        let node = Self {
            process,
            listen,
            admin,
            token,
            exe,
            component: component.clone(),
            folder,
        };
        let begin = Instant::now();
        node.deploy(&component.name)?;
        eprintln!("  deployed in {:.2} s", begin.elapsed().as_secs_f64());
        Ok(node)
    }

    fn deploy(&self, app: &str) -> Result<()> {
        let output = Command::new(&self.exe)
            .arg("--url")
            .arg(format!("http://{}", self.admin))
            .arg("--token-file")
            .arg(self.folder.path().join("admin-token"))
            .arg("deploy")
            .arg(&self.component.file)
            .args(["--app", app, "--json"])
            .output()?;
        if !output.status.success() {
            bail!(
                "the deploy failed: {}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }

    fn status(&self) -> Result<Value> {
        let admin = cloister_tests::admin::Admin {
            addr: self.admin,
            token: self.token.clone(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let answer = runtime.block_on(admin.try_call(
            "GET",
            "/v1/status",
            "application/json",
            cloister_tests::client::empty(),
        ))?;
        Ok(serde_json::from_slice(&answer.body)?)
    }
}

impl Server for Cloister {
    fn name(&self) -> &'static str {
        "cloister"
    }
    fn address(&self) -> SocketAddr {
        self.listen
    }
    fn host(&self) -> String {
        format!("{}.localhost", self.component.name)
    }

    /// Daemon and worker together.
    fn memory(&self) -> Result<u64> {
        let daemon = self.process.0.id();
        let mut pids = cloister_tests::process::children(daemon);
        pids.push(daemon);
        memory_of(&pids)
    }

    /// A node that starts on data which has the app: the daemon, the worker, the VM, the first answer.
    fn cold_start(&self, path: &str, rounds: u32) -> Result<Vec<Duration>> {
        let folder = tempfile::tempdir()?;
        let host = self.host();
        let one = |deploys: bool| {
            let begin = Instant::now();
            let (process, listen, admin) = spawn(&self.exe, folder.path())?;
            if deploys {
                let token = std::fs::read_to_string(folder.path().join("admin-token"))?;
                let output = Command::new(&self.exe)
                    .args([
                        "--url",
                        &format!("http://{admin}"),
                        "deploy",
                        "--app",
                        &self.component.name,
                        "--json",
                    ])
                    .env("CLOISTER_TOKEN", token.trim())
                    .arg(&self.component.file)
                    .output()?;
                if !output.status.success() {
                    bail!(
                        "the deploy failed: {}",
                        String::from_utf8_lossy(&output.stderr)
                    );
                }
            }
            let time = first_answer(listen, &host, path, begin);
            cloister_tests::process::terminate(process.0.id());
            let mut process = process;
            process.0.wait()?;
            time
        };
        one(true)?;
        (0..rounds).map(|_| one(false)).collect()
    }

    fn exits(&self) -> Result<Option<u64>> {
        let status = self.status()?;
        let vms = status["vms"].as_array().context("no vms in the status")?;
        Ok(Some(vms.iter().filter_map(|vm| vm["exits"].as_u64()).sum()))
    }
}
