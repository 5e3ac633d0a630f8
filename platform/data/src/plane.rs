//! The data plane as its callers see it: start, warm, publish, drain.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use platform_model::{VmStatus, WorkerStatus};

use crate::{LogSink, RouteTable, Target};

/// How the data plane is started.
#[derive(Clone)]
pub struct DataConfig {
    /// Where it listens for HTTP; port 0 picks a free one.
    pub listen: SocketAddr,
    /// The executable of the worker; it is started with the one argument `__worker`.
    pub worker: PathBuf,
    /// Where the output of components goes.
    pub logs: Arc<dyn LogSink>,
}

/// The data plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be had.
    #[error("cannot listen on {address}: choose another with --listen")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
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
    address: SocketAddr,
}

impl DataPlane {
    /// Listens and serves an empty table. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn start(config: DataConfig) -> Result<Self, StartError> {
        Ok(Self { address: config.listen })
    }

    /// The address that it listens on, with the port that was picked.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Starts a VM for `target` and waits until its guest is ready for requests. The VM is kept until the target is
    /// published or discarded. A target that runs already is ready at once.
    ///
    /// # Errors
    /// Why it does not start; nothing of it is left then.
    pub async fn warm(&self, _target: Arc<Target>) -> Result<WarmReport, WarmError> {
        Err(WarmError::Stopped)
    }

    /// Stops the VM of a target that was warmed and never published. One that is published is left alone.
    pub fn discard(&self, _target: &Target) {}

    /// Serves `table` from now on. Targets that are no longer in it finish what they have in flight and are stopped.
    pub fn publish(&self, _table: RouteTable) {}

    /// What is running. Asks the workers for their figures, and waits at most half a second for them.
    pub async fn status(&self) -> DataStatus {
        DataStatus::default()
    }

    /// Takes no more connections, lets requests in flight finish until `deadline` has passed, then stops every VM.
    pub async fn drain(&self, _deadline: Duration) {}
}
