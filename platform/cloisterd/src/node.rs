//! The daemon: starts the parts in order, waits for a signal, stops them in order.
//!
//! Start: data folder, state, keys, token, addresses, apps, admin API, `endpoints.json`. Stop: `endpoints.json` is removed,
//! the admin API takes no more requests, requests to the apps in flight are answered, logs are stored.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use platform_control::api::{About, Api};
use platform_control::components::Components;
use platform_control::data_dir::{DataDir, DataDirError};
use platform_control::engine::{Engine, Parts};
use platform_control::keyring::{self, Keyring};
use platform_control::logs::Logs;
use platform_control::store::records::{Prefix, SecretRecord};
use platform_control::store::{Records, SledStore};
use platform_data::{DataConfig, DataPlane};
use platform_model::{Endpoints, Secret};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::compiler::CompilerProcess;
use crate::failure::Failure;
use crate::options::Options;
use crate::{kvm, logging, token};

/// The file that says where the node listens.
const ENDPOINTS: &str = "endpoints.json";

/// Version of wasmtime that compiles components and runs them: the one that the workspace pins.
const WASMTIME: &str = "48.0.8";

/// How long requests in flight have when the node stops.
const DRAIN: Duration = Duration::from_secs(30);

/// How long the admin API has for its own when the node stops.
const ADMIN_DRAIN: Duration = Duration::from_secs(5);

/// Runs the daemon until it is told to stop.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    logging::start(options.log_format);
    let started = Instant::now();
    kvm::check(Path::new(kvm::DEVICE))?;
    raise_file_limit();
    forbid_core_files();
    let dir = DataDir::open(&options.data)?;
    remove_endpoints(&dir)?;
    let records = Records::new(Arc::new(open_store(&dir)?));
    let keyring = open_keyring(&dir, &records)?;
    let token = token::read_or_create(&dir)?;
    let admin = listen(options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(part("the runtime"))?;
    let ended = runtime.block_on(async {
        let state = State {
            records,
            keyring,
            token,
        };
        let node = Node::start(options, &dir, state, admin, started).await?;
        wait_for_signal().await?;
        node.stop(&dir).await;
        Ok(())
    });
    // Whatever still blocks a thread ends with the process.
    runtime.shutdown_background();
    ended
}

/// Opens the stored state. sled panics where its files are damaged; that becomes an error, and needs no report of its
/// own. From here on panics are lines of the log.
fn open_store(dir: &DataDir) -> Result<SledStore, Failure> {
    std::panic::set_hook(Box::new(|_| {}));
    let store = SledStore::open(&dir.store());
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!("a bug of the node, please report it: {panic}");
    }));
    Ok(store?)
}

/// Opens the keys of secrets. One that is missing is made only where nothing is sealed yet.
fn open_keyring(dir: &DataDir, records: &Records) -> Result<Keyring, Failure> {
    let variable = std::env::var(keyring::VARIABLE).ok().map(Secret::new);
    let sealed = records.page(&Prefix::<SecretRecord>::all(), None, 1);
    let sealed = sealed.map_err(|e| Failure::Restore(e.into()))?;
    let any = !sealed.items.is_empty();
    Ok(Keyring::open(dir.root(), variable.as_ref(), any)?)
}

/// What the node has when it starts.
struct State {
    records: Records,
    keyring: Keyring,
    token: String,
}

/// The parts that run.
struct Node {
    data: DataPlane,
    logs: Logs,
    stop: CancellationToken,
    admin: JoinHandle<io::Result<()>>,
}

