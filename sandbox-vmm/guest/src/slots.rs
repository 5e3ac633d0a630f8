//! Slots: where requests run. A slot is a thread with its stack, an arena and, as a rule, an instance that is ready to
//! be called; one request after the other has it.
//!
//! After each request the slot is put back to what it was when its instance had just been made: every page that
//! differs, of memories, tables, globals and of the runtime's own state of the instance. So a request finds an instance
//! that is as fresh as a new one, for the price of copying what the last one changed.
//!
//! A slot whose memories grew can be used again only after a flush. Such slots wait until there are enough of them for
//! the flush to weigh little, and other slots are used meanwhile.

use crate::kernel::cell::Local;
use crate::kernel::sched::{self, Busy, ThreadId};
use crate::kernel::{account, frames, space, time};
use crate::{runtime, streams};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// A flush is to cost at most one part in so many of the requests that share it.
const FLUSH_SHARE: u64 = 16;
/// Most slots that wait for a flush.
const MOST_STALE: usize = 16;

/// Pages that a request may need in a VM that is put back after it, without there having to be more RAM.
const OWN_PAGES: u64 = 2048;

/// A request for a slot.
pub struct Job {
    /// Its incoming exchange.
    pub id: u32,
    /// Its encoded head.
    pub head: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Among the ready ones or the stale ones.
    Idle,
    /// Woken for a request.
    Woken,
    /// At work.
    Busy,
}

struct Slot {
    thread: ThreadId,
    state: State,
}

struct Slots {
    /// By the number that they have in the address space.
    slots: Vec<Option<Slot>>,
    /// Requests that wait for a slot.
    queue: VecDeque<Job>,
    /// Memory of heads that were read.
    heads: Vec<Vec<u8>>,
    /// Those that are ready, the warmest last.
    ready: Vec<usize>,
    /// Those that are ready after the next flush, with the number of flushes before it.
    stale: Vec<(usize, u64)>,
    /// Processor time of a request, a moving average in nanoseconds.
    request_ns: u64,
    /// Time of a flush.
    flush_ns: u64,
}

static SLOTS: Local<Slots> = Local::new(Slots {
    slots: Vec::new(),
    queue: VecDeque::new(),
    heads: Vec::new(),
    ready: Vec::new(),
    stale: Vec::new(),
    request_ns: 10_000,
    flush_ns: 20_000,
});

impl Slots {
    fn slot(&mut self, slot: usize) -> Option<&mut Slot> {
        self.slots.get_mut(slot)?.as_mut()
    }

    fn any_at_work(&self) -> bool {
        let mut slots = self.slots.iter().flatten();
        slots.any(|s| s.state != State::Idle)
    }

    /// How many slots may wait for a flush.
    fn batch(&self) -> usize {
        let batch = FLUSH_SHARE * self.flush_ns / self.request_ns.max(1);
        usize::try_from(batch)
            .unwrap_or(MOST_STALE)
            .clamp(1, MOST_STALE)
    }

    /// Readies the slots that somebody's flush has made usable.
    fn collect(&mut self, flushes: u64) {
        let ready = &mut self.ready;
        self.stale.retain(|(slot, since)| {
            let waits = *since == flushes;
            if !waits {
                ready.push(*slot);
            }
            waits
        });
    }
}

/// Flushes, and notes what it takes.
fn flush() {
    let began = time::monotonic_ns();
    space::flush();
    let took = time::monotonic_ns() - began;
    let flushes = space::flushes();
    SLOTS.with(|s| {
        s.flush_ns = (7 * s.flush_ns + took) / 8;
        s.collect(flushes);
    });
}

/// Whether a slot has something to do, be it only its first instance.
pub fn at_work() -> bool {
    SLOTS.with(|s| s.any_at_work())
}

/// Lets the slots that are there have their memories to themselves: none is put back, as the VM is.
pub fn own() {
    let count = SLOTS.with(|s| s.slots.len());
    for slot in 0..count {
        // Without memory for it, pages are copied when they are written.
        let _ = space::own(slot);
    }
    // RAM that is mapped by a request would have to be taken from the page tables again.
    frames::provide(OWN_PAGES);
}

