//! The data plane as its callers see it: start, warm, publish, drain.
//!
//! What runs here runs on the runtime that it was started in, whichever one its callers are on: the daemon gives the control
//! plane threads of its own, so that nothing which blocks those is on the way of a request.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use platform_model::{VmStatus, WorkerStatus};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use crate::egress::Egress;
use crate::metrics::{DataMetrics, Registry};
use crate::pool::Pool;
use crate::router::observe::Observer;
use crate::router::server::Server;
use crate::router::service::{self, Service};
use crate::router::table::Table;
use crate::tls::{self, CertificateTable};
use crate::trace::{Tracer, Tracing};
use crate::{LogSink, RouteTable, Target};

/// How the data plane is started.
#[derive(Clone)]
pub struct DataConfig {
    /// Where it listens for HTTP; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where it listens for HTTPS, if it does; port 0 picks a free one.
    pub listen_tls: Option<SocketAddr>,
    /// The executable of the worker; it is started with the one argument `__worker`.
    pub worker: PathBuf,
    /// Where the output of components goes.
    pub logs: Arc<dyn LogSink>,
    /// What is seen of requests, beside what is counted.
    pub observe: Observe,
    /// A folder, which must exist, for templates: the memory of VMs that have loaded their component, for others to begin
    /// with. Without one every VM boots, and none can be put back.
    pub templates: Option<PathBuf>,
}

/// What is seen of requests.
#[derive(Debug, Clone)]
pub struct Observe {
    /// Whether each request is told to the log sink when it has ended.
    pub access: bool,
    /// Apps whose figures are kept apart; those beyond are one.
    pub listed_apps: usize,
    /// How requests are traced, if they are.
    pub tracing: Option<Tracing>,
}

impl Default for Observe {
    /// Nothing is told and nothing traced; 1,000 apps are kept apart.
    fn default() -> Self {
        Self {
            access: false,
            listed_apps: 1000,
            tracing: None,
        }
    }
}

/// The data plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be had.
    #[error("cannot listen on {address}: choose another with {flag}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// The daemon's flag for it.
        flag: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

/// What starting a target took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WarmReport {
    /// Time in the worker until the guest was entered.
    pub setup: Duration,
    /// Time from the request for a VM until the guest said that it is ready.
    pub ready: Duration,
}

/// A target did not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WarmError {
    /// The guest or the worker refused it; the text says why and names what is missing.
    #[error("the component does not start: {0}")]
    Refused(String),
    /// It was not ready in time.
    #[error("the component was not ready within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The node could not make a VM; not the component's fault.
    #[error("no VM could be made: {0}")]
    Unavailable(String),
    /// It was discarded, or the node is draining.
    #[error("the component was stopped before it was ready")]
    Stopped,
}

/// A target did not answer a probe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// It failed; the text says how.
    #[error("the component did not answer: {0}")]
    Failed(String),
    /// It took too long.
    #[error("the component did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
}

/// How the requests of a target ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Requests that were handed to it.
    pub requests: u64,
    /// Those that were answered with a status from 500 on, by it or for it, or cut off.
    pub errors: u64,
}

/// What the data plane is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DataStatus {
    /// Every VM, in the order of tenant, app, deployment.
    pub vms: Vec<VmStatus>,
    /// Every worker process, in the order of tenants.
    pub workers: Vec<WorkerStatus>,
}

/// The data plane. Clones are the same one.
#[derive(Clone)]
pub struct DataPlane {
    inner: Arc<Inner>,
}

struct Inner {
    /// What its tasks run on.
    runtime: Handle,
    address: SocketAddr,
    tls_address: Option<SocketAddr>,
    pool: Pool,
    service: Arc<Service>,
    server: Arc<Server>,
}

impl DataPlane {
    /// Listens; until the first table is published, requests get 503. Must be called within the tokio runtime that it is to
    /// run on.
    ///
    /// # Errors
    /// When an address cannot be had.
    pub fn start(config: DataConfig) -> Result<Self, StartError> {
        let (listener, address) = listen(config.listen, "--listen")?;
        let secure = config.listen_tls;
        let secure = secure
            .map(|address| listen(address, "--listen-tls"))
            .transpose()?;
        let tls_address = secure.as_ref().map(|(_, address)| *address);
        let registry = Arc::new(Registry::new(config.observe.listed_apps));
        let observer = Observer {
            registry: Arc::clone(&registry),
            access: config.observe.access.then(|| Arc::clone(&config.logs)),
            tracer: config.observe.tracing.map(Tracer::new).map(Arc::new),
            started: Instant::now(),
        };
        let egress = Arc::new(Egress::default());
        let pool = Pool::new(
            config.worker,
            config.logs,
            egress,
            registry,
            config.templates,
        );
        let tls_port = tls_address.map(|address| address.port());
        let service = Arc::new(Service::new(observer, tls_port));
        let server = Arc::new(Server::new(Arc::clone(&service)));
        if let Some((listener, _)) = secure {
            let acceptor = tls::acceptor(Arc::clone(&service.certificates));
            let acceptor = acceptor.map_err(|error| StartError::Tls(error.to_string()))?;
            tokio::spawn(Arc::clone(&server).accept(listener, Some(acceptor)));
        }
        tokio::spawn(Arc::clone(&server).accept(listener, None));
        Ok(Self {
            inner: Arc::new(Inner {
                runtime: Handle::current(),
                address,
                tls_address,
                pool,
                service,
                server,
            }),
        })
    }

