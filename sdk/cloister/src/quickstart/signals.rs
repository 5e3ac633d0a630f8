//! The signals that ask quickstart to end. Listened to from before there is a node, so that none is missed.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::QuickstartError;

/// Ctrl-C, a request to end, and a terminal that was closed.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Listens from now on.
    pub(super) fn new() -> Result<Self, QuickstartError> {
        let listen = |kind| signal(kind).map_err(QuickstartError::Signal);
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for the next of them.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => (),
            _ = self.terminate.recv() => (),
            _ = self.hang_up.recv() => (),
        }
    }
}
