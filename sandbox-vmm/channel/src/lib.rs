//! The socket between daemon and worker: messages with descriptors.
//!
//! A `SOCK_SEQPACKET` pair; the worker finds its end as descriptor 0. A message is one packet of JSON, with up to
//! [`MAX_FDS`] descriptors beside it. When either end closes, the other reads [`ReceiveError::Closed`]: a worker dies
//! with its daemon, and a daemon learns at once that a worker is gone.
#![forbid(unsafe_code)]

mod message;
mod socket;

pub use message::{Begin, Command, Event, VmId, VmStats};
pub use socket::{MAX_FDS, MAX_MESSAGE, ReceiveError, SendError, Socket};
