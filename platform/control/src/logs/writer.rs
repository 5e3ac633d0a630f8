//! The thread that stores what components write.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use platform_model::{DeploymentId, LogLine, LogStream};
use time::OffsetDateTime;
use tokio::sync::broadcast;

use super::budget::Budget;
use super::file::LogFile;
use super::lines::Partial;
use super::read::{Follower, History};
use super::{LogKey, Message, OVERHEAD, Record, Shared};

/// How long a line may wait for its end before it is stored as it is.
const PATIENCE: Duration = Duration::from_millis(300);

/// How long drops are summed up to one line.
const FLOOD: Duration = Duration::from_secs(1);

/// Messages that are handled before the files are flushed.
const BATCH: usize = 256;

/// Files that are open at the same time.
const OPEN_FILES: usize = 128;

/// Lines of one app that may wait for their end.
const PARTIALS: usize = 2048;

/// Lines that a follower may be behind.
const BEHIND: usize = 1024;

/// Output that was dropped.
#[derive(Debug)]
struct Dropped {
    deployment: DeploymentId,
    bytes: u64,
    since: Instant,
}

/// The log of one app.
#[derive(Debug)]
struct AppLog {
    folder: PathBuf,
    file: Option<LogFile>,
    partials: HashMap<(Option<Box<str>>, LogStream, DeploymentId), Partial>,
    followers: Option<broadcast::Sender<Arc<[u8]>>>,
    budget: Budget,
    /// What was dropped and not told of.
    dropped: Option<Dropped>,
    /// What went wrong with the files, told once.
    broken: bool,
}

/// The state of the thread.
#[derive(Debug)]
pub(super) struct Writer {
    folder: PathBuf,
    shared: Arc<Shared>,
    apps: HashMap<LogKey, AppLog>,
}

impl Writer {
    pub(super) fn new(folder: PathBuf, shared: Arc<Shared>) -> Self {
        Self {
            folder,
            shared,
            apps: HashMap::new(),
        }
    }

    /// Handles messages until it is told to stop.
    pub(super) fn run(mut self, messages: &Receiver<Message>) {
        loop {
            let first = if self.is_waiting() {
                match messages.recv_timeout(PATIENCE) {
                    Ok(message) => Some(message),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            } else {
                match messages.recv() {
                    Ok(message) => Some(message),
                    Err(_) => break,
                }
            };
            let batch = first.into_iter().chain(messages.try_iter().take(BATCH));
            let mut stop = false;
            for message in batch {
                stop |= self.handle(message);
            }
            self.tick(Instant::now(), stop);
            if stop {
                break;
            }
        }
    }

    /// Whether anything is to be done without a message: a line without its end, a drop that was not told.
    fn is_waiting(&self) -> bool {
        let waiting = |app: &AppLog| app.dropped.is_some() || !app.partials.is_empty();
        self.apps.values().any(waiting) || !self.overflow().is_empty()
    }

    fn overflow(&self) -> std::sync::MutexGuard<'_, HashMap<LogKey, (DeploymentId, u64)>> {
        let overflow = &self.shared.overflow;
        overflow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Handles one message; whether it is to stop.
    fn handle(&mut self, message: Message) -> bool {
        match message {
            Message::Record(record) => {
                let size = record.bytes.len() + OVERHEAD;
                self.shared.queued.fetch_sub(size, Ordering::Relaxed);
                let now = Instant::now();
                self.app(&record.key, now).take(&record, now);
            }
            Message::Open { key, follow, reply } => {
                let log = self.app(&key, Instant::now());
                let opened = log.read(follow);
                // Who asked may have gone.
                let _ = reply.send(opened);
            }
            Message::Delete { key, reply } => {
                let folder = self.app(&key, Instant::now()).folder.clone();
                self.apps.remove(&key);
                match fs::remove_dir_all(&folder) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        tracing::warn!(folder = %folder.display(), %error, "could not remove a log");
                    }
                    _ => {}
                }
                let _ = reply.send(());
            }
            Message::Stop => return true,
        }
        false
    }

    /// The log of an app.
    fn app(&mut self, key: &LogKey, now: Instant) -> &mut AppLog {
        if !self.apps.contains_key(key) {
            let folder = self.folder.join(key.0.as_str()).join(key.1.as_str());
            self.apps.insert(key.clone(), AppLog::new(folder, now));
        }
        // Just put there.
        self.apps
            .entry(key.clone())
            .or_insert_with(|| AppLog::new(PathBuf::new(), now))
    }

    /// Stores lines that have waited long enough, tells of drops, and flushes the files.
    fn tick(&mut self, now: Instant, all: bool) {
        let overflow = std::mem::take(&mut *self.overflow());
        for (key, (deployment, bytes)) in overflow {
            self.app(&key, now).drop_bytes(deployment, bytes, now);
        }
        for app in self.apps.values_mut() {
            app.tick(now, all);
        }
        let open = self.apps.values().filter(|app| app.file.is_some()).count();
        if open > OPEN_FILES {
            for app in self.apps.values_mut() {
                app.file = None;
            }
        }
    }
}

