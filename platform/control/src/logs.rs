//! What components write: taken without waiting, stored by one thread, read back and followed.
//!
//! ```text
//! data plane --write--> bounded queue --> thread: splits lines, limits floods --> DIR/logs/TENANT/APP/current.ndjson
//!                                                                            \--> followers (broadcast)
//! ```
//!
//! Each app has two files of at most `file::CAP` bytes: when `current` is full it becomes `previous`. What does not
//! fit the queue, or is more than an app may write in a second, is dropped, and a line of the node says how much.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use platform_data::{LogRecord, LogSink};
use platform_model::{AppName, DeploymentId, LogStream, TenantName};
use tokio::sync::oneshot;

mod budget;
mod file;
mod lines;
mod read;
mod writer;

pub use read::{Follower, History};

/// Records that may wait for the thread.
const QUEUE_RECORDS: usize = 4096;

/// Bytes that may wait for the thread.
const QUEUE_BYTES: usize = 16 << 20;

/// What a record takes beside its bytes, roughly.
const OVERHEAD: usize = 128;

/// Names an app's log.
type LogKey = (TenantName, AppName);

/// A record that waits for the thread.
#[derive(Debug)]
struct Record {
    key: LogKey,
    deployment: DeploymentId,
    request: Option<Box<str>>,
    stream: LogStream,
    bytes: Box<[u8]>,
}

/// What the thread is asked.
#[derive(Debug)]
enum Message {
    /// Store it.
    Record(Record),
    /// Open an app's log for reading, from now on in the order of writing.
    Open {
        key: LogKey,
        follow: bool,
        reply: oneshot::Sender<io::Result<(History, Option<Follower>)>>,
    },
    /// Forget an app's log.
    Delete {
        key: LogKey,
        reply: oneshot::Sender<()>,
    },
    /// Store what is left and end.
    Stop,
}

/// What the callers and the thread share.
#[derive(Debug, Default)]
struct Shared {
    /// Bytes in the queue.
    queued: AtomicUsize,
    /// Bytes that the queue had no room for.
    overflow: Mutex<HashMap<LogKey, (DeploymentId, u64)>>,
}

/// The logs of all apps. Clones are the same ones.
#[derive(Debug, Clone)]
pub struct Logs {
    folder: PathBuf,
    sender: SyncSender<Message>,
    shared: Arc<Shared>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Logs {
    /// The logs in `folder`, with their thread.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE_RECORDS);
        let shared = Arc::new(Shared::default());
        let writer = writer::Writer::new(folder.clone(), Arc::clone(&shared));
        let thread = Builder::new()
            .name("logs".to_owned())
            .spawn(move || writer.run(&receiver))?;
        Ok(Self {
            folder,
            sender,
            shared,
            thread: Arc::new(Mutex::new(Some(thread))),
        })
    }

    /// Opens an app's log: what was written, and, to follow, what will be, without a gap between the two.
    ///
    /// # Errors
    /// When it cannot be read, or the thread has ended.
    pub async fn read(
        &self,
        tenant: &TenantName,
        app: &AppName,
        follow: bool,
    ) -> io::Result<(History, Option<Follower>)> {
        let key = (tenant.clone(), app.clone());
        let (reply, answer) = oneshot::channel();
        self.send(Message::Open { key, follow, reply }).await?;
        answer.await.map_err(|_| ended())?
    }

    /// Forgets an app's log.
    pub async fn delete(&self, tenant: &TenantName, app: &AppName) {
        let key = (tenant.clone(), app.clone());
        let (reply, answer) = oneshot::channel();
        if self.send(Message::Delete { key, reply }).await.is_ok() {
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
        if self.send(Message::Stop).await.is_err() {
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

    /// Sends what is not to be dropped; waits while the queue is full.
    async fn send(&self, message: Message) -> io::Result<()> {
        let sender = self.sender.clone();
        let sent = tokio::task::spawn_blocking(move || sender.send(message).is_ok()).await;
        if sent.unwrap_or(false) {
            Ok(())
        } else {
            Err(ended())
        }
    }
}

fn ended() -> io::Error {
    io::Error::other("the log's thread has ended")
}

impl LogSink for Logs {
    fn write(&self, record: LogRecord<'_>) {
        let size = record.bytes.len() + OVERHEAD;
        let key = || (record.tenant.clone(), record.app.clone());
        let queued = self.shared.queued.fetch_add(size, Ordering::Relaxed);
        let taken = queued + size <= QUEUE_BYTES && {
            let message = Message::Record(Record {
                key: key(),
                deployment: record.deployment,
                request: record.request.map(Into::into),
                stream: record.stream,
                bytes: record.bytes.into(),
            });
            self.sender.try_send(message).is_ok()
        };
        if !taken {
            self.shared.queued.fetch_sub(size, Ordering::Relaxed);
            let mut overflow = self
                .shared
                .overflow
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let dropped = overflow.entry(key()).or_insert((record.deployment, 0));
            *dropped = (record.deployment, dropped.1 + record.bytes.len() as u64);
        }
    }
}

#[cfg(test)]
mod tests;
