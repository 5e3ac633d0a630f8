//! The thread that stores what components write, and the requests that they answered.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use platform_model::{DeploymentId, LogLine, LogStream};
use time::OffsetDateTime;
use tokio::sync::Semaphore;

use super::LogKey;
use super::file::{ACCESS, LogFile, OUTPUT, Ring};
use super::filter::Filter;
use super::follow::{Follower, Inbox, line_of};
use super::history::History;
use super::lines::Partial;
use super::queue::{Content, Message, Queue, Record};

/// How long a line may wait for its end before it is stored as it is.
const PATIENCE: Duration = Duration::from_millis(300);

/// Files that are open at the same time.
const OPEN_FILES: usize = 256;

/// Lines of one app that may wait for their end.
const PARTIALS: usize = 2048;

/// Bytes of one app that may wait for the end of their lines.
const PARTIAL_BYTES: usize = 1 << 20;

/// The log of one app.
#[derive(Debug)]
struct AppLog {
    folder: PathBuf,
    output: Option<LogFile>,
    access: Option<LogFile>,
    partials: HashMap<PartialKey, Partial>,
    partial_bytes: usize,
    followers: Vec<Arc<Inbox>>,
    /// What went wrong with the files, told once.
    broken: bool,
}

/// Whose line waits for its end.
type PartialKey = (Option<Box<str>>, LogStream, DeploymentId);

/// The state of the thread.
#[derive(Debug)]
pub(super) struct Writer {
    folder: PathBuf,
    queue: Arc<Queue>,
    /// The turns of those who read.
    scans: Arc<Semaphore>,
    apps: HashMap<LogKey, AppLog>,
}

impl Writer {
    pub(super) fn new(folder: PathBuf, queue: Arc<Queue>, scans: Arc<Semaphore>) -> Self {
        Self {
            folder,
            queue,
            scans,
            apps: HashMap::new(),
        }
    }

    /// Handles messages until it is told to stop.
    pub(super) fn run(mut self) {
        let mut stop = false;
        while !stop {
            let patience = self.is_waiting().then_some(PATIENCE);
            for message in self.queue.take(patience) {
                stop |= self.handle(message);
            }
            self.tick(Instant::now(), stop);
        }
        self.queue.close();
        for follower in self.apps.values().flat_map(|app| &app.followers) {
            follower.close();
        }
    }

    /// Whether anything is to be done without a message: a line without its end, a drop that was not told.
    fn is_waiting(&self) -> bool {
        let waiting = |app: &AppLog| !app.partials.is_empty();
        self.apps.values().any(waiting) || self.queue.has_dropped()
    }

    /// Handles one message; whether it is to stop.
    fn handle(&mut self, message: Message) -> bool {
        match message {
            Message::Record(record) => self.app(&record.key).take(record),
            Message::Open {
                key,
                filter,
                tail,
                follow,
                reply,
            } => {
                let scans = follow.then(|| Arc::clone(&self.scans));
                let opened = self.app(&key).open(filter, tail, scans);
                // Who asked may have gone.
                let _ = reply.send(opened);
            }
            Message::Delete { key, reply } => {
                self.delete(&key);
                let _ = reply.send(());
            }
            Message::Stop => return true,
        }
        false
    }

    /// Forgets an app, and removes its files.
    fn delete(&mut self, key: &LogKey) {
        self.queue.forget(key);
        let folder = self.app(key).folder.clone();
        if let Some(app) = self.apps.remove(key) {
            app.followers.iter().for_each(|follower| follower.close());
        }
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(folder = %folder.display(), %error, "could not remove a log");
            }
            _ => {}
        }
    }

    /// The log of an app.
    fn app(&mut self, key: &LogKey) -> &mut AppLog {
        let folder = &self.folder;
        let new = || AppLog::new(folder.join(key.0.as_str()).join(key.1.as_str()));
        self.apps.entry(key.clone()).or_insert_with(new)
    }

    /// Stores lines that have waited long enough, tells of drops, and flushes the files.
    fn tick(&mut self, now: Instant, all: bool) {
        for (key, dropped) in self.queue.dropped(now, all) {
            let text = format!(
                "{} bytes of output were dropped: the app writes more than can be stored",
                dropped.bytes
            );
            self.app(&key).note(dropped.deployment, &text);
        }
        for app in self.apps.values_mut() {
            app.tick(now, all);
        }
        let open =
            |app: &AppLog| usize::from(app.output.is_some()) + usize::from(app.access.is_some());
        if self.apps.values().map(open).sum::<usize>() > OPEN_FILES {
            for app in self.apps.values_mut() {
                (app.output, app.access) = (None, None);
            }
        }
    }
}

