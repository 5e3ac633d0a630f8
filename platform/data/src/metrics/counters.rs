//! The counters of one deployment: what a request adds to on its way.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use sandbox_abi::message::{Done, outcome, reset};

use super::{CLASSES, EGRESS, Figures, REQUEST_BOUNDS, TRAPS, Times, WAIT_BOUNDS};
use crate::link::failure::Failure;

/// Index of `5xx` in [`CLASSES`].
const SERVER_ERROR: usize = 3;
/// Index of `gone` in [`CLASSES`].
const GONE: usize = 4;

/// Requests of a deployment that are told of in a second.
const TOLD: u64 = 1000;

/// Times as they are counted.
#[derive(Debug)]
struct Histogram<const N: usize> {
    counts: [AtomicU64; N],
    sum_us: AtomicU64,
}

impl<const N: usize> Histogram<N> {
    const fn new() -> Self {
        Self {
            counts: zeros(),
            sum_us: AtomicU64::new(0),
        }
    }

    fn read(&self) -> Times<N> {
        Times {
            counts: read_all(&self.counts),
            sum_us: self.sum_us.load(Relaxed),
        }
    }
}

/// What one thread counts of a deployment. Threads have numbers of their own, in lines of memory of their own: what they
/// share would go from one processor to the other and back with each request.
#[derive(Debug)]
#[repr(C, align(128))]
struct Shard {
    // What every request changes comes first.
    requests: [AtomicU64; CLASSES.len()],
    bytes_out: AtomicU64,
    cpu_ns: AtomicU64,
    /// Requests that began here less those that ended here, modulo 2^64: only the sum of all threads means something.
    in_flight: AtomicU64,
    duration: Histogram<{ REQUEST_BOUNDS.len() + 1 }>,
    memory_max: AtomicU64,
    /// Requests that were not told of.
    untold: AtomicU64,
    cut_off: AtomicU64,
    /// Of those that were cut off, the ones that were not their clients' doing.
    broken: AtomicU64,
    queue_wait: Histogram<{ WAIT_BOUNDS.len() + 1 }>,
    cold_start: Histogram<{ WAIT_BOUNDS.len() + 1 }>,
    vm_starts: AtomicU64,
    vm_losses: AtomicU64,
    traps: [AtomicU64; TRAPS.len()],
    bytes_in: AtomicU64,
    egress: [AtomicU64; EGRESS.len()],
    /// Requests that wait, in the same way as `in_flight`.
    waiting: AtomicU64,
}

impl Shard {
    const fn new() -> Self {
        Self {
            requests: zeros(),
            duration: Histogram::new(),
            cut_off: AtomicU64::new(0),
            broken: AtomicU64::new(0),
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
            untold: AtomicU64::new(0),
        }
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

/// Threads that have a shard of their own, at most. The others have one together.
const OWN: usize = 32;

thread_local! {
    /// The number of this thread.
    static THREAD: usize = {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        THREADS.fetch_add(1, Relaxed)
    };
}

/// A shard in the hands of a thread.
struct Here<'s> {
    shard: &'s Shard,
    /// Whether no other thread writes to it: then no processor needs to be told that a number is being changed.
    own: bool,
}

impl Here<'_> {
    fn add(&self, counter: impl FnOnce(&Shard) -> &AtomicU64, by: u64) {
        self.add_to(counter(self.shard), by);
    }

    fn add_to(&self, counter: &AtomicU64, by: u64) {
        if self.own {
            counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
        } else {
            counter.fetch_add(by, Relaxed);
        }
    }

    fn count(&self, counts: &[AtomicU64], place: usize) {
        if let Some(count) = counts.get(place) {
            self.add_to(count, 1);
        }
    }

    fn time<const N: usize>(&self, times: &Histogram<N>, bounds: &[u64], time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.count(&times.counts, bounds.partition_point(|bound| *bound < us));
        self.add_to(&times.sum_us, us);
    }
}

/// The counters of a deployment.
#[derive(Debug)]
pub(crate) struct Counters {
    /// Those of threads with a shard of their own.
    own: Box<[Shard]>,
    /// That of the others.
    shared: Shard,
    /// The second in which requests were last told of, and how many of that second: 32 bits each.
    told: AtomicU64,
    /// How many of those that were not told of somebody was told the number of.
    reported: AtomicU64,
    /// The most that `memory_max` can be.
    memory_limit: u64,
}

