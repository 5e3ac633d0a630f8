//! The two neighbours that the engine works with, as traits: who compiles, and who runs.
//!
//! The node plugs in the compiler's process and the data plane; tests plug in something smaller.

use std::fmt::Debug;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use std::time::Duration;

use platform_data::metrics::DataMetrics;
use platform_data::{
    CertificateTable, DataPlane, DataStatus, Outcomes, ProbeError, RouteTable, Target, WarmError,
    WarmReport,
};

/// A future that a trait object gives.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why a component was not compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileFailure {
    /// It is not a component that can be served; the text says why.
    #[error("{detail}")]
    Rejected {
        /// A stable word for the case, such as `component-empty`.
        code: &'static str,
        /// What is wrong and what to do.
        detail: String,
    },
    /// It needs more memory or time to compile than there is for it.
    #[error("{0}")]
    Limit(String),
    /// There is no room for the artifact.
    #[error("{0}")]
    DiskFull(String),
    /// The compiler failed; not the component's fault.
    #[error("{0}")]
    Failed(String),
}

/// A component that was compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// The artifact.
    pub artifact: PathBuf,
    /// The interfaces that the component imports, without versions.
    pub imports: Vec<String>,
}

/// Turns a component into an artifact.
pub trait Compiler: Debug + Send + Sync + 'static {
    /// Compiles the file `component` to a file in `folder`, or finds it there. May take minutes: called
    /// where blocking is allowed.
    ///
    /// # Errors
    /// Why it is not compiled.
    fn compile(&self, component: &Path, folder: &Path) -> Result<Compiled, CompileFailure>;
}

/// Runs targets and leads requests to them.
pub trait Sandboxes: Send + Sync + 'static {
    /// Starts a VM for a target; see [`DataPlane::warm`].
    fn warm(&self, target: Arc<Target>) -> BoxFuture<'_, Result<WarmReport, WarmError>>;
    /// Asks a target for a path; see [`DataPlane::probe`].
    fn probe<'a>(
        &'a self,
        target: &'a Arc<Target>,
        path: &'a str,
        time: Duration,
    ) -> BoxFuture<'a, Result<u16, ProbeError>>;
    /// How the requests of a target ended; see [`DataPlane::outcomes`].
    fn outcomes(&self, target: &Target) -> Option<Outcomes>;
    /// Serves certificates; see [`DataPlane::publish_certificates`].
    fn publish_certificates(&self, table: CertificateTable);
    /// Stops the VM of a target that was not published; see [`DataPlane::discard`].
    fn discard(&self, target: &Target);
    /// Serves a table; see [`DataPlane::publish`].
    fn publish(&self, table: RouteTable);
    /// What is running; see [`DataPlane::status`].
    fn status(&self) -> BoxFuture<'_, DataStatus>;
    /// What is counted; see [`DataPlane::metrics`].
    fn metrics(&self) -> DataMetrics;
}

impl Sandboxes for DataPlane {
    fn warm(&self, target: Arc<Target>) -> BoxFuture<'_, Result<WarmReport, WarmError>> {
        Box::pin(DataPlane::warm(self, target))
    }

    fn probe<'a>(
        &'a self,
        target: &'a Arc<Target>,
        path: &'a str,
        time: Duration,
    ) -> BoxFuture<'a, Result<u16, ProbeError>> {
        Box::pin(DataPlane::probe(self, target, path, time))
    }

    fn outcomes(&self, target: &Target) -> Option<Outcomes> {
        DataPlane::outcomes(self, target)
    }

    fn publish_certificates(&self, table: CertificateTable) {
        DataPlane::publish_certificates(self, table);
    }

    fn discard(&self, target: &Target) {
        DataPlane::discard(self, target);
    }

    fn publish(&self, table: RouteTable) {
        DataPlane::publish(self, table);
    }

    fn status(&self) -> BoxFuture<'_, DataStatus> {
        Box::pin(DataPlane::status(self))
    }

    fn metrics(&self) -> DataMetrics {
        DataPlane::metrics(self)
    }
}