impl Node {
    async fn start(
        options: &Options,
        dir: &DataDir,
        state: State,
        admin: TcpListener,
        started: Instant,
    ) -> Result<Self, Failure> {
        let exe = std::env::current_exe().map_err(part("the executable again"))?;
        let logs = Logs::open(dir.logs()).map_err(part("the log"))?;
        let data = DataPlane::start(DataConfig {
            listen: options.listen,
            listen_tls: options.listen_tls,
            worker: exe.clone(),
            logs: Arc::new(logs.clone()),
        })?;
        let engine = Engine::new(Parts {
            records: state.records,
            keyring: state.keyring,
            components: components(dir)?,
            artifacts: dir.artifacts(),
            compiler: Arc::new(CompilerProcess { exe }),
            sandboxes: Arc::new(data.clone()),
            logs: logs.clone(),
            port: data.local_addr().port(),
        });
        engine.start().await.map_err(Failure::Restore)?;
        let stop = CancellationToken::new();
        tokio::spawn(Arc::clone(&engine).keep_house(stop.clone()));
        let about = About {
            version: env!("CARGO_PKG_VERSION"),
            wasmtime: WASMTIME,
            started,
            requests_per_second: options.api_rate,
        };
        let router = Api::new(engine, &state.token, about, stop.clone()).router();
        let address = admin.local_addr().map_err(part("the admin API"))?;
        let admin = tokio::net::TcpListener::from_std(admin).map_err(part("the admin API"))?;
        let shutdown = stop.clone().cancelled_owned();
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let serve = axum::serve(admin, service).with_graceful_shutdown(shutdown);
        let admin = tokio::spawn(async move { serve.await });
        let endpoints = Endpoints {
            listen: data.local_addr(),
            admin: address,
            listen_tls: data.local_tls_addr(),
        };
        write_endpoints(dir, &endpoints)?;
        warn_if_open(&endpoints);
        tracing::info!(listen = %endpoints.listen, admin = %endpoints.admin, data = %dir.root().display(),
            took = ?started.elapsed(), "ready");
        Ok(Self {
            data,
            logs,
            stop,
            admin,
        })
    }

    /// Stops the parts. A second signal ends the process at once.
    async fn stop(self, dir: &DataDir) {
        tracing::info!("stopping: requests in flight are answered first");
        if let Err(error) = remove_endpoints(dir) {
            tracing::warn!(%error, "could not remove {ENDPOINTS}");
        }
        self.stop.cancel();
        let stopped = async {
            self.data.drain(DRAIN).await;
            // Deploys that are on their way are cut off after this: they leave nothing.
            let admin = tokio::time::timeout(ADMIN_DRAIN, self.admin).await;
            if admin.is_err() {
                tracing::warn!("admin requests were cut off");
            }
            self.logs.stop().await;
        };
        tokio::select! {
            () = stopped => tracing::info!("stopped"),
            _ = wait_for_signal() => tracing::warn!("stopped by a second signal: requests were cut off"),
        }
    }
}

fn components(dir: &DataDir) -> Result<Components, Failure> {
    let folder: PathBuf = dir.components();
    let opened = Components::open(folder.clone());
    opened.map_err(|e| DataDirError::from_io(&folder, e).into())
}

/// Binds the admin API's address.
fn listen(options: &Options) -> Result<TcpListener, Failure> {
    let bind = || {
        let listener = TcpListener::bind(options.admin)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    bind().map_err(|source| Failure::Admin {
        address: options.admin,
        source,
    })
}

/// Waits for SIGTERM or SIGINT.
async fn wait_for_signal() -> Result<(), Failure> {
    let failed = part("listening to signals");
    let mut terminate = match signal(SignalKind::terminate()) {
        Ok(signal) => signal,
        Err(e) => return Err(failed(e)),
    };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

fn write_endpoints(dir: &DataDir, endpoints: &Endpoints) -> Result<(), Failure> {
    let text = serde_json::to_vec(endpoints).map_err(|e| part("the endpoints")(e.into()))?;
    Ok(dir.write_file(ENDPOINTS, &text, 0o644)?)
}

fn remove_endpoints(dir: &DataDir) -> Result<(), DataDirError> {
    let path = dir.root().join(ENDPOINTS);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(DataDirError::from_io(&path, e)),
        _ => Ok(()),
    }
}

/// The admin API is plain HTTP: beyond this host its token could be read on the way.
fn warn_if_open(endpoints: &Endpoints) {
    if !endpoints.admin.ip().is_loopback() {
        tracing::warn!(admin = %endpoints.admin, "the admin API is plain HTTP and not on loopback: anybody on the way can read its token");
    }
}

/// Raises the limit of open files to what is allowed: each connection is one, each VM three.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "could not raise the limit of open files");
    }
}

/// No core files: they would have secrets in them.
fn forbid_core_files() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "could not forbid core files");
    }
}

/// Names the part that did not start.
fn part(what: &'static str) -> impl Fn(io::Error) -> Failure {
    move |source| Failure::Part { what, source }
}

#[cfg(test)]
mod tests {
    use super::WASMTIME;

    #[test]
    fn the_version_is_the_one_that_is_pinned() {
        let workspace = include_str!("../../../Cargo.toml");
        let pinned = format!("wasmtime = {{ version = \"={WASMTIME}\"");
        assert!(workspace.contains(&pinned));
    }
}