/// Gives the slots that are there what their first requests are expected to write.
pub fn copy_expected() {
    let count = SLOTS.with(|s| s.slots.len());
    for slot in 0..count {
        space::copy_expected(slot);
    }
}

/// A request has come.
pub fn queue(id: u32, head: &[u8]) {
    SLOTS.with(|s| {
        let mut bytes = s.heads.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(head);
        s.queue.push_back(Job { id, head: bytes });
    });
}

/// Wakes a slot if a request waits for one. On the scheduler's stack, in each round: the slots that were at work in the
/// last one have then finished, or wait for something, or hold the processor, and one more is of use. Says whether more
/// requests wait than the one that it is woken for.
pub fn dispatch() -> bool {
    let waiting = SLOTS.with(|s| s.queue.len());
    if waiting == 0 {
        return false;
    }
    let slot = take().or_else(|| add().ok()).or_else(|| {
        flush();
        take()
    });
    if let Some(slot) = slot {
        space::set_busy(slot, true);
        let thread = SLOTS.with(|s| {
            let slot = s.slot(slot)?;
            slot.state = State::Woken;
            Some(slot.thread)
        });
        if let Some(thread) = thread {
            sched::unpark(thread);
        }
    } else if !SLOTS.with(|s| s.any_at_work())
        && let Some(job) = SLOTS.with(|s| s.queue.pop_front())
    {
        // Nobody will ever be free for it.
        streams::refuse(job.id);
    }
    waiting > 1
}

/// A slot that is ready.
fn take() -> Option<usize> {
    let flushes = space::flushes();
    let (slot, due) = SLOTS.with(|s| {
        if s.ready.is_empty() {
            s.collect(flushes);
        }
        (s.ready.pop(), s.stale.len() >= s.batch())
    });
    if slot.is_none() && due {
        flush();
        return SLOTS.with(|s| s.ready.pop());
    }
    slot
}

/// One more slot. Its thread makes its instance before it takes a request.
pub fn add() -> Result<usize, Busy> {
    let slot = space::add_slot().map_err(|_| Busy)?;
    let thread = sched::spawn(Some(slot), Box::new(move || runtime::run(slot)))?;
    SLOTS.with(|s| {
        s.slots.resize_with(slot + 1, || None);
        s.slots[slot] = Some(Slot {
            thread,
            state: State::Woken,
        });
    });
    Ok(slot)
}

/// Waits until the slot is woken for a request. On its thread.
pub fn next(slot: usize) -> Job {
    loop {
        let job = SLOTS.with(|s| {
            if s.slot(slot)?.state != State::Woken {
                return None;
            }
            let job = s.queue.pop_front();
            match job {
                Some(_) => s.slot(slot)?.state = State::Busy,
                None => {
                    s.slot(slot)?.state = State::Idle;
                    s.ready.push(slot);
                }
            }
            job
        });
        match job {
            Some(job) => return job,
            None => sched::park(None),
        }
    }
}

/// A slot's request is over: puts the slot back.
pub fn finish(slot: usize, job: Job) {
    space::tell_expected(slot);
    // An error: there was no memory for page tables where there were some before, which cannot be.
    let clean = space::restore(slot);
    end(slot, job, clean.ok());
}

/// A slot's request is over, and the next one is to find what it left.
pub fn keep(slot: usize, job: Job) {
    space::tell_expected(slot);
    end(slot, job, Some(true));
}

/// A slot's request is over, and was its last.
pub fn give_up(slot: usize, job: Job) {
    end(slot, job, None);
}

/// `clean`: whether the slot can be used without a flush. `None`: it is not used again.
fn end(slot: usize, job: Job, clean: Option<bool>) {
    let used = account::cpu_ns();
    space::set_busy(slot, false);
    let flushes = space::flushes();
    SLOTS.with(|s| {
        s.request_ns = (7 * s.request_ns + used) / 8;
        s.heads.push(job.head);
        if let Some(slot) = s.slot(slot) {
            slot.state = State::Idle;
        }
        match clean {
            Some(true) => s.ready.push(slot),
            Some(false) => s.stale.push((slot, flushes)),
            None => {}
        }
    });
}