impl AppLog {
    fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            output: None,
            access: None,
            partials: HashMap::new(),
            partial_bytes: 0,
            followers: Vec::new(),
            broken: false,
        }
    }

    fn take(&mut self, record: Record) {
        let Record {
            time,
            deployment,
            request,
            ..
        } = record;
        match record.content {
            Content::Output(stream, bytes) => {
                self.pieces(
                    (request, stream, deployment),
                    &bytes,
                    record.line_bytes,
                    time,
                );
            }
            Content::Access(access, untold) => {
                let mut line = LogLine {
                    time,
                    deployment,
                    request: None,
                    stream: LogStream::Access,
                    line: String::new(),
                    access: None,
                };
                if untold > 0 {
                    line.line = format!(
                        "{untold} requests before the next one are left out: there were too many"
                    );
                    self.store(ACCESS, &line);
                }
                line.request = request.map(Into::into);
                line.line = access.to_string();
                line.access = Some(access);
                self.store(ACCESS, &line);
            }
        }
    }

    /// Takes what was written: stores the lines that are whole.
    fn pieces(&mut self, key: PartialKey, bytes: &[u8], line_bytes: usize, time: OffsetDateTime) {
        let now = Instant::now();
        let mut partial = match self.partials.remove(&key) {
            Some(partial) => {
                self.partial_bytes -= partial.len();
                partial
            }
            None => Partial::new(line_bytes, now),
        };
        partial.push(bytes, now, |line| self.output(&key, line, time));
        let full =
            self.partials.len() >= PARTIALS || self.partial_bytes + partial.len() > PARTIAL_BYTES;
        if key.1 == LogStream::System || full {
            partial.flush(|line| self.output(&key, line, time));
        }
        if partial.len() > 0 {
            self.partial_bytes += partial.len();
            self.partials.insert(key, partial);
        }
    }

    /// Stores a line of the node.
    fn note(&mut self, deployment: DeploymentId, text: &str) {
        let key = (None, LogStream::System, deployment);
        self.output(&key, text.as_bytes(), OffsetDateTime::now_utc());
    }

    /// Stores one line that was written.
    fn output(
        &mut self,
        (request, stream, deployment): &PartialKey,
        line: &[u8],
        time: OffsetDateTime,
    ) {
        let line = LogLine {
            time,
            deployment: *deployment,
            request: request.as_deref().map(str::to_owned),
            stream: *stream,
            line: String::from_utf8_lossy(line).into_owned(),
            access: None,
        };
        self.store(OUTPUT, &line);
    }

    /// Stores one line and hands it to the followers.
    fn store(&mut self, ring: Ring, line: &LogLine) {
        let json = line_of(line);
        if let Err(error) = self.write(ring, &json) {
            self.break_off(&error);
        }
        self.followers
            .retain(|follower| follower.push(&json, line.deployment));
    }

    fn write(&mut self, ring: Ring, line: &[u8]) -> io::Result<()> {
        let place = if ring == ACCESS {
            &mut self.access
        } else {
            &mut self.output
        };
        let file = match place {
            Some(file) => file,
            None => place.insert(LogFile::open(&self.folder, ring)?),
        };
        file.write(line)
    }

    /// Closes the files after an error; the next line tries again.
    fn break_off(&mut self, error: &io::Error) {
        (self.output, self.access) = (None, None);
        if !std::mem::replace(&mut self.broken, true) {
            tracing::warn!(folder = %self.folder.display(), %error, "could not store an app's output");
        }
    }

    /// Hands what was written to the system.
    fn flush(&mut self) {
        let mut files = self.output.iter_mut().chain(&mut self.access);
        match files.try_for_each(LogFile::flush) {
            Ok(()) => self.broken &= self.output.is_none() && self.access.is_none(),
            Err(error) => self.break_off(&error),
        }
    }

    /// Opens the log for reading, and to follow it with the turns of those who read.
    fn open(
        &mut self,
        filter: Filter,
        tail: Option<u64>,
        follow: Option<Arc<Semaphore>>,
    ) -> io::Result<(History, Option<Follower>)> {
        self.flush();
        let history = History::open(&self.folder, filter.clone(), tail)?;
        let follower = follow.map(|scans| {
            let (follower, inbox) = Follower::new(filter, scans);
            self.followers.push(inbox);
            follower
        });
        Ok((history, follower))
    }

    fn tick(&mut self, now: Instant, all: bool) {
        let done = |_: &_, partial: &mut Partial| {
            all || now.saturating_duration_since(partial.touched) >= PATIENCE
        };
        let ended: Vec<_> = self.partials.extract_if(done).collect();
        for (key, mut partial) in ended {
            self.partial_bytes -= partial.len();
            partial.flush(|line| self.output(&key, line, OffsetDateTime::now_utc()));
        }
        self.flush();
    }
}
