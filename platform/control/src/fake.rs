//! Neighbours for tests: a compiler that copies, and sandboxes that only remember.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use platform_data::metrics::DataMetrics;
use platform_data::{
    CertificateTable, DataStatus, Outcomes, ProbeError, RouteTable, Target, WarmError, WarmReport,
};
use platform_model::{DeploymentId, HostName, Proof};

use crate::acme::{Acme, AcmeConfig};
use crate::components::Components;
use crate::data_dir::DataDir;
use crate::engine::{Engine, Parts};
use crate::keyring::Keyring;
use crate::logs::Logs;
use crate::proof::{Prover, Unproved};
use crate::sandbox::{BoxFuture, CompileFailure, Compiled, Compiler, Sandboxes};
use crate::store::{Records, SledStore};

/// Copies components; refuses those that begin with `bad`.
#[derive(Debug)]
pub(crate) struct Copier;

impl Compiler for Copier {
    fn compile(&self, component: &Path, folder: &Path) -> Result<Compiled, CompileFailure> {
        let content = fs::read(component).map_err(|e| CompileFailure::Failed(e.to_string()))?;
        if content.starts_with(b"bad") {
            return Err(CompileFailure::Rejected {
                code: "component-not-wasm",
                detail: "this is not WebAssembly".to_owned(),
            });
        }
        let artifact = folder.join(component.with_extension("cwasm").file_name().unwrap());
        // "imports NAME NAME", as a stand-in for what a component imports.
        let text = String::from_utf8_lossy(&content).into_owned();
        let imports = text.strip_prefix("imports ").unwrap_or_default();
        let imports = imports.split_whitespace().map(str::to_owned).collect();
        fs::write(&artifact, content).unwrap();
        Ok(Compiled { artifact, imports })
    }
}

/// What was asked of the sandboxes.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    /// Host and deployment, as last published.
    pub(crate) routes: BTreeMap<String, DeploymentId>,
    /// What the components that were last published see.
    pub(crate) env: BTreeMap<String, BTreeMap<String, String>>,
    /// Deployments that were warmed.
    pub(crate) warmed: Vec<DeploymentId>,
    /// Deployments that were discarded.
    pub(crate) discarded: Vec<DeploymentId>,
    /// The table, as last published.
    pub(crate) table: RouteTable,
    /// The certificates, as last published.
    pub(crate) certificates: CertificateTable,
    /// Proofs of domains that are found, by what a TXT record holds.
    pub(crate) proofs: Vec<String>,
    /// How requests of deployments ended, as a test wants it.
    pub(crate) outcomes: BTreeMap<DeploymentId, Outcomes>,
}

/// Sandboxes that only remember. An artifact that begins with `lazy` does not start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory(pub(crate) Arc<Mutex<Remembered>>);

impl Sandboxes for Memory {
    fn warm(&self, target: Arc<Target>) -> BoxFuture<'_, Result<WarmReport, WarmError>> {
        let mut remembered = self.0.lock().unwrap();
        remembered.warmed.push(target.deployment);
        let lazy = fs::read(&target.artifact).unwrap().starts_with(b"lazy");
        let report = WarmReport {
            setup: Duration::ZERO,
            ready: Duration::ZERO,
        };
        let answer = if lazy {
            Err(WarmError::Refused("it has no handler".to_owned()))
        } else {
            Ok(report)
        };
        Box::pin(std::future::ready(answer))
    }

    fn probe<'a>(
        &'a self,
        target: &'a Arc<Target>,
        _: &'a str,
        _: Duration,
    ) -> BoxFuture<'a, Result<u16, ProbeError>> {
        let sick = fs::read(&target.artifact).unwrap().starts_with(b"sick");
        Box::pin(std::future::ready(Ok(if sick { 503 } else { 204 })))
    }

    fn outcomes(&self, target: &Target) -> Option<Outcomes> {
        let remembered = self.0.lock().unwrap();
        remembered.outcomes.get(&target.deployment).copied()
    }

    fn publish_certificates(&self, table: CertificateTable) {
        self.0.lock().unwrap().certificates = table;
    }

    fn discard(&self, target: &Target) {
        self.0.lock().unwrap().discarded.push(target.deployment);
    }

    fn publish(&self, table: RouteTable) {
        let mut remembered = self.0.lock().unwrap();
        remembered.routes.clear();
        remembered.env.clear();
        for (host, target) in table.iter() {
            let env = target.env.iter();
            let env = env.map(|(name, value)| (name.clone(), value.expose().to_owned()));
            remembered.env.insert(host.to_owned(), env.collect());
            remembered.routes.insert(host.to_owned(), target.deployment);
        }
        remembered.table = table;
    }

    fn status(&self) -> BoxFuture<'_, DataStatus> {
        Box::pin(std::future::ready(DataStatus::default()))
    }

    fn metrics(&self) -> DataMetrics {
        DataMetrics::default()
    }
}

