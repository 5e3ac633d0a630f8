//! The daemon: starts the parts in order, waits for a signal, stops them in order.
//!
//! Start: data folder, state, keys, token, addresses, apps, admin API, `endpoints.json`. Stop: `endpoints.json` is removed,
//! the admin API takes no more requests, requests to the apps in flight are answered, logs are stored.
//!
//! There are two runtimes. Requests to the apps, and signals, are on the one; the control plane is on the other, with threads of
//! its own that the kernel puts last where processors are short. A disk that hangs, or an API that is flooded, so blocks
//! threads that no request of an app needs.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use platform_control::acme::{Acme, AcmeConfig};
use platform_control::api::{About, Api, metrics_router};
use platform_control::components::Components;
use platform_control::data_dir::{DataDir, DataDirError};
use platform_control::engine::{Engine, Parts};
use platform_control::keyring::{self, Keyring};
use platform_control::logs::Logs;
use platform_control::metrics::SpanCounters;
use platform_control::proof::{NetworkProver, ProofConfig};
use platform_control::store::records::{
    AcmeAccountRecord, CertificateRecord, Prefix, Record, SecretRecord,
};
use platform_control::store::{Records, SledStore};
use platform_data::trace::Tracing;
use platform_data::{DataConfig, DataPlane, Observe};
use platform_model::{Endpoints, Secret};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, nice, set_dumpable_behavior, setrlimit,
};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::access::Sinks;
use crate::compiler::CompilerProcess;
use crate::failure::Failure;
use crate::options::{AccessLog, Options};
use crate::otlp::{self, Exporting};
use crate::serve::{Allowed, serve};
use crate::{kvm, logging, token};

/// The file that says where the node listens.
const ENDPOINTS: &str = "endpoints.json";

/// Version of the node.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Version of wasmtime that compiles components and runs them: the one that the workspace pins.
const WASMTIME: &str = "48.0.8";

/// How long requests in flight have when the node stops.
const DRAIN: Duration = Duration::from_secs(30);

/// Time that a client of the control plane has for the head of a request, and for beginning with the next.
const ADMIN_HEAD: Duration = Duration::from_secs(20);

/// How long the admin API has for its own when the node stops.
const ADMIN_DRAIN: Duration = Duration::from_secs(5);

/// Runs the daemon until it is told to stop.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    logging::start(options.log_format, &options.log)?;
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
    let metrics = options.metrics.map(listen_for_metrics).transpose()?;
    let data = data_runtime().map_err(part("the runtime of the data plane"))?;
    let control = control_runtime().map_err(part("the runtime of the control plane"))?;
    let ended = data.block_on(async {
        // From here on a signal is remembered until it is waited for.
        let mut signals = Signals::new().map_err(part("listening to signals"))?;
        let listeners = Listeners { admin, metrics };
        let state = State {
            records,
            keyring,
            token,
        };
        let control = control.handle();
        let node = Node::start(options, &dir, state, listeners, started, control).await?;
        signals.next().await;
        node.stop(&dir, &mut signals).await;
        Ok(())
    });
    // Whatever still blocks a thread ends with the process.
    control.shutdown_background();
    data.shutdown_background();
    ended
}

/// Threads of the control plane that run tasks.
const CONTROL_THREADS: usize = 2;

/// Threads of the control plane that may wait for the disk, or for a compiler. What comes beyond them waits for its turn.
const CONTROL_BLOCKED: usize = 32;

/// How far the control plane stands back behind requests to the apps where processors are short, as a nice value.
const CONTROL_NICE: i32 = 5;

/// What requests to the apps run on.
fn data_runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .thread_name("data")
        .enable_all()
        .build()
}

/// What the control plane runs on.
fn control_runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .thread_name("control")
        .worker_threads(CONTROL_THREADS)
        .max_blocking_threads(CONTROL_BLOCKED)
        .on_thread_start(|| {
            // Of this thread alone, and of the compilers that it starts. Where it may not be, it is as it was.
            let _ = nice(CONTROL_NICE);
        })
        .enable_all()
        .build()
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

/// Addresses that were taken before anything runs.
struct Listeners {
    admin: TcpListener,
    metrics: Option<TcpListener>,
}

/// Records that are read at once.
const PAGE: usize = 1_000;

/// Opens the keys of secrets. One that is missing is made only where nothing is sealed yet.
fn open_keyring(dir: &DataDir, records: &Records) -> Result<Keyring, Failure> {
    let variable = std::env::var(keyring::VARIABLE).ok().map(Secret::new);
    let secrets = keys_of(records, |record: SecretRecord| record.sealed.key);
    let certificates = keys_of(records, |record: CertificateRecord| record.key.key);
    let accounts = keys_of(records, |record: AcmeAccountRecord| record.credentials.key);
    let sealed = [secrets?, certificates?, accounts?].concat();
    Ok(Keyring::open(dir.root(), variable.as_ref(), &sealed)?)
}

/// The ids of the keys that the records of a kind are sealed with.
fn keys_of<R: Record>(records: &Records, id: fn(R) -> String) -> Result<Vec<String>, Failure> {
    let (mut keys, mut after) = (Vec::new(), None);
    loop {
        let page = records.page(&Prefix::<R>::all(), after.as_deref(), PAGE);
        let page = page.map_err(|e| Failure::Restore(e.into()))?;
        keys.extend(page.items.into_iter().map(|stored| id(stored.record)));
        keys.dedup();
        after = page.next;
        if after.is_none() {
            return Ok(keys);
        }
    }
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
    admin: JoinHandle<()>,
    traces: Option<Exporting>,
}

