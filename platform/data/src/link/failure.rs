//! Why an exchange, or a whole VM, came to nothing.

use bytes::Bytes;

/// The guest broke the contract. Its VM is lost; the text says how, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the guest broke the contract: {0}")]
pub(crate) struct Violation(pub(crate) &'static str);

/// Which time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deadline {
    /// Until the head of the response.
    Head,
    /// The whole exchange.
    Wall,
    /// What a component does after its response.
    PostReturn,
}

/// What is wrong with the body of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadBody {
    /// Longer than the deployment allows.
    TooLarge,
    /// Not framed as HTTP wants it, or cut off.
    Malformed,
    /// Nothing came for too long.
    Slow,
}

/// Why an exchange came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The guest gave up: one of `sandbox_abi::message::reset`, and a text for humans.
    Guest(u32, Bytes),
    /// The component ended without a response; one of `sandbox_abi::message::outcome`.
    NoResponse(u32),
    /// Time ran out.
    Deadline(Deadline),
    /// The VM is gone.
    Lost,
    /// The client's body is not what it should be.
    Body(BadBody),
}
