//! The data plane: router, sandbox pool, rings to the guests, egress.
//!
//! ```text
//! client ──HTTP──> router ──> link ══ rings ══ guest (in a VM of the tenant's worker process)
//!                                └──> egress ──HTTP──> other servers
//! ```
//!
//! # Invariants
//! - No `unsafe`, no KVM: a VM is known here by its rings, two eventfds and what its worker says of it.
//! - Whatever a guest writes is copied once and then judged, in [`link`]; a guest that breaks the contract loses its
//!   VM, and nobody else loses anything.
//! - Nothing here stores anything: what is to be served comes whole, as a [`RouteTable`].
//!
//! # Map
//! | module | what |
//! |---|---|
//! | `target`, `routes`, `plane`, `log_sink` | what the control plane and the daemon call |
//! | `tls` | certificates, by the name that a client asks for |
//! | `router` | connections, HTTP's rules, the way of one request |
//! | `link` | the rings to one VM and the exchanges on them |
//! | `pool` | deployments and their VMs, worker processes |
//! | `failure`, `sync` | how errors are told; locks and descriptors |
//! | `usage` | what deployments, apps and tenants take, counted against policies |
//! | `egress` | requests that guests send out |
//! | [`metrics`] | what is counted, and how it is read |
//! | [`trace`] | which requests are traced, and the spans of which |
//!
//! [`link`]: self
#![forbid(unsafe_code)]

mod egress;
mod failure;
mod link;
mod log_sink;
pub mod metrics;
mod plane;
mod pool;
mod router;
mod routes;
mod sync;
mod target;
mod tls;
pub mod trace;
mod usage;

pub use egress::policy::is_public;
pub use log_sink::{AccessRecord, LogRecord, LogSink, NoLogs};
pub use plane::{
    DataConfig, DataPlane, DataStatus, Observe, Outcomes, ProbeError, StartError, WarmError,
    WarmReport,
};
pub use routes::{Backend, Destination, HostRoutes, Hsts, PathRoute, RouteTable};
pub use target::Target;
pub use tls::{Certificate, CertificateError, CertificateTable};
