//! The data plane: router, sandbox pool, rings to the guests, egress.
#![forbid(unsafe_code)]

mod log_sink;
mod plane;
mod target;

pub use log_sink::{LogRecord, LogSink, NoLogs};
pub use plane::{DataConfig, DataPlane, DataStatus, StartError, WarmError, WarmReport};
pub use target::{RouteTable, Target};