impl Node {
    async fn start(
        options: &Options,
        dir: &DataDir,
        state: State,
        listeners: Listeners,
        started: Instant,
        control: &Handle,
    ) -> Result<Self, Failure> {
        let exe = std::env::current_exe().map_err(part("the executable again"))?;
        let logs = Logs::open(dir.logs()).map_err(part("the log"))?;
        let sinks = Sinks::new(logs.clone(), options.access_log);
        let Traces {
            tracing,
            exporting,
            counters,
        } = {
            let _control = control.enter();
            traces(options)?
        };
        let data = DataPlane::start(DataConfig {
            listen: options.listen,
            listen_tls: options.listen_tls,
            worker: exe.clone(),
            logs: Arc::new(sinks.map_err(part("the access log"))?),
            observe: Observe {
                access: options.access_log != AccessLog::Off,
                listed_apps: options.metrics_apps,
                tracing,
            },
            templates: Some(dir.templates()),
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
            prover: Arc::new(NetworkProver::new(ProofConfig {
                resolver: options.domain_resolver,
                private: options.domain_private,
                ..ProofConfig::default()
            })),
            acme: acme(options)?,
        });
        let starting = Arc::clone(&engine);
        let starting = control.spawn(async move { starting.start().await });
        let begun = starting.await.map_err(|e| part("the engine")(e.into()))?;
        begun.map_err(Failure::Restore)?;
        let stop = CancellationToken::new();
        let _control = control.enter();
        control.spawn(Arc::clone(&engine).keep_house(stop.clone()));
        control.spawn(Arc::clone(&engine).certify(stop.clone()));
        let about = About {
            version: VERSION,
            wasmtime: WASMTIME,
            started,
            spans: counters,
            requests_per_second: options.api_rate,
        };
        let api = Api::new(engine, &state.token, about, stop.clone());
        let allowed = Allowed {
            connections: options.admin_connections,
            head: ADMIN_HEAD,
        };
        let mut metrics = None;
        if let Some(listener) = listeners.metrics {
            let router = metrics_router(api.metrics().clone());
            metrics = Some(
                serve(listener, router, allowed, &stop)
                    .map_err(part("the metrics"))?
                    .0,
            );
        }
        let served = serve(listeners.admin, api.router(), allowed, &stop);
        let (address, admin) = served.map_err(part("the admin API"))?;
        let endpoints = Endpoints {
            listen: data.local_addr(),
            admin: address,
            listen_tls: data.local_tls_addr(),
            metrics,
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
            traces: exporting,
        })
    }

    /// Stops the parts. A second signal ends the process at once.
    async fn stop(self, dir: &DataDir, signals: &mut Signals) {
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
            if let Some(traces) = self.traces {
                traces.stop().await;
            }
        };
        tokio::select! {
            () = stopped => tracing::info!("stopped"),
            () = signals.next() => tracing::warn!("stopped by a second signal: requests were cut off"),
        }
    }
}

/// Where certificates are obtained, if anywhere.
fn acme(options: &Options) -> Result<Option<Acme>, Failure> {
    let Some(directory) = &options.acme_directory else {
        return Ok(None);
    };
    let roots = options.acme_ca.as_ref().map(std::fs::read).transpose();
    let acme = Acme::new(AcmeConfig {
        directory: directory.to_string(),
        contact: options.acme_contact.clone(),
        roots: roots.map_err(part("the file of --acme-ca"))?,
    });
    if options.listen_tls.is_none() {
        tracing::warn!(
            "certificates are obtained, and nothing is served over TLS: see --listen-tls"
        );
    }
    acme.map(Some)
        .map_err(|error| part("--acme-ca")(io::Error::other(error)))
}

/// How requests are traced, and the task that sends what comes of it.
#[derive(Default)]
struct Traces {
    tracing: Option<Tracing>,
    exporting: Option<Exporting>,
    counters: Option<Arc<SpanCounters>>,
}

fn traces(options: &Options) -> Result<Traces, Failure> {
    let Some(endpoint) = &options.otlp_endpoint else {
        return Ok(Traces::default());
    };
    let counters = Arc::new(SpanCounters::default());
    let (sink, exporting) = otlp::start(endpoint, VERSION, &counters)?;
    Ok(Traces {
        tracing: Some(Tracing {
            sink: Arc::new(sink),
            ratio: options.trace_ratio,
        }),
        exporting: Some(exporting),
        counters: Some(counters),
    })
}

fn components(dir: &DataDir) -> Result<Components, Failure> {
    let folder: PathBuf = dir.components();
    let opened = Components::open(folder.clone());
    opened.map_err(|e| DataDirError::from_io(&folder, e).into())
}

/// Binds the admin API's address.
fn listen(options: &Options) -> Result<TcpListener, Failure> {
    let address = options.admin;
    bind(address).map_err(|source| Failure::Admin { address, source })
}

/// Binds the address of the metrics.
fn listen_for_metrics(address: SocketAddr) -> Result<TcpListener, Failure> {
    bind(address).map_err(|source| Failure::Metrics { address, source })
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for one of them.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
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

/// No core files, neither in a folder nor for a program that the kernel hands them to: they would have secrets in them. Nor may
/// another process of the same user look at this one's memory.
fn forbid_core_files() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "could not forbid core files");
    }
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