impl AppLog {
    fn new(folder: PathBuf, now: Instant) -> Self {
        Self {
            folder,
            file: None,
            partials: HashMap::new(),
            followers: None,
            budget: Budget::new(now),
            dropped: None,
            broken: false,
        }
    }

    /// Takes a record: stores the lines that are whole.
    fn take(&mut self, record: &Record, now: Instant) {
        if !self.budget.take(record.bytes.len(), now) {
            self.drop_bytes(record.deployment, record.bytes.len() as u64, now);
            return;
        }
        let key = (record.request.clone(), record.stream, record.deployment);
        let mut partial = self
            .partials
            .remove(&key)
            .unwrap_or_else(|| Partial::new(now));
        let mut store = |line: &[u8]| self.store(&key, line);
        partial.push(&record.bytes, now, &mut store);
        if record.stream == LogStream::System || self.partials.len() >= PARTIALS {
            partial.flush(|line| self.store(&key, line));
        }
        if !partial.is_empty() {
            self.partials.insert(key, partial);
        }
    }

    /// Notes that output is not stored.
    fn drop_bytes(&mut self, deployment: DeploymentId, bytes: u64, now: Instant) {
        let nothing = Dropped {
            deployment,
            bytes: 0,
            since: now,
        };
        let dropped = self.dropped.get_or_insert(nothing);
        dropped.deployment = deployment;
        dropped.bytes += bytes;
    }

    /// Stores one line and hands it to the followers.
    fn store(
        &mut self,
        (request, stream, deployment): &(Option<Box<str>>, LogStream, DeploymentId),
        line: &[u8],
    ) {
        let line = LogLine {
            time: OffsetDateTime::now_utc(),
            deployment: *deployment,
            request: request.as_deref().map(str::to_owned),
            stream: *stream,
            line: String::from_utf8_lossy(line).into_owned(),
        };
        // A time of now and texts are always JSON.
        let Ok(mut json) = serde_json::to_vec(&line) else {
            return;
        };
        json.push(b'\n');
        match self.write(&json) {
            Ok(()) => self.broken = false,
            Err(error) => {
                self.file = None;
                if !std::mem::replace(&mut self.broken, true) {
                    tracing::warn!(folder = %self.folder.display(), %error, "could not store an app's output");
                }
            }
        }
        if let Some(followers) = &self.followers {
            // Without a receiver there is nobody to tell, and no reason to go on.
            if followers.send(json.into()).is_err() {
                self.followers = None;
            }
        }
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(LogFile::open(&self.folder)?),
        };
        file.write(line)
    }

    /// Opens the log for reading.
    fn read(&mut self, follow: bool) -> io::Result<(History, Option<Follower>)> {
        if let Some(file) = &mut self.file {
            file.flush()?;
        }
        let history = History::open(&self.folder)?;
        let follower = follow.then(|| {
            let sender = self
                .followers
                .get_or_insert_with(|| broadcast::channel(BEHIND).0);
            Follower {
                lines: sender.subscribe(),
            }
        });
        Ok((history, follower))
    }

    fn tick(&mut self, now: Instant, all: bool) {
        let done = |_: &_, partial: &mut Partial| {
            all || now.saturating_duration_since(partial.touched) >= PATIENCE
        };
        let ended: Vec<_> = self.partials.extract_if(done).collect();
        for (key, mut partial) in ended {
            partial.flush(|line| self.store(&key, line));
        }
        let told =
            |dropped: &mut Dropped| all || now.saturating_duration_since(dropped.since) >= FLOOD;
        if let Some(Dropped {
            deployment, bytes, ..
        }) = self.dropped.take_if(told)
        {
            let text = format!(
                "{bytes} bytes of output were dropped: the app writes more than can be stored"
            );
            self.store(&(None, LogStream::System, deployment), text.as_bytes());
        }
        if let Some(file) = &mut self.file
            && let Err(error) = file.flush()
        {
            tracing::warn!(folder = %self.folder.display(), %error, "could not store an app's output");
            self.file = None;
        }
    }
}
