//! What components write, and the requests that they answer: taken without waiting, stored by one thread, read back
//! and followed.
//!
//! ```text
//! data plane --write--> bounded queue --> thread: splits lines --> DIR/logs/TENANT/APP/current.ndjson
//!             |                               |                                       access.ndjson
//!             budgets of the apps             \--> followers, each with a bounded queue
//! ```
//!
//! Each app has two rings, for output and for requests, of two files of at most `file::CAP` bytes each: when the
//! current one is full it becomes the previous one. What does not fit the queue, or is more than an app may write in a
//! second, is dropped, and a line of the node says how much.
//!
//! | module | what |
//! |---|---|
//! | `queue`, `budget` | what waits for the thread, and how much an app may have there |
//! | `writer`, `lines`, `file` | the thread, lines from pieces, the rings |
//! | `history`, `filter` | reading back what is wanted |
//! | `follow` | what is written from now on |

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use platform_data::{AccessRecord, LogRecord, LogSink};
use platform_model::{AppName, TenantName};
use tokio::sync::{Semaphore, oneshot};

mod budget;
mod file;
mod filter;
mod follow;
mod history;
mod lines;
mod queue;
mod readers;
mod writer;

pub use filter::{Filter, FilterError};
pub use follow::Follower;
pub use history::History;
pub use readers::{Reader, ReadersError};

use queue::{Message, Queue};
use readers::Readers;

/// Readers that go through lines at the same time. One: looking for something in a log is not to take more than one
/// processor from the requests.
const SCANS: usize = 1;

/// Names an app's log.
type LogKey = (TenantName, AppName);

/// The logs of all apps. Clones are the same ones.
#[derive(Debug, Clone)]
pub struct Logs {
    folder: PathBuf,
    queue: Arc<Queue>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
    readers: Arc<Readers>,
    scans: Arc<Semaphore>,
}

impl Logs {
    /// The logs in `folder`, with their thread.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let scans = Arc::new(Semaphore::new(SCANS));
        let writer = writer::Writer::new(folder.clone(), Arc::clone(&queue), Arc::clone(&scans));
        let thread = Builder::new()
            .name("logs".to_owned())
            .spawn(move || writer.run())?;
        Ok(Self {
            folder,
            queue,
            thread: Arc::new(Mutex::new(Some(thread))),
            readers: Arc::default(),
            scans,
        })
    }

    /// A place among those who read an app's log. Held as long as it is read.
    ///
    /// # Errors
    /// When too many read already.
    pub fn reader(&self, tenant: &TenantName, app: &AppName) -> Result<Reader, ReadersError> {
        self.readers.enter((tenant.clone(), app.clone()))
    }

    /// Opens an app's log: of what was written the last `tail` lines that pass the filter, or all, and, to follow, what
    /// will be, without a gap between the two.
    ///
    /// # Errors
    /// When it cannot be read, or the thread has ended.
    pub async fn read(
        &self,
        tenant: &TenantName,
        app: &AppName,
        filter: Filter,
        tail: Option<u64>,
        follow: bool,
    ) -> io::Result<(History, Option<Follower>)> {
        let key = (tenant.clone(), app.clone());
        let (reply, answer) = oneshot::channel();
        let message = Message::Open {
            key,
            filter,
            tail,
            follow,
            reply,
        };
        if !self.queue.send(message) {
            return Err(ended());
        }
        answer.await.map_err(|_| ended())?
    }

    /// The next piece of a history: see [`History::next_piece`]. Waits for its turn.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub async fn next_piece(&self, mut history: History) -> io::Result<Option<(Vec<u8>, History)>> {
        // Never closed.
        let turn = Arc::clone(&self.scans).acquire_owned().await;
        let read = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let piece = history.next_piece()?;
            Ok(piece.map(|piece| (piece, history)))
        });
        read.await.map_err(io::Error::other)?
    }

    /// Bytes of output of components that were dropped since the node started.
    #[must_use]
    pub fn dropped_bytes(&self) -> u64 {
        self.queue.dropped_bytes()
    }

    /// Forgets an app's log.
    pub async fn delete(&self, tenant: &TenantName, app: &AppName) {
        let key = (tenant.clone(), app.clone());
        let (reply, answer) = oneshot::channel();
        if self.queue.send(Message::Delete { key, reply }) {
            // Without an answer the node is going down, and the next start removes the log.
            let _ = answer.await;
        }
    }

    /// Removes the logs of all apps but these. Called before any is written.
    ///
    /// # Errors
    /// When the folder cannot be read or written.
    pub(crate) fn keep_only(&self, apps: &HashSet<(TenantName, AppName)>) -> io::Result<()> {
        for tenant in fs::read_dir(&self.folder)? {
            let tenant = tenant?;
            for app in fs::read_dir(tenant.path())? {
                let app = app?;
                let name = |entry: &fs::DirEntry| entry.file_name().into_string().ok();
                let key = name(&tenant)
                    .and_then(|name| name.parse().ok())
                    .zip(name(&app).and_then(|name| name.parse().ok()));
                if key.is_none_or(|key| !apps.contains(&key)) {
                    fs::remove_dir_all(app.path())?;
                }
            }
            // Stays where an app's log is in it.
            let _ = fs::remove_dir(tenant.path());
        }
        Ok(())
    }

    /// Stores what was taken until now, and ends the thread.
    pub async fn stop(&self) {
        if !self.queue.send(Message::Stop) {
            return;
        }
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // The thread's panic was reported when it happened.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

fn ended() -> io::Error {
    io::Error::other("the log's thread has ended")
}

impl LogSink for Logs {
    fn write(&self, record: LogRecord<'_>) {
        self.queue.output(record);
    }

    fn access(&self, record: AccessRecord<'_>) {
        self.queue.access(record);
    }
}

#[cfg(test)]
mod tests;
