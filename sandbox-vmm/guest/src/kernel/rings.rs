//! The guest's ends of the rings.

use crate::kernel::cell::Local;
use crate::kernel::sched::{self, ThreadId};
use crate::kernel::{port, time};
use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::AtomicU64;
use sandbox_abi::layout::{RING_CONTROL, RING_LEN, RINGS};
use sandbox_abi::message::{Header, Kind, MAX_PAYLOAD};
use sandbox_ring::{CONTROL_STRIDE, CONTROLS, Consumer, Control, Memory, Producer, PushError};

/// One of the two rings.
struct Ring {
    second: bool,
}

impl Memory for Ring {
    fn data(&self) -> &[AtomicU64] {
        let start = RINGS + RING_CONTROL + if self.second { RING_LEN } else { 0 };
        // SAFETY: `paging::init` mapped the rings there for good; all access, on both sides, is by atomics.
        unsafe { core::slice::from_raw_parts(start as *const AtomicU64, (RING_LEN / 8) as usize) }
    }

    fn control(&self, which: Control) -> &AtomicU64 {
        let ring = if self.second { CONTROLS } else { 0 };
        let word = (ring + which as usize) * CONTROL_STRIDE;
        // SAFETY: as above; the control words are within the control page.
        unsafe { &*(RINGS as *const AtomicU64).add(word) }
    }
}

struct Rings {
    from_host: Consumer<Ring>,
    to_host: Producer<Ring>,
    /// Threads that wait for room.
    waiting: Vec<ThreadId>,
    /// When the router was found asleep with records waiting for it.
    doorbell_due: Option<u64>,
}

static RINGS_STATE: Local<Option<Rings>> = Local::new(None);
static BUFFER: Local<Option<Box<[u8]>>> = Local::new(None);

/// How long a doorbell waits for more records to share it.
const DOORBELL_DELAY_NS: u64 = 20_000;

/// Makes what a template has of the rings.
pub fn init() {
    BUFFER.with(|b| *b = Some(alloc::vec![0; MAX_PAYLOAD].into_boxed_slice()));
}

/// Takes the guest's ends of fresh rings. Before that, nothing of the rings is looked at.
pub fn open() {
    RINGS_STATE.with(|r| {
        let mut rings = Rings {
            from_host: Consumer::new(Ring { second: false }),
            to_host: Producer::new(Ring { second: true }),
            waiting: Vec::new(),
            doorbell_due: None,
        };
        rings.from_host.awake();
        *r = Some(rings);
    });
}

fn with<R>(f: impl FnOnce(&mut Rings) -> R) -> R {
    RINGS_STATE.with(|r| match r {
        Some(r) => f(r),
        None => port::fatal(sandbox_abi::port::fatal::PANIC),
    })
}

fn broken() -> ! {
    port::fatal(sandbox_abi::port::fatal::RING)
}

/// Writes a record, if there is room for it.
pub fn try_send(header: Header, payload: &[u8]) -> bool {
    with(|r| match r.to_host.push(header, payload) {
        Ok(false) => true,
        Ok(true) => {
            r.doorbell_due.get_or_insert_with(time::monotonic_ns);
            true
        }
        Err(PushError::Full) => false,
        Err(PushError::TooLong | PushError::Corrupt) => broken(),
    })
}

/// Writes a record. Parks the thread for as long as there is no room; on the scheduler's own stack, where nothing can
/// park, that is an error of the caller.
pub fn send(header: Header, payload: &[u8]) {
    while !try_send(header, payload) {
        let room = with(|r| {
            r.waiting.push(sched::current());
            r.to_host.wait(payload.len())
        });
        match room {
            Ok(true) => {}
            Ok(false) => sched::park(None),
            Err(_) => broken(),
        }
    }
}

/// Hands all records that wait to `deliver`, data in memory of its own. `true` if there were any.
pub fn drain(mut deliver: impl FnMut(Header, Cow<'_, [u8]>)) -> bool {
    if RINGS_STATE.with(|r| r.is_none()) {
        return false;
    }
    let Some(mut buffer) = BUFFER.with(Option::take) else {
        return false;
    };
    let mut any = false;
    loop {
        let popped = with(|r| match r.from_host.peek()? {
            Some(header) if header.kind == Kind::Data => {
                let mut bytes = Vec::new();
                let record = r.from_host.pop_into(&mut bytes)?;
                Ok(record.map(|header| (header, Cow::Owned(bytes))))
            }
            _ => {
                let record = r.from_host.pop(&mut buffer)?;
                Ok(record.map(|(header, bytes)| (header, Cow::Borrowed(bytes))))
            }
        });
        match popped {
            Ok(Some((header, payload))) => {
                any = true;
                deliver(header, payload);
            }
            Ok(None) => break,
            Err(sandbox_ring::Corrupt) => broken(),
        }
    }
    BUFFER.with(|b| *b = Some(buffer));
    if any && with(|r| r.from_host.release()) {
        // The router waits for room.
        port::doorbell();
    }
    any
}

/// Whether a record waits.
pub fn ready() -> bool {
    with(|r| r.from_host.ready()).unwrap_or_else(|_| broken())
}

/// Wakes the threads that wait for room; they look for themselves.
pub fn retry_senders() {
    let waiting = RINGS_STATE.with(|r| Some(core::mem::take(&mut r.as_mut()?.waiting)));
    for thread in waiting.into_iter().flatten() {
        sched::unpark(thread);
    }
}

/// Rings the doorbell if it is due: `now` or as soon as it has waited long enough.
pub fn ring(now: bool) {
    let due = RINGS_STATE.with(|r| {
        let due = &mut r.as_mut()?.doorbell_due;
        match *due {
            Some(since)
                if now || time::monotonic_ns().saturating_sub(since) > DOORBELL_DELAY_NS =>
            {
                due.take()
            }
            _ => None,
        }
    });
    if due.is_some() {
        port::doorbell();
    }
}

/// Sleeps until a record comes, room appears, or `ns` nanoseconds have gone by.
pub fn sleep(ns: u64) {
    if with(|r| r.from_host.sleep()).unwrap_or_else(|_| broken()) {
        port::sleep(ns);
        time::synchronise();
    }
    with(|r| r.from_host.awake());
}
