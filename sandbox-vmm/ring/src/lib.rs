//! Single-producer single-consumer rings over memory that a hostile peer may write.
//!
//! One memory holds a control page and two rings ([`sandbox_abi::layout`]). A ring is a circle of 64-bit words; a
//! record is two header words and its payload, padded to whole words.
//!
//! # Contract
//!
//! | control word | written by | meaning |
//! |---|---|---|
//! | [`Control::Produced`] | producer | words ever written |
//! | [`Control::Consumed`] | consumer | words ever read |
//! | [`Control::Sleeping`] | consumer sets, producer clears | the consumer waits for a wake-up |
//! | [`Control::Waiting`] | producer sets, consumer clears | the producer waits for room |
//!
//! - **Ordering**: data words are relaxed; `Produced` and `Consumed` are stored with release and loaded with acquire.
//!   Between publishing an index and reading the other side's flag, and between setting a flag and re-reading the
//!   index, stands a sequentially consistent fence on both sides: one of the two always sees the other (Dekker).
//! - **Ownership**: each side trusts only its private copy of its own index. Of the peer's index it believes nothing
//!   but that the distance fits the ring; of a header nothing but that its payload lies within that distance.
//! - **One copy**: payloads are copied out word by word before anything looks at them. There is no reference to bytes
//!   of the shared memory, only to atomics, so that a peer who writes at any time can garble a payload and do no more.
#![cfg_attr(not(any(feature = "host", loom, test)), no_std)]

extern crate alloc;

mod consumer;
#[cfg(all(feature = "host", not(loom)))]
pub mod host;
mod producer;
mod sync;

pub use consumer::Consumer;
pub use producer::{Producer, PushError};
pub use sync::AtomicU64;

/// The control words of a ring, each in a cache line of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Words ever written.
    Produced = 0,
    /// Words ever read.
    Consumed = 1,
    /// Whether the consumer waits for a wake-up.
    Sleeping = 2,
    /// Whether the producer waits for room.
    Waiting = 3,
}

/// Number of control words of one ring.
pub const CONTROLS: usize = 4;
/// Words from one control word to the next: a cache line.
pub const CONTROL_STRIDE: usize = 8;

/// The words of one ring, wherever they lie.
pub trait Memory {
    /// The data words; their number is a power of two and never changes.
    fn data(&self) -> &[AtomicU64];
    /// A control word.
    fn control(&self, which: Control) -> &AtomicU64;
}

/// The peer broke the contract: an index or a header that cannot be. The ring is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt;

impl core::fmt::Display for Corrupt {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the peer wrote garbage into the ring")
    }
}

impl core::error::Error for Corrupt {}

/// Words that a payload of `len` bytes takes, its header included.
const fn words_of(len: usize) -> usize {
    2 + len.div_ceil(8)
}

/// The words of a ring from an index on, in two runs: up to its end, and on from its beginning.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the index is masked to the ring's length"
)]
fn runs(data: &[AtomicU64], index: u64, words: usize) -> (&[AtomicU64], &[AtomicU64]) {
    let start = index as usize & (data.len() - 1);
    let first = words.min(data.len() - start);
    let run = |from, len| data.get(from..from + len).unwrap_or_default();
    (run(start, first), run(0, words - first))
}

#[cfg(all(test, not(loom)))]
mod tests;
