//! What daemon and worker say to each other.

use serde::{Deserialize, Serialize};

/// A microVM's number, given by the daemon and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VmId(pub u64);

/// How a VM begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Begin {
    /// It boots.
    Boot,
    /// It boots, and its memory is written to the template's file, which is empty.
    BootAndSave,
    /// It begins with the template, and sleeps until it is woken.
    Template,
}

/// Daemon to worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type", deny_unknown_fields)]
pub enum Command {
    /// Make a VM and run it. Descriptors, in this order: the artifact (a file, read-only), the rings' memory (a sealed
    /// memfd), the eventfd that wakes the guest, the eventfd that the guest's doorbell writes, the guest's configuration as
    /// `sandbox-abi` encodes it (a sealed memfd; the worker has it copied into the guest and never reads it, as there are
    /// secrets in it); the template's file, if one is read or written; with `reset`, the eventfd that asks for a reset and
    /// the one that says that it was made.
    CreateVm {
        /// Its number.
        vm: VmId,
        /// Bytes of RAM.
        memory: u64,
        /// How it begins.
        begin: Begin,
        /// Whether it may be put back to its template.
        reset: bool,
    },
    /// End a VM and free what it held. Answered by [`Event::Stopped`].
    StopVm {
        /// Its number.
        vm: VmId,
    },
    /// Ask for [`Event::Stats`].
    Stats,
}

/// Worker to daemon.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type", deny_unknown_fields)]
pub enum Event {
    /// The VM runs; the guest itself says on its ring when it is ready.
    Started {
        /// Its number.
        vm: VmId,
        /// Microseconds from the command until the first entry into the guest.
        setup_us: u64,
    },
    /// No VM could be made: the machine's fault, or the daemon's, never the guest's.
    NotStarted {
        /// Its number.
        vm: VmId,
        /// Why, for humans.
        reason: String,
    },
    /// The VM is gone, by its own fault or the machine's. Everything it held is freed.
    Lost {
        /// Its number.
        vm: VmId,
        /// Why, for humans; may quote the guest.
        reason: String,
    },
    /// The VM is gone as it was told to.
    Stopped {
        /// Its number.
        vm: VmId,
    },
    /// The template's file is written, but not synced.
    Saved {
        /// Its number.
        vm: VmId,
        /// Bytes of the file.
        bytes: u64,
    },
    /// The template's file cannot be written; the VM goes on.
    NotSaved {
        /// Its number.
        vm: VmId,
        /// Why, for humans.
        reason: String,
    },
    /// The template is of no use, and no VM was made.
    BadTemplate {
        /// Its number.
        vm: VmId,
        /// Why, for humans.
        reason: String,
    },
    /// A line that the guest's runtime wrote for the operator.
    Debug {
        /// Its number.
        vm: VmId,
        /// The line, at most 8 KiB.
        line: String,
    },
    /// One entry for each VM.
    Stats {
        /// The entries.
        vms: Vec<VmStats>,
    },
}

/// What a worker knows of a VM.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct VmStats {
    /// Its number.
    pub vm: VmId,
    /// Exits to the VMM since it was made.
    pub exits: u64,
    /// Kicks that found wasm code running.
    pub preemptions: u64,
    /// Bytes of the VM's RAM and system slot that are resident.
    pub resident: u64,
}
