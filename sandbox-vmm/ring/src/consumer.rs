//! The reading end of a ring.

use crate::sync::{Ordering, fence};
use crate::{Control, Corrupt, Memory, words_of};
use sandbox_abi::message::Header;

/// The reading end. There is one for each ring.
#[derive(Debug)]
pub struct Consumer<M> {
    memory: M,
    consumed: u64,
    produced: u64,
}

impl<M: Memory> Consumer<M> {
    /// The consumer of a fresh, zeroed ring.
    pub fn new(memory: M) -> Self {
        Consumer {
            memory,
            consumed: 0,
            produced: 0,
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

    /// Copies the next record's payload into `buffer`, which must hold
    /// [`MAX_PAYLOAD`](sandbox_abi::message::MAX_PAYLOAD) bytes. `None`: there is nothing to read now.
    ///
    /// The room becomes the producer's again with [`Consumer::release`]. Fails if the peer broke the contract.
    pub fn pop<'b>(&mut self, buffer: &'b mut [u8]) -> Result<Option<(Header, &'b [u8])>, Corrupt> {
        if !self.ready()? {
            return Ok(None);
        }
        let available = self.produced.wrapping_sub(self.consumed);
        if available < 2 {
            return Err(Corrupt);
        }
        let header = Header::from_words([self.word(0), self.word(1)]).ok_or(Corrupt)?;
        let need = words_of(header.len as usize);
        if available < need as u64 {
            return Err(Corrupt);
        }
        let payload = buffer.get_mut(..header.len as usize).ok_or(Corrupt)?;
        self.copy_out(payload);
        self.consumed = self.consumed.wrapping_add(need as u64);
        Ok(Some((header, payload)))
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

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the index is masked to the ring's length"
    )]
    fn copy_out(&self, payload: &mut [u8]) {
        let data = self.memory.data();
        let mask = data.len() - 1;
        let mut at = self.consumed.wrapping_add(2) as usize & mask;
        let (words, rest) = payload.as_chunks_mut::<8>();
        for word in words {
            *word = data
                .get(at)
                .map_or(0, |slot| slot.load(Ordering::Relaxed))
                .to_le_bytes();
            at = (at + 1) & mask;
        }
        if !rest.is_empty() {
            let last = data
                .get(at)
                .map_or(0, |slot| slot.load(Ordering::Relaxed))
                .to_le_bytes();
            for (to, from) in rest.iter_mut().zip(last) {
                *to = from;
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
