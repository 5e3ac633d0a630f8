//! The reading end of a ring.

use crate::sync::{Ordering, fence};
use crate::{AtomicU64, Control, Corrupt, Memory, runs, words_of};
use alloc::vec::Vec;
use core::mem::MaybeUninit;
use core::ptr;
use sandbox_abi::message::Header;

/// The reading end. There is one for each ring.
#[derive(Debug)]
pub struct Consumer<M> {
    memory: M,
    consumed: u64,
    produced: u64,
    /// The header of the next record, where it has been read.
    next: Option<Header>,
}

impl<M: Memory> Consumer<M> {
    /// The consumer of a fresh, zeroed ring.
    pub fn new(memory: M) -> Self {
        Consumer {
            memory,
            consumed: 0,
            produced: 0,
            next: None,
        }
    }

    /// Words that wait to be read, as the peer says it.
    fn refresh(&mut self) -> Result<(), Corrupt> {
        let produced = self
            .memory
            .control(Control::Produced)
            .load(Ordering::Acquire);
        if produced.wrapping_sub(self.consumed) > self.memory.data().len() as u64 {
            return Err(Corrupt);
        }
        self.produced = produced;
        Ok(())
    }

    /// Whether a record waits.
    pub fn ready(&mut self) -> Result<bool, Corrupt> {
        if self.produced == self.consumed {
            self.refresh()?;
        }
        Ok(self.produced != self.consumed)
    }

    /// The header of the next record. `None`: there is nothing to read now. It is read once: the record is taken as it
    /// says, whatever the peer writes over it. Fails if the peer broke the contract.
    pub fn peek(&mut self) -> Result<Option<Header>, Corrupt> {
        if self.next.is_some() {
            return Ok(self.next);
        }
        if !self.ready()? {
            return Ok(None);
        }
        let available = self.produced.wrapping_sub(self.consumed);
        if available < 2 {
            return Err(Corrupt);
        }
        let header = Header::from_words([self.word(0), self.word(1)]).ok_or(Corrupt)?;
        if available < words_of(header.len as usize) as u64 {
            return Err(Corrupt);
        }
        self.next = Some(header);
        Ok(self.next)
    }

    /// Copies the next record's payload into `buffer`, which must hold
    /// [`MAX_PAYLOAD`](sandbox_abi::message::MAX_PAYLOAD) bytes. `None`: there is nothing to read now.
    ///
    /// The room becomes the producer's again with [`Consumer::release`]. Fails if the peer broke the contract.
    #[expect(
        unsafe_code,
        reason = "bytes that are only written may as well be unwritten ones"
    )]
    pub fn pop<'b>(&mut self, buffer: &'b mut [u8]) -> Result<Option<(Header, &'b [u8])>, Corrupt> {
        let Some(header) = self.peek()? else {
            return Ok(None);
        };
        let payload = buffer.get_mut(..header.len as usize).ok_or(Corrupt)?;
        // SAFETY: the two types have the same layout, and `copy_out` writes bytes and nothing else.
        self.copy_out(unsafe { &mut *(ptr::from_mut(payload) as *mut [MaybeUninit<u8>]) });
        self.step(header);
        Ok(Some((header, payload)))
    }

    /// As [`Consumer::pop`], in place of what is in `payload`, whose memory is used if it is enough.
    #[expect(
        unsafe_code,
        reason = "bytes that are written need not be zeroed before"
    )]
    pub fn pop_into(&mut self, payload: &mut Vec<u8>) -> Result<Option<Header>, Corrupt> {
        let Some(header) = self.peek()? else {
            return Ok(None);
        };
        let len = header.len as usize;
        payload.clear();
        payload.reserve_exact(len);
        let room = payload.spare_capacity_mut();
        self.copy_out(room.get_mut(..len).ok_or(Corrupt)?);
        // SAFETY: the capacity is at least `len`, and `copy_out` has written each of the first `len` bytes.
        unsafe { payload.set_len(len) };
        self.step(header);
        Ok(Some(header))
    }

    fn step(&mut self, header: Header) {
        self.next = None;
        let words = words_of(header.len as usize) as u64;
        self.consumed = self.consumed.wrapping_add(words);
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the index is masked to the ring's length"
    )]
    fn word(&self, offset: u64) -> u64 {
        let data = self.memory.data();
        let at = self.consumed.wrapping_add(offset) as usize & (data.len() - 1);
        data.get(at).map_or(0, |slot| slot.load(Ordering::Relaxed))
    }

    /// Writes each byte of `payload`, with what stands behind the header.
    fn copy_out(&self, payload: &mut [MaybeUninit<u8>]) {
        let (words, rest) = payload.as_chunks_mut::<8>();
        let behind = self.consumed.wrapping_add(2);
        let (first, second) = runs(self.memory.data(), behind, words.len());
        let (start, end) = words.split_at_mut(first.len());
        load(first, start);
        load(second, end);
        if !rest.is_empty() {
            let last = self.word(2 + words.len() as u64).to_le_bytes();
            for (to, from) in rest.iter_mut().zip(last) {
                to.write(from);
            }
        }
    }

    /// Gives what was read back to the producer. `true`: the producer waits for room, and the caller must notify it.
    pub fn release(&mut self) -> bool {
        self.memory
            .control(Control::Consumed)
            .store(self.consumed, Ordering::Release);
        fence(Ordering::SeqCst);
        let waiting = self.memory.control(Control::Waiting);
        waiting.load(Ordering::Relaxed) != 0 && waiting.swap(0, Ordering::Relaxed) != 0
    }

    /// Announces that the consumer goes to sleep. `Ok(false)`: something came meanwhile, do not sleep.
    /// After `Ok(true)` the next push reports that the consumer must be woken.
    pub fn sleep(&mut self) -> Result<bool, Corrupt> {
        let sleeping = self.memory.control(Control::Sleeping);
        sleeping.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.ready()? {
            self.memory
                .control(Control::Sleeping)
                .store(0, Ordering::Relaxed);
            return Ok(false);
        }
        Ok(true)
    }

    /// Announces that the consumer is awake, for whatever reason it woke.
    pub fn awake(&mut self) {
        self.memory
            .control(Control::Sleeping)
            .store(0, Ordering::Relaxed);
    }
}

fn load(from: &[AtomicU64], to: &mut [[MaybeUninit<u8>; 8]]) {
    for (to, from) in to.iter_mut().zip(from) {
        to.write_copy_of_slice(&from.load(Ordering::Relaxed).to_le_bytes());
    }
}