impl Counters {
    /// Counters of a deployment whose requests may have so many bytes of memory.
    pub(crate) fn new(memory_limit: u64) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            own: (0..threads.min(OWN)).map(|_| Shard::new()).collect(),
            shared: Shard::new(),
            told: AtomicU64::new(0),
            reported: AtomicU64::new(0),
            memory_limit,
        }
    }

    /// The numbers of this thread.
    fn here(&self) -> Here<'_> {
        let own = self.own.get(THREAD.with(|thread| *thread));
        Here {
            shard: own.unwrap_or(&self.shared),
            own: own.is_some(),
        }
    }

    /// A response broke off, and not because of its client. It is counted as one that ended besides.
    pub(crate) fn broke(&self) {
        self.here().add(|shard| &shard.broken, 1);
    }

    /// Requests that have ended, and those of them that were answered with a status from 500 on, or broke off.
    pub(crate) fn outcomes(&self) -> (u64, u64) {
        let shards = self.own.iter().chain([&self.shared]);
        let (mut ended, mut errors) = (0, 0);
        for shard in shards {
            let requests = read_all(&shard.requests);
            ended += requests.iter().sum::<u64>();
            errors += requests[SERVER_ERROR] + shard.broken.load(Relaxed);
        }
        (ended, errors)
    }

    /// Requests that have ended, and the processor time that they took.
    pub(crate) fn work(&self) -> (u64, Duration) {
        let shards = self.own.iter().chain([&self.shared]);
        let (mut ended, mut cpu_ns) = (0, 0);
        for shard in shards {
            ended += read_all(&shard.requests).iter().sum::<u64>();
            cpu_ns += shard.cpu_ns.load(Relaxed);
        }
        (ended, Duration::from_nanos(cpu_ns))
    }

    /// A request has found its deployment.
    pub(crate) fn begun(&self) {
        self.here().add(|shard| &shard.in_flight, 1);
    }

    /// A request that had begun ended after `time`; without a status its client went away before there was an answer.
    pub(crate) fn ended(
        &self,
        status: Option<u16>,
        complete: bool,
        bytes_out: u64,
        time: Duration,
    ) {
        let here = self.here();
        here.add(|shard| &shard.in_flight, 1_u64.wrapping_neg());
        here.count(&here.shard.requests, status.map_or(GONE, class));
        here.time(&here.shard.duration, &REQUEST_BOUNDS, time);
        here.add(|shard| &shard.bytes_out, bytes_out);
        if status.is_some() && !complete {
            here.add(|shard| &shard.cut_off, 1);
        }
    }

    /// Whether one more request may be told of in this `second`; it is counted if not.
    pub(crate) fn may_tell(&self, second: u64) -> bool {
        let now = second << 32;
        let room = |told: u64| match told >> 32 == now >> 32 {
            true if told & u64::from(u32::MAX) >= TOLD => None,
            true => Some(told + 1),
            false => Some(now + 1),
        };
        let may = self.told.fetch_update(Relaxed, Relaxed, room).is_ok();
        if !may {
            self.here().add(|shard| &shard.untold, 1);
        }
        may
    }

    /// How many requests were not told of since this was last asked.
    pub(crate) fn untold(&self) -> u64 {
        let shards = self.own.iter().chain([&self.shared]);
        let all: u64 = shards.map(|shard| shard.untold.load(Relaxed)).sum();
        all.saturating_sub(self.reported.fetch_max(all, Relaxed))
    }

    /// Bytes of a request's body were read.
    pub(crate) fn read(&self, bytes: usize) {
        self.here().add(|shard| &shard.bytes_in, bytes as u64);
    }

    /// A request waits for its turn, until the wait is dropped.
    pub(crate) fn queue(&self) -> Wait<'_> {
        self.here().add(|shard| &shard.waiting, 1);
        Wait {
            counters: self,
            queued: true,
            began: Instant::now(),
        }
    }

    /// A request waits for a VM, until the wait is dropped.
    pub(crate) fn cold_start(&self) -> Wait<'_> {
        Wait {
            counters: self,
            queued: false,
            began: Instant::now(),
        }
    }

    /// A VM got ready.
    pub(crate) fn vm_started(&self) {
        self.here().add(|shard| &shard.vm_starts, 1);
    }

    /// A VM that was ready is lost.
    pub(crate) fn vm_lost(&self) {
        self.here().add(|shard| &shard.vm_losses, 1);
    }

    /// The guest says `DONE`: how the request ended, why there was no answer, and what it took. A request is on one
    /// processor and cannot have taken more of it than time has passed, whatever its guest says.
    pub(crate) fn done(&self, how: u32, failure: Option<&Failure>, done: Done, passed: Duration) {
        let passed = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX);
        let memory = done.memory.min(self.memory_limit);
        let here = self.here();
        here.add(|shard| &shard.cpu_ns, done.cpu_ns.min(passed));
        if memory > here.shard.memory_max.load(Relaxed) {
            here.shard.memory_max.fetch_max(memory, Relaxed);
        }
        if let Some(kind) = trap(how, failure) {
            here.count(&here.shard.traps, kind);
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
        let here = self.here();
        here.count(&here.shard.egress, kind);
    }

    /// What all threads have counted.
    pub(super) fn figures(&self) -> Figures {
        let mut sum = self.shared.figures();
        for shard in &self.own {
            sum.add(&shard.figures());
        }
        sum
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
    counters: &'c Counters,
    queued: bool,
    began: Instant,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let time = self.began.elapsed();
        let here = self.counters.here();
        if self.queued {
            here.add(|shard| &shard.waiting, 1_u64.wrapping_neg());
            here.time(&here.shard.queue_wait, &WAIT_BOUNDS, time);
        } else {
            here.time(&here.shard.cold_start, &WAIT_BOUNDS, time);
        }
    }
}

/// Index in [`CLASSES`] and [`EGRESS`] of a status.
pub(super) fn class(status: u16) -> usize {
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

pub(super) fn count(counts: &[AtomicU64], place: usize) {
    if let Some(count) = counts.get(place) {
        count.fetch_add(1, Relaxed);
    }
}

pub(super) const fn zeros<const N: usize>() -> [AtomicU64; N] {
    [const { AtomicU64::new(0) }; N]
}

pub(super) fn read_all<const N: usize>(counts: &[AtomicU64; N]) -> [u64; N] {
    counts.each_ref().map(|count| count.load(Relaxed))
}

#[cfg(test)]
mod tests;
