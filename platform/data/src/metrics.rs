//! What is counted of each deployment and of the node, and how it is read.
//!
//! Deployments hold their counters, so a request only adds to numbers that are at hand: it takes no lock and no memory
//! for it. Who reads sums up by app. Numbers of a deployment that is gone stay in those of its app, and go with the
//! app. Apps beyond a maximum are one: so many names of apps are no reason to keep ever more numbers apart.
//!
//! Nothing here knows of a format: the control plane writes what is read here for Prometheus.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use sandbox_abi::message::{Done, outcome, reset};

use crate::link::failure::Failure;

mod registry;

pub(crate) use registry::Registry;
pub use registry::{AppMetrics, DataMetrics, NodeFigures};

/// Classes of answers to requests: by status, and `gone` where the client went away before there was one.
pub const CLASSES: [&str; 5] = ["2xx", "3xx", "4xx", "5xx", "gone"];

/// Index of `gone` in [`CLASSES`].
const GONE: usize = 4;

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
pub const REQUEST_BOUNDS: [u64; 16] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// Upper bounds of waits, in microseconds; what is longer comes behind the last.
pub const WAIT_BOUNDS: [u64; 7] = [
    1_000, 5_000, 25_000, 100_000, 500_000, 2_500_000, 10_000_000,
];

/// Requests of a deployment that are told of in a second.
const TOLD: u64 = 1000;

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

/// Times as they are counted.
#[derive(Debug)]
struct Histogram<const N: usize> {
    counts: [AtomicU64; N],
    sum_us: AtomicU64,
}

impl<const N: usize> Histogram<N> {
    const fn new() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; N],
            sum_us: AtomicU64::new(0),
        }
    }

    fn add(&self, bounds: &[u64], time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let place = bounds.partition_point(|bound| *bound < us);
        if let Some(count) = self.counts.get(place) {
            count.fetch_add(1, Relaxed);
        }
        self.sum_us.fetch_add(us, Relaxed);
    }

    fn read(&self) -> Times<N> {
        Times {
            counts: read_all(&self.counts),
            sum_us: self.sum_us.load(Relaxed),
        }
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
        self.in_flight += other.in_flight;
        self.waiting += other.waiting;
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

/// The counters of a deployment.
#[derive(Debug)]
pub(crate) struct Counters {
    requests: [AtomicU64; CLASSES.len()],
    duration: Histogram<{ REQUEST_BOUNDS.len() + 1 }>,
    cut_off: AtomicU64,
    queue_wait: Histogram<{ WAIT_BOUNDS.len() + 1 }>,
    cold_start: Histogram<{ WAIT_BOUNDS.len() + 1 }>,
    vm_starts: AtomicU64,
    vm_losses: AtomicU64,
    traps: [AtomicU64; TRAPS.len()],
    cpu_ns: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    egress: [AtomicU64; EGRESS.len()],
    in_flight: AtomicU64,
    waiting: AtomicU64,
    memory_max: AtomicU64,
    /// The second in which requests were last told of, and how many of that second wanted to be: 32 bits each.
    told: AtomicU64,
    /// The most that `memory_max` can be.
    memory_limit: u64,
}

impl Counters {
    /// Counters of a deployment whose requests may have so many bytes of memory.
    pub(crate) fn new(memory_limit: u64) -> Self {
        Self {
            requests: zeros(),
            duration: Histogram::new(),
            cut_off: AtomicU64::new(0),
            queue_wait: Histogram::new(),
            cold_start: Histogram::new(),
            vm_starts: AtomicU64::new(0),
            vm_losses: AtomicU64::new(0),
            traps: zeros(),
            cpu_ns: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            egress: zeros(),
            in_flight: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            memory_max: AtomicU64::new(0),
            told: AtomicU64::new(0),
            memory_limit,
        }
    }

    /// A request has found its deployment.
    pub(crate) fn begun(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    /// A request that had begun ended after `time`; without a status its client went away before there was an answer.
    pub(crate) fn ended(
        &self,
        status: Option<u16>,
        complete: bool,
        bytes_out: u64,
        time: Duration,
    ) {
        self.in_flight.fetch_sub(1, Relaxed);
        count(&self.requests, status.map_or(GONE, class));
        self.duration.add(&REQUEST_BOUNDS, time);
        if status.is_some() && !complete {
            self.cut_off.fetch_add(1, Relaxed);
        }
        if bytes_out > 0 {
            self.bytes_out.fetch_add(bytes_out, Relaxed);
        }
    }

    /// Whether one more request may be told of in this `second`. Where it may: how many before it were not.
    pub(crate) fn may_tell(&self, second: u64) -> Option<u64> {
        let now = second << 32;
        let tell = |before: u64| {
            let same = before >> 32 == now >> 32;
            Some(if same {
                before.saturating_add(1)
            } else {
                now + 1
            })
        };
        let before = self.told.fetch_update(Relaxed, Relaxed, tell).unwrap_or(0);
        let count = before & u64::from(u32::MAX);
        if before >> 32 != now >> 32 {
            return Some(count.saturating_sub(TOLD));
        }
        (count < TOLD).then_some(0)
    }

    /// Bytes of a request's body were read.
    pub(crate) fn read(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Relaxed);
    }

    /// A request waits for its turn, until the wait is dropped.
    pub(crate) fn queue(&self) -> Wait<'_> {
        self.waiting.fetch_add(1, Relaxed);
        Wait {
            times: &self.queue_wait,
            waiting: Some(&self.waiting),
            began: Instant::now(),
        }
    }

    /// A request waits for a VM, until the wait is dropped.
    pub(crate) fn cold_start(&self) -> Wait<'_> {
        Wait {
            times: &self.cold_start,
            waiting: None,
            began: Instant::now(),
        }
    }

    /// A VM got ready.
    pub(crate) fn vm_started(&self) {
        self.vm_starts.fetch_add(1, Relaxed);
    }

    /// A VM that was ready is lost.
    pub(crate) fn vm_lost(&self) {
        self.vm_losses.fetch_add(1, Relaxed);
    }

    /// The guest says `DONE`: how the request ended, why there was no answer, and what it took. A request is on one
    /// processor and cannot have taken more of it than time has passed, whatever its guest says.
    pub(crate) fn done(&self, how: u32, failure: Option<&Failure>, done: Done, passed: Duration) {
        let passed = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX);
        self.cpu_ns.fetch_add(done.cpu_ns.min(passed), Relaxed);
        let memory = done.memory.min(self.memory_limit);
        if memory > self.memory_max.load(Relaxed) {
            self.memory_max.fetch_max(memory, Relaxed);
        }
        if let Some(kind) = trap(how, failure) {
            count(&self.traps, kind);
        }
    }

    /// A request of a component ended.
    pub(crate) fn egress(&self, outcome: Egress) {
        let kind = match outcome {
            Egress::Answered(status) => class(status),
            Egress::Refused(reset::HTTP_REQUEST_DENIED | reset::DESTINATION_IP_PROHIBITED) => 4,
            Egress::Refused(_) => 5,
            Egress::Cancelled => 6,
        };
        count(&self.egress, kind);
    }

    fn figures(&self) -> Figures {
        Figures {
            requests: read_all(&self.requests),
            duration: self.duration.read(),
            cut_off: self.cut_off.load(Relaxed),
            queue_wait: self.queue_wait.read(),
            cold_start: self.cold_start.read(),
            vm_starts: self.vm_starts.load(Relaxed),
            vm_losses: self.vm_losses.load(Relaxed),
            traps: read_all(&self.traps),
            cpu_ns: self.cpu_ns.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            egress: read_all(&self.egress),
            in_flight: self.in_flight.load(Relaxed),
            waiting: self.waiting.load(Relaxed),
            memory_max: self.memory_max.load(Relaxed),
        }
    }
}

