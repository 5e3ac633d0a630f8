//! The writing end of a ring.

use crate::sync::{Ordering, fence};
use crate::{AtomicU64, Control, Corrupt, Memory, runs, words_of};
use sandbox_abi::message::Header;

/// Why a record was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError {
    /// No room now; [`Producer::wait`] says when to try again.
    Full,
    /// The payload is longer than [`sandbox_abi::message::MAX_PAYLOAD`].
    TooLong,
    /// The peer broke the contract.
    Corrupt,
}

impl From<Corrupt> for PushError {
    fn from(_: Corrupt) -> Self {
        PushError::Corrupt
    }
}

/// The writing end. There is one for each ring.
#[derive(Debug)]
pub struct Producer<M> {
    memory: M,
    produced: u64,
    consumed: u64,
}

impl<M: Memory> Producer<M> {
    /// The producer of a fresh, zeroed ring.
    pub fn new(memory: M) -> Self {
        Producer {
            memory,
            produced: 0,
            consumed: 0,
        }
    }

    /// Words that are free, as far as is known without asking the peer.
    fn free(&self) -> usize {
        let used = usize::try_from(self.produced.wrapping_sub(self.consumed)).unwrap_or(usize::MAX);
        self.memory.data().len().saturating_sub(used)
    }

    fn refresh(&mut self) -> Result<(), Corrupt> {
        let consumed = self
            .memory
            .control(Control::Consumed)
            .load(Ordering::Acquire);
        if self.produced.wrapping_sub(consumed) > self.memory.data().len() as u64 {
            return Err(Corrupt);
        }
        self.consumed = consumed;
        Ok(())
    }

    /// Writes a record. `Ok(true)`: the consumer sleeps, and the caller must wake it.
    ///
    /// `header.len` is set to the payload's length. Fails with [`PushError::Full`] and no effect if there is no room.
    pub fn push(&mut self, mut header: Header, payload: &[u8]) -> Result<bool, PushError> {
        if payload.len() > sandbox_abi::message::MAX_PAYLOAD {
            return Err(PushError::TooLong);
        }
        let need = words_of(payload.len());
        if self.free() < need {
            self.refresh()?;
            if self.free() < need {
                return Err(PushError::Full);
            }
        }
        header.len = u32::try_from(payload.len()).map_err(|_| PushError::TooLong)?;
        self.copy_in(header, payload);
        self.produced = self.produced.wrapping_add(need as u64);
        self.memory
            .control(Control::Produced)
            .store(self.produced, Ordering::Release);
        fence(Ordering::SeqCst);
        let sleeping = self.memory.control(Control::Sleeping);
        Ok(sleeping.load(Ordering::Relaxed) != 0 && sleeping.swap(0, Ordering::Relaxed) != 0)
    }

    fn copy_in(&self, header: Header, payload: &[u8]) {
        let data = self.memory.data();
        let (words, rest) = payload.as_chunks::<8>();
        let mut last = [0; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        let header = header.to_words().map(u64::to_le_bytes);
        let last: &[[u8; 8]] = if rest.is_empty() { &[] } else { &[last] };
        let mut at = self.produced;
        for part in [&header, words, last] {
            let (first, second) = runs(data, at, part.len());
            let (start, end) = part.split_at(first.len());
            store(first, start);
            store(second, end);
            at = at.wrapping_add(part.len() as u64);
        }
    }

    /// Announces that the producer waits for room for a payload of `len` bytes. `Ok(true)`: the room is there
    /// already. `Ok(false)`: the consumer will give notice when it has read on.
    pub fn wait(&mut self, len: usize) -> Result<bool, Corrupt> {
        self.memory
            .control(Control::Waiting)
            .store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.refresh()?;
        let room = self.free() >= words_of(len);
        if room {
            self.memory
                .control(Control::Waiting)
                .store(0, Ordering::Relaxed);
        }
        Ok(room)
    }
}

fn store(to: &[AtomicU64], from: &[[u8; 8]]) {
    for (to, from) in to.iter().zip(from) {
        to.store(u64::from_le_bytes(*from), Ordering::Relaxed);
    }
}