impl Prover for Memory {
    fn prove<'a>(
        &'a self,
        domain: &'a HostName,
        proof: &'a Proof,
    ) -> BoxFuture<'a, Result<(), Unproved>> {
        assert!(proof.txt_name.ends_with(domain.as_str()));
        let found = self.0.lock().unwrap().proofs.contains(&proof.txt_value);
        let none = || Unproved {
            dns: "no record".to_owned(),
            http: "no answer".to_owned(),
        };
        Box::pin(std::future::ready(found.then_some(()).ok_or_else(none)))
    }
}

/// A certificate authority.
fn acme(directory: &str) -> Acme {
    let config = AcmeConfig {
        directory: directory.to_owned(),
        contact: None,
        roots: None,
    };
    Acme::new(config).unwrap()
}

/// An engine with fake neighbours on a data folder. The folder is unlocked when the value is dropped.
pub(crate) struct Node {
    pub(crate) dir: DataDir,
    pub(crate) engine: Arc<Engine>,
    pub(crate) sandboxes: Memory,
}

impl Node {
    /// Starts as the daemon does.
    pub(crate) async fn start(folder: &Path) -> Self {
        // Nothing is asked of it: certificates are obtained by `Engine::certify` alone.
        Self::start_with(folder, "https://ca.invalid/directory").await
    }

    /// Starts with the directory of a certificate authority.
    pub(crate) async fn start_with(folder: &Path, directory: &str) -> Self {
        let dir = DataDir::open(folder).unwrap();
        let sandboxes = Memory::default();
        let engine = Engine::new(Parts {
            records: Records::new(Arc::new(SledStore::open(&dir.store()).unwrap())),
            keyring: Keyring::open(folder, None, &[]).unwrap(),
            components: Components::open(dir.components()).unwrap(),
            artifacts: dir.artifacts(),
            compiler: Arc::new(Copier),
            sandboxes: Arc::new(sandboxes.clone()),
            logs: Logs::open(dir.logs()).unwrap(),
            port: 7380,
            prover: Arc::new(sandboxes.clone()),
            acme: Some(acme(directory)),
        });
        engine.start().await.unwrap();
        Self {
            dir,
            engine,
            sandboxes,
        }
    }

    /// Names of the files in a folder of the data folder.
    pub(crate) fn files(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.dir.root().join(folder)).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// What the app `shop` of the default tenant sees, as `NAME=VALUE`.
    pub(crate) fn env(&self) -> Vec<String> {
        let remembered = self.sandboxes.0.lock().unwrap();
        let env = remembered.env.get("shop.localhost").into_iter().flatten();
        env.map(|(name, value)| format!("{name}={value}")).collect()
    }

    /// Host and deployment, as last published.
    pub(crate) fn routes(&self) -> Vec<(String, u64)> {
        let routes = &self.sandboxes.0.lock().unwrap().routes;
        routes
            .iter()
            .map(|(host, id)| (host.clone(), id.0))
            .collect()
    }
}