    /// The address that it listens on, with the port that was picked.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.inner.address
    }

    /// The address that it listens on for HTTPS, if it does.
    #[must_use]
    pub fn local_tls_addr(&self) -> Option<SocketAddr> {
        self.inner.tls_address
    }

    /// Starts a VM for `target` and waits until its guest is ready for requests. The VM is kept until the target is
    /// published or discarded. A target that runs already is ready at once.
    ///
    /// # Errors
    /// Why it does not start; nothing of it is left then.
    pub async fn warm(&self, target: Arc<Target>) -> Result<WarmReport, WarmError> {
        let deployment = {
            let _runtime = self.inner.runtime.enter();
            self.inner.pool.deployment(&target, false)
        };
        let warmed = deployment.ready().await;
        if warmed.is_err() {
            self.discard(&target);
        }
        warmed
    }

    /// Asks a target that was warmed or published for `path` with a GET, through its VM and past the route table, and
    /// waits for the whole answer; its status.
    ///
    /// # Errors
    /// When there is no answer of the component's within `time`, or it is cut off.
    pub async fn probe(
        &self,
        target: &Arc<Target>,
        path: &str,
        time: Duration,
    ) -> Result<u16, ProbeError> {
        let (plane, target, path) = (self.clone(), Arc::clone(target), path.to_owned());
        let asked = async move {
            let deployment = plane.inner.pool.deployment(&target, false);
            let answer = service::probe(&deployment, &path).await;
            let answer = answer.map_err(|reject| ProbeError::Failed(reject.problem("").detail))?;
            let status = answer.status().as_u16();
            let mut body = answer.into_body();
            while let Some(frame) = body.frame().await {
                frame.map_err(|error| ProbeError::Failed(error.to_string()))?;
            }
            Ok(status)
        };
        let asked = tokio::time::timeout(time, asked);
        let asked = AbortOnDropHandle::new(self.inner.runtime.spawn(asked));
        let failed = |error: tokio::task::JoinError| ProbeError::Failed(error.to_string());
        let answered = asked.await.map_err(failed)?;
        answered.unwrap_or(Err(ProbeError::Timeout(time)))
    }

    /// Requests that were handed to a target since it was last started, and those of them that failed. Nothing where
    /// it does not run.
    #[must_use]
    pub fn outcomes(&self, target: &Target) -> Option<Outcomes> {
        let (requests, errors) = self.inner.pool.outcomes(&target.key())?;
        Some(Outcomes { requests, errors })
    }

    /// Stops the VM of a target that was warmed and never published. One that is published is left alone.
    pub fn discard(&self, target: &Target) {
        self.inner.pool.discard(&target.key());
    }

    /// Serves `table` from now on. Targets that are no longer in it finish what they have in flight and are stopped.
    pub fn publish(&self, table: RouteTable) {
        let inner = &self.inner;
        let _runtime = inner.runtime.enter();
        let mut kept = HashSet::new();
        let table = Table::compile(table, &inner.pool, &mut kept);
        let fields = table.max_fields;
        inner.server.max_fields.store(fields, Ordering::Relaxed);
        let before = inner.service.table.swap(Arc::new(table));
        inner.pool.keep(&kept);
        if !before.published {
            inner.pool.clean_templates();
        }
    }

    /// Serves connections that begin from now on with the certificates of `table`.
    pub fn publish_certificates(&self, table: CertificateTable) {
        self.inner.service.certificates.store(Arc::new(table));
    }

    /// What is running. Asks the workers for their figures, and waits at most half a second for them.
    pub async fn status(&self) -> DataStatus {
        self.inner.pool.status().await
    }

    /// All that is counted. Asks nobody, and takes no time to speak of.
    #[must_use]
    pub fn metrics(&self) -> DataMetrics {
        self.inner.service.observer.registry.read()
    }

    /// Takes no more connections, lets requests in flight finish until `deadline` has passed, then stops every VM.
    pub async fn drain(&self, deadline: Duration) {
        let by = tokio::time::Instant::now() + deadline;
        self.inner.server.drain(deadline).await;
        let left = by.saturating_duration_since(tokio::time::Instant::now());
        self.inner.pool.shut_down(left).await;
    }
}

/// Listens on an address; the one that it got.
fn listen(
    address: SocketAddr,
    flag: &'static str,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let bind = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    bind().map_err(|source| StartError::Listen {
        address,
        flag,
        source,
    })
}
