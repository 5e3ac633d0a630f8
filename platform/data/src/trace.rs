//! Traces: which requests are traced, the spans that they are made of, and the border to whoever sends them on.
//!
//! ```text
//! request (server)            head complete .. response ended
//! ├─ queue                    only where it waited for its turn
//! ├─ sandbox start            only where it waited for a VM
//! └─ guest                    on the ring .. DONE
//!    └─ call (client)         a request that the component sends
//! ```
//!
//! A request that is not traced costs one comparison, and nothing where tracing is off. Nothing here knows of a format
//! or a network.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

mod call;
mod context;
mod request;

pub(crate) use call::CallTrace;
pub(crate) use context::{Context, TRACEPARENT, TRACESTATE};
pub(crate) use request::{GuestTrace, RequestTrace, Step};

/// On which side of a request a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// It answers.
    Server,
    /// It asks.
    Client,
    /// Neither.
    Internal,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number.try_into().unwrap_or(i64::MAX))
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

/// A span that has ended. Names and attributes are those of OpenTelemetry's semantic conventions, and `cloister.…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The trace; never 0.
    pub trace_id: u128,
    /// Itself; never 0.
    pub span_id: u64,
    /// The span that it is within; 0 for none.
    pub parent_id: u64,
    /// Whether that is somebody else's.
    pub parent_is_remote: bool,
    /// The trace's state, as `tracestate` has it; it may be empty.
    pub state: String,
    /// The side that it is on.
    pub kind: SpanKind,
    /// What it is called.
    pub name: Cow<'static, str>,
    /// When it began.
    pub start: SystemTime,
    /// When it ended.
    pub end: SystemTime,
    /// What is known of it.
    pub attributes: Vec<(&'static str, Value)>,
    /// What went wrong.
    pub error: Option<String>,
}

/// Takes spans that have ended. Called from the tasks that serve requests: an implementation returns at once, and drops
/// what it has no room for.
pub trait SpanSink: Send + Sync + 'static {
    /// Takes one span.
    fn span(&self, span: Span);
}

/// How requests are traced.
#[derive(Clone)]
pub struct Tracing {
    /// Where spans go.
    pub sink: Arc<dyn SpanSink>,
    /// The share of requests that are traced, from 0 to 1.
    pub ratio: f64,
}

impl fmt::Debug for Tracing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracing")
            .field("ratio", &self.ratio)
            .finish_non_exhaustive()
    }
}

/// Chooses requests, and hands spans on.
pub(crate) struct Tracer {
    sink: Arc<dyn SpanSink>,
    /// Random numbers up to here mean that a request is traced; none where nothing is.
    threshold: Option<u64>,
}

thread_local! {
    /// Where this thread's random numbers go on.
    static RANDOM: Cell<u64> = {
        let mut seed = [0; 8];
        // Without randomness threads still differ, as their memory does.
        let _ = rustix::rand::getrandom(&mut seed[..], rustix::rand::GetRandomFlags::empty());
        Cell::new(u64::from_le_bytes(seed) ^ (&raw const seed).addr() as u64)
    };
}

/// A random number (SplitMix64): good enough for ids and for choosing, no secret.
fn draw() -> u64 {
    let n = RANDOM.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
    RANDOM.set(n);
    let n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ (n >> 31)
}

/// An id of a span.
fn span_id() -> u64 {
    draw().max(1)
}

/// An id of a trace.
fn trace_id() -> u128 {
    (u128::from(draw()) << 64) | u128::from(span_id())
}

impl Tracer {
    /// A tracer.
    pub(crate) fn new(tracing: Tracing) -> Self {
        // The cast saturates: a ratio of 1 is the whole range.
        let threshold = (tracing.ratio * u64::MAX as f64) as u64;
        Self {
            sink: tracing.sink,
            threshold: (tracing.ratio > 0.0).then_some(threshold),
        }
    }

    /// Whether the next request is traced. It is the node that decides: a client's own mark could have all of its
    /// requests traced.
    pub(crate) fn chooses(&self) -> bool {
        self.threshold.is_some_and(|most| draw() <= most)
    }
}

/// Both clocks at one moment: spans are told in the time of day, and measured in one that never jumps.
#[derive(Debug, Clone, Copy)]
struct Clock {
    day: SystemTime,
    steady: Instant,
}

impl Clock {
    fn now() -> Self {
        Self {
            day: SystemTime::now(),
            steady: Instant::now(),
        }
    }

    fn day_of(&self, moment: Instant) -> SystemTime {
        self.day + moment.saturating_duration_since(self.steady)
    }
}

#[cfg(test)]
mod tests;
