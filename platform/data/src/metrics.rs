//! What is counted of each deployment and of the node, and how it is read.
//!
//! Deployments hold their counters, so a request only adds to numbers that are at hand: it takes no lock and no memory
//! for it. Who reads sums up by app. Numbers of a deployment that is gone stay in those of its app, and go with the
//! app. Apps beyond a maximum are one: so many names of apps are no reason to keep ever more numbers apart.
//!
//! Nothing here knows of a format: the control plane writes what is read here for Prometheus.

mod counters;
mod registry;

pub(crate) use counters::{Counters, Egress, Wait};
pub(crate) use registry::Registry;
pub use registry::{AppMetrics, DataMetrics, NodeFigures};

/// Classes of answers to requests: by status, and `gone` where the client went away before there was one.
pub const CLASSES: [&str; 5] = ["2xx", "3xx", "4xx", "5xx", "gone"];

/// Kinds of traps: those of wasm, then those by which the node ends a component. What a guest says decides between the
/// former; it is believed as far as its app's own numbers go.
pub const TRAPS: [&str; 11] = [
    "unreachable",
    "stack",
    "memory_bounds",
    "indirect_call",
    "arithmetic",
    "exit",
    "other",
    "cpu_limit",
    "memory_limit",
    "post_return_limit",
    "deadline",
];

/// Outcomes of requests that components send: by status, or why there was none.
pub const EGRESS: [&str; 7] = ["2xx", "3xx", "4xx", "5xx", "denied", "failed", "cancelled"];

/// Upper bounds of the times of requests, in microseconds; what is longer comes behind the last.
pub const REQUEST_BOUNDS: [u64; 18] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// Upper bounds of waits, in microseconds; what is longer comes behind the last.
pub const WAIT_BOUNDS: [u64; 7] = [
    1_000, 5_000, 25_000, 100_000, 500_000, 2_500_000, 10_000_000,
];

/// How many times were how long. `N` is one more than there are bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times<const N: usize> {
    /// How many were within each bound and beyond the one before; the last are beyond all.
    pub counts: [u64; N],
    /// All of them together, in microseconds.
    pub sum_us: u64,
}

impl<const N: usize> Default for Times<N> {
    fn default() -> Self {
        Self {
            counts: [0; N],
            sum_us: 0,
        }
    }
}

impl<const N: usize> Times<N> {
    fn add(&mut self, other: &Self) {
        add_all(&mut self.counts, &other.counts);
        self.sum_us += other.sum_us;
    }
}

/// Figures of a deployment, or of several together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Requests that ended, by [`CLASSES`].
    pub requests: [u64; CLASSES.len()],
    /// From the end of a request's head to the end of its response, by [`REQUEST_BOUNDS`].
    pub duration: Times<{ REQUEST_BOUNDS.len() + 1 }>,
    /// Responses that were cut off: the component failed, or the client went away.
    pub cut_off: u64,
    /// Waits for a turn, of the requests that had to wait, by [`WAIT_BOUNDS`].
    pub queue_wait: Times<{ WAIT_BOUNDS.len() + 1 }>,
    /// Waits for a VM, of the requests that found none, by [`WAIT_BOUNDS`].
    pub cold_start: Times<{ WAIT_BOUNDS.len() + 1 }>,
    /// VMs that got ready.
    pub vm_starts: u64,
    /// VMs that were lost after they were ready.
    pub vm_losses: u64,
    /// Traps, by [`TRAPS`].
    pub traps: [u64; TRAPS.len()],
    /// Processor time that requests took in the guest, in nanoseconds.
    pub cpu_ns: u64,
    /// Bytes of requests' bodies that were read.
    pub bytes_in: u64,
    /// Bytes of responses' bodies that were handed to connections.
    pub bytes_out: u64,
    /// Requests that components sent, by [`EGRESS`].
    pub egress: [u64; EGRESS.len()],
    /// Requests that are under way.
    pub in_flight: u64,
    /// Requests that wait for their turn.
    pub waiting: u64,
    /// The most wasm memory that a request had, in bytes.
    pub memory_max: u64,
}

impl Figures {
    /// Adds the figures of others.
    fn add(&mut self, other: &Self) {
        add_all(&mut self.requests, &other.requests);
        self.duration.add(&other.duration);
        self.cut_off += other.cut_off;
        self.queue_wait.add(&other.queue_wait);
        self.cold_start.add(&other.cold_start);
        self.vm_starts += other.vm_starts;
        self.vm_losses += other.vm_losses;
        add_all(&mut self.traps, &other.traps);
        self.cpu_ns += other.cpu_ns;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        add_all(&mut self.egress, &other.egress);
        // Those of one thread may be below nothing.
        self.in_flight = self.in_flight.wrapping_add(other.in_flight);
        self.waiting = self.waiting.wrapping_add(other.waiting);
        self.memory_max = self.memory_max.max(other.memory_max);
    }

    /// What stays of them when their deployment is gone.
    fn past(self) -> Self {
        Self {
            in_flight: 0,
            waiting: 0,
            memory_max: 0,
            ..self
        }
    }
}

fn add_all(sums: &mut [u64], others: &[u64]) {
    for (sum, other) in sums.iter_mut().zip(others) {
        *sum += other;
    }
}
