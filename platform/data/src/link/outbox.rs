//! The way to a guest: its ring's writing end, shared by everybody who has something to say to it.
//!
//! Two ways in. [`Outbox::try_send`], for heads and data, fails when the ring is full, and its caller waits for
//! [`Outbox::room`]. [`Outbox::send`], for the small records that keep an exchange in order, never fails for want of
//! room: it queues, and the queue goes first.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use sandbox_abi::message::Header;
use sandbox_ring::host::{HostRing, RingMemory};
use sandbox_ring::{Producer, PushError};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::sync::lock;

/// Records that may wait before a guest counts as one that does not read.
const MAX_PENDING: usize = 16 * 1024;

/// A record was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OutboxError {
    /// No room now.
    #[error("the ring to the guest is full")]
    Full,
    /// The guest garbled the ring or does not read it.
    #[error("the ring to the guest is broken")]
    Broken,
}

#[derive(Debug)]
struct Inner {
    producer: Producer<HostRing>,
    pending: VecDeque<(Header, Vec<u8>)>,
    /// The VM is being put back: nothing is sent.
    closed: bool,
}

/// The way to a guest.
#[derive(Debug)]
pub(crate) struct Outbox {
    memory: Arc<RingMemory>,
    inner: Mutex<Inner>,
    wake: OwnedFd,
    room: Notify,
    waiting: AtomicBool,
}

impl Outbox {
    /// A way over the fresh rings in `memory`; `wake` is the eventfd that wakes the guest, which sleeps if `asleep`.
    pub(crate) fn new(memory: &Arc<RingMemory>, wake: OwnedFd, asleep: bool) -> Self {
        if asleep {
            memory.put_guest_to_sleep();
        }
        let inner = Inner {
            producer: Producer::new(HostRing::host_to_guest(memory)),
            pending: VecDeque::new(),
            closed: false,
        };
        Outbox {
            memory: Arc::clone(memory),
            inner: Mutex::new(inner),
            wake,
            room: Notify::new(),
            waiting: AtomicBool::new(false),
        }
    }

    /// Sends nothing from now on: the VM is being put back.
    pub(crate) fn close(&self) {
        lock(&self.inner).closed = true;
    }

    /// The rings are blank, and the guest sleeps.
    pub(crate) fn renew(&self) {
        let mut inner = lock(&self.inner);
        self.memory.put_guest_to_sleep();
        inner.producer = Producer::new(HostRing::host_to_guest(&self.memory));
        inner.pending.clear();
        inner.closed = false;
    }

    /// Sends a head or data if there is room now.
    pub(crate) fn try_send(&self, header: Header, payload: &[u8]) -> Result<(), OutboxError> {
        let mut inner = lock(&self.inner);
        let wake = if inner.pending.is_empty() && !inner.closed {
            inner.push(header, payload)
        } else {
            Err(OutboxError::Full)
        };
        if wake == Err(OutboxError::Full) {
            // Under the lock: a flush that follows sees it.
            self.waiting.store(true, Ordering::Release);
        }
        drop(inner);
        self.wake_if(wake?);
        Ok(())
    }

    /// Sends a small record, now or as soon as there is room.
    pub(crate) fn send(&self, header: Header, payload: &[u8]) -> Result<(), OutboxError> {
        let mut inner = lock(&self.inner);
        if inner.closed {
            // All exchanges are over: nobody is there for it.
            return Ok(());
        }
        let pushed = if inner.pending.is_empty() {
            inner.push(header, payload)
        } else {
            Err(OutboxError::Full)
        };
        let wake = match pushed {
            Err(OutboxError::Full) if inner.pending.len() < MAX_PENDING => {
                inner.pending.push_back((header, payload.to_vec()));
                Ok(false)
            }
            Err(_) => Err(OutboxError::Broken),
            done => done,
        };
        drop(inner);
        self.wake_if(wake?);
        Ok(())
    }

    /// Sends what waits, as far as there is room, and tells those who wait for room to try again.
    pub(crate) fn flush(&self) -> Result<(), OutboxError> {
        let mut inner = lock(&self.inner);
        if inner.closed {
            return Ok(());
        }
        let mut wake = false;
        while let Some((header, payload)) = inner.pending.pop_front() {
            match inner.push(header, &payload) {
                Ok(asleep) => wake |= asleep,
                Err(OutboxError::Full) => {
                    inner.pending.push_front((header, payload));
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        drop(inner);
        self.wake_if(wake);
        if self.waiting.swap(false, Ordering::AcqRel) {
            self.room.notify_waiters();
        }
        Ok(())
    }

    /// Wakes the guest: it waits for room in the other ring.
    pub(crate) fn nudge(&self) {
        self.wake_if(true);
    }

    /// Resolves when it is worth trying again. To be made and enabled before the try that failed.
    pub(crate) fn room(&self) -> Notified<'_> {
        self.room.notified()
    }

    /// Wakes everybody who waits for room, for good.
    pub(crate) fn abandon(&self) {
        self.room.notify_waiters();
    }

    fn wake_if(&self, asleep: bool) {
        if asleep {
            // It can fail only when the counter is at its end, and then the guest is woken anyway.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }
}

impl Inner {
    fn push(&mut self, header: Header, payload: &[u8]) -> Result<bool, OutboxError> {
        // A guest that moves its index back and forth could keep an endless loop going.
        for _ in 0..3 {
            match self.producer.push(header, payload) {
                Ok(asleep) => return Ok(asleep),
                Err(PushError::Full) => match self.producer.wait(payload.len()) {
                    Ok(true) => {}
                    Ok(false) => return Err(OutboxError::Full),
                    Err(_) => return Err(OutboxError::Broken),
                },
                Err(PushError::TooLong | PushError::Corrupt) => return Err(OutboxError::Broken),
            }
        }
        Err(OutboxError::Broken)
    }
}