/// How a request of a component ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Egress {
    /// With an answer of this status.
    Answered(u16),
    /// With a code of `wasi:http`.
    Refused(u32),
    /// The component wanted no answer any more, or its VM is gone.
    Cancelled,
}

/// A wait that is counted when it is dropped.
#[derive(Debug)]
pub(crate) struct Wait<'c> {
    times: &'c Histogram<{ WAIT_BOUNDS.len() + 1 }>,
    waiting: Option<&'c AtomicU64>,
    began: Instant,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.times.add(&WAIT_BOUNDS, self.began.elapsed());
        if let Some(waiting) = self.waiting {
            waiting.fetch_sub(1, Relaxed);
        }
    }
}

/// Index in [`CLASSES`] and [`EGRESS`] of a status.
fn class(status: u16) -> usize {
    match status {
        ..300 => 0,
        300..400 => 1,
        400..500 => 2,
        500.. => 3,
    }
}

/// Index in [`TRAPS`] of how a request ended. `None`: well, or by no fault of the component.
fn trap(how: u32, failure: Option<&Failure>) -> Option<usize> {
    let text = match (how, failure) {
        (outcome::CPU, _) => return Some(7),
        (outcome::MEMORY, _) => return Some(8),
        (outcome::POST_RETURN, _) => return Some(9),
        (outcome::CANCELLED, Some(Failure::Deadline(_))) => return Some(10),
        (outcome::TRAP, Some(Failure::Guest(reset::NO_RESPONSE, _))) => return Some(5),
        (outcome::TRAP, Some(Failure::Guest(_, text))) => text,
        (outcome::TRAP, _) => return Some(6),
        _ => return None,
    };
    let has = |part: &str| {
        text.windows(part.len())
            .any(|window| window == part.as_bytes())
    };
    Some(if has("unreachable") {
        0
    } else if has("call stack exhausted") {
        1
    } else if has("out of bounds memory access") {
        2
    } else if has("table access") || has("uninitialized element") || has("indirect call") {
        3
    } else if has("integer overflow") || has("divide by zero") || has("conversion to integer") {
        4
    } else {
        6
    })
}

fn count(counts: &[AtomicU64], place: usize) {
    if let Some(count) = counts.get(place) {
        count.fetch_add(1, Relaxed);
    }
}

const fn zeros<const N: usize>() -> [AtomicU64; N] {
    [const { AtomicU64::new(0) }; N]
}

fn read_all<const N: usize>(counts: &[AtomicU64; N]) -> [u64; N] {
    counts.each_ref().map(|count| count.load(Relaxed))
}

fn add_all(sums: &mut [u64], others: &[u64]) {
    for (sum, other) in sums.iter_mut().zip(others) {
        *sum += other;
    }
}

#[cfg(test)]
mod tests;
