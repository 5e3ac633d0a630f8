//! Threads of virtual processors, made before anyone knows for which VM: to make one takes longer than to hand a VM over.

use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

/// Bytes of the stack of a virtual processor's thread.
const STACK: usize = 128 << 10;

type Work = Box<dyn FnOnce() + Send>;

/// A thread that waits for its work. Dropped without any, it ends.
#[derive(Debug)]
pub(crate) struct Runner {
    work: Sender<Work>,
    thread: JoinHandle<()>,
}

impl Runner {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub(crate) fn new() -> std::io::Result<Runner> {
        let (work, waiting) = channel::<Work>();
        let thread = std::thread::Builder::new()
            .name("vcpu".into())
            .stack_size(STACK)
            .spawn(move || {
                if let Ok(work) = waiting.recv() {
                    work();
                }
            })?;
        Ok(Runner { work, thread })
    }

    /// Has it do its work, after which the thread ends.
    pub(crate) fn run(self, work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
        // It waits for nothing else, so it is there.
        let _ = self.work.send(Box::new(work));
        self.thread
    }
}
