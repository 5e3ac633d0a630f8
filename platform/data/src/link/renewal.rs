//! A VM that is put back to its template after some requests: when that is due, and what it means for the link.
//!
//! The requests of a round have a place each, and no place is used twice in a round. When all of them are over the VM
//! is put back; the rings are blank then, and the next round begins.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sync::event;

/// How a link's VM is put back.
#[derive(Debug)]
pub(crate) struct Renewal {
    request: OwnedFd,
    /// Requests of a round.
    pub(crate) after: u32,
    /// Rounds so far.
    rounds: AtomicU64,
}

impl Renewal {
    /// A VM that is put back after so many requests, and the descriptor that asks its worker for it.
    pub(crate) fn new(after: u32) -> std::io::Result<(Self, OwnedFd)> {
        let request = event()?;
        let theirs = request.try_clone()?;
        let renewal = Renewal {
            request,
            after: after.max(1),
            rounds: AtomicU64::new(0),
        };
        Ok((renewal, theirs))
    }

    /// Asks for it.
    pub(crate) fn ask(&self) {
        // The counter cannot be at its end: the worker takes it before the next round.
        let _ = rustix::io::write(&self.request, &1_u64.to_ne_bytes());
    }

    /// It was done.
    pub(crate) fn count(&self) {
        self.rounds.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it was done.
    pub(crate) fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }
}
