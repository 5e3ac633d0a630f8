//! What the node is doing: the answer of `GET /v1/status`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{AppName, DeploymentId, Isolation, TenantName};

/// The node as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Version of the node.
    pub version: String,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Version of wasmtime that runs in the VMs.
    pub wasmtime: String,
    /// Every VM.
    pub vms: Vec<VmStatus>,
    /// Every worker process.
    pub workers: Vec<WorkerStatus>,
}

/// How a VM is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum VmState {
    /// It boots and loads its component.
    Starting,
    /// It serves.
    Ready,
    /// It broke and is being restored.
    Lost,
    /// There is none: it was idle, or taken down.
    Stopped,
}

/// One VM; or a deployment that has none at the moment, whose next request starts one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmStatus {
    /// The tenant that it belongs to.
    pub tenant: TenantName,
    /// The app that it serves.
    pub app: AppName,
    /// The deployment that it serves.
    pub deployment: DeploymentId,
    /// How it is.
    pub state: VmState,
    /// How much requests of the deployment are kept apart.
    #[serde(default)]
    pub isolation: Isolation,
    /// Requests that it has answered; the deployment's first VM counts those of VMs that are gone.
    pub requests: u64,
    /// Requests that ended in a trap.
    pub traps: u64,
    /// Times that it was built anew.
    pub restores: u64,
    /// Times that it was put back to its template.
    #[serde(default)]
    pub resets: u64,
    /// Exits from the VM to the VMM.
    pub exits: u64,
    /// Memory that it has resident, in bytes.
    pub resident_bytes: u64,
}

/// One worker process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerStatus {
    /// The tenant whose VMs it holds.
    pub tenant: TenantName,
    /// Its process id; none while it is being restarted.
    pub pid: Option<u32>,
    /// Times that it was restarted.
    pub restarts: u64,
}
