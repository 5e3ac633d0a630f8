//! The node under measurement: the release executable, as operators run it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cloister_tests::admin::Admin;
use cloister_tests::client::{Answer, Body, empty, full};
use serde_json::{Value, json};

use super::{PATIENCE, Process, Server};
use crate::bench::{Bench, Component};

/// The tenant that every node has.
pub(crate) const DEFAULT: &str = "default";

/// Quotas that no row of these reaches.
const GENEROUS: u64 = 16 << 40;

/// A running node.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Where apps are served.
    pub(crate) listen: SocketAddr,
    admin: Admin,
    running: Rc<Running>,
}

/// What ends with the last copy of a node.
#[derive(Debug)]
struct Running {
    process: Process,
    folder: Rc<tempfile::TempDir>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Asked, so that its workers are gone before its folder is removed.
        self.process.end();
    }
}

/// How the VMs of an app are asked for.
#[derive(Debug, Clone)]
pub(super) struct Vms {
    node: Node,
    app: String,
}

impl Vms {
    /// Exits of all VMs that the app has.
    pub(super) async fn exits(&self) -> Result<u64> {
        let vms = self.node.vms().await?;
        let mine = vms.iter().filter(|vm| vm["app"] == *self.app);
        Ok(mine.filter_map(|vm| vm["exits"].as_u64()).sum())
    }
}

impl Node {
    /// Starts a node on a folder of its own.
    pub(crate) fn start(bench: &Bench) -> Result<Self> {
        Self::start_on(bench, &Rc::new(tempfile::tempdir()?))
    }

    /// Starts a node on a folder that an earlier one may have left.
    pub(crate) fn start_on(bench: &Bench, folder: &Rc<tempfile::TempDir>) -> Result<Self> {
        let data = folder.path();
        let endpoints = data.join("endpoints.json");
        if let Err(error) = std::fs::remove_file(&endpoints)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error.into());
        }
        let log = data.join("perf.log");
        let mut command = Command::new(&bench.cloister);
        command
            .args([
                "__node",
                "--listen",
                "127.0.0.1:0",
                "--admin",
                "127.0.0.1:0",
            ])
            .args(["--api-rate", "0", "--log", "warn", "--data"])
            .arg(data)
            .stdout(Stdio::null())
            .stderr(Stdio::from(std::fs::File::create(&log)?));
        let mut process = Process::start(&mut command)?;
        let begin = Instant::now();
        loop {
            let found = std::fs::read(&endpoints).ok();
            let found: Option<Value> = found.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            if let Some(found) = found {
                return Self::found(&found, process, folder);
            }
            if let Err(error) = process.lives("the node") {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                return Err(error.context(said));
            }
            if begin.elapsed() > PATIENCE {
                bail!("waited {PATIENCE:?} in vain for the node");
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn found(found: &Value, process: Process, folder: &Rc<tempfile::TempDir>) -> Result<Self> {
        let address = |name: &str| -> Result<SocketAddr> {
            Ok(found[name].as_str().context("no address")?.parse()?)
        };
        let token = std::fs::read_to_string(folder.path().join("admin-token"))?;
        Ok(Self {
            listen: address("listen")?,
            admin: Admin {
                addr: address("admin")?,
                token: token.trim().to_owned(),
            },
            running: Rc::new(Running {
                process,
                folder: Rc::clone(folder),
            }),
        })
    }

    /// The daemon's process.
    pub(crate) fn pid(&self) -> u32 {
        self.running.process.id()
    }

    /// What the node has written to its own log: warnings and errors.
    pub(crate) fn said(&self) -> String {
        let file = self.running.folder.path().join("perf.log");
        std::fs::read_to_string(file).unwrap_or_default()
    }

    /// Makes a tenant that there may be already, with quotas that are not in the way.
    pub(crate) async fn tenant(&self, name: &str) -> Result<()> {
        let path = format!("/v1/tenants/{name}");
        self.send("PUT", &path, "application/json", empty()).await?;
        let quotas =
            json!({"quotas": {"apps": 10_000, "deployments": 100_000, "memory_bytes": GENEROUS}});
        self.call("PATCH", &path, &quotas).await?;
        Ok(())
    }

    /// Uploads a component for a tenant; its digest.
    pub(crate) async fn upload(&self, tenant: &str, component: &Component) -> Result<String> {
        let path = format!("/v1/tenants/{tenant}/components");
        let body = full(component.bytes.clone());
        let said = self.send("POST", &path, "application/wasm", body).await?;
        Ok(said["digest"].as_str().context("no digest")?.to_owned())
    }

    /// Deploys what was uploaded. `more` has what is not to be as it is by default.
    pub(crate) async fn deploy(
        &self,
        tenant: &str,
        app: &str,
        digest: &str,
        more: &Value,
    ) -> Result<()> {
        let mut request = more.clone();
        request["digest"] = digest.into();
        let path = format!("/v1/tenants/{tenant}/apps/{app}/deployments");
        self.call("POST", &path, &request).await?;
        Ok(())
    }

    /// Uploads and deploys for the default tenant.
    pub(crate) async fn app(
        &self,
        app: &str,
        component: &Component,
        more: Value,
    ) -> Result<Server> {
        let digest = self.upload(DEFAULT, component).await?;
        let begin = Instant::now();
        self.deploy(DEFAULT, app, &digest, &more).await?;
        eprintln!("  {app} deployed in {:.2} s", begin.elapsed().as_secs_f64());
        Ok(self.server(app))
    }

    /// An app of the default tenant.
    pub(crate) fn server(&self, app: &str) -> Server {
        Server {
            name: "cloister".to_owned(),
            address: self.listen,
            host: format!("{app}.localhost"),
            pid: self.pid(),
            vms: Some(Vms {
                node: self.clone(),
                app: app.to_owned(),
            }),
            _keep: Rc::clone(&self.running) as Rc<dyn std::any::Any>,
        }
    }

    /// Each VM, and each deployment that has none, as the status tells it.
    pub(crate) async fn vms(&self) -> Result<Vec<Value>> {
        let mut status = self
            .send("GET", "/v1/status", "application/json", empty())
            .await?;
        match status["vms"].take() {
            Value::Array(vms) => Ok(vms),
            _ => bail!("no vms in the status"),
        }
    }

    /// Waits until no deployment has a VM.
    pub(crate) async fn sleeps(&self, limit: Duration) -> Result<()> {
        let begin = Instant::now();
        loop {
            let vms = self.vms().await?;
            let awake = vms.iter().filter(|vm| vm["state"] != "stopped").count();
            if awake == 0 {
                return Ok(());
            }
            if begin.elapsed() > limit {
                bail!("waited {limit:?} in vain for {awake} deployments to scale to zero");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        self.send(method, path, "application/json", full(body.to_string()))
            .await
    }

    async fn send(&self, method: &str, path: &str, kind: &str, body: Body) -> Result<Value> {
        let answer: Answer = self.admin.try_call(method, path, kind, body).await?;
        if !answer.status.is_success() {
            bail!("{method} {path}: {} {}", answer.status, answer.text());
        }
        Ok(serde_json::from_slice(&answer.body)?)
    }
}

/// Whether an executable is there to be measured.
pub(crate) fn check(exe: &Path) -> Result<()> {
    if !exe.is_file() {
        bail!(
            "{} is not there: cargo build --release makes it",
            exe.display()
        );
    }
    Ok(())
}
