//! What waits for the thread that stores: bounded in bytes, and shared out so that an app which floods has room for
//! nobody's output but its own.
//!
//! An app may have no more waiting than there is room left (a *dynamic threshold*): alone it gets half of the queue,
//! and beside however many that flood there is always room for one that does not. Before that each app has a budget
//! of bytes a second. What is refused is not copied, only counted.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use platform_data::{AccessRecord, LogRecord};
use platform_model::{Access, DeploymentId, LogStream};
use time::OffsetDateTime;
use tokio::sync::oneshot;

use super::LogKey;
use super::budget::Budget;
use super::filter::Filter;
use super::follow::Follower;
use super::history::History;

/// Bytes that may wait for the thread.
pub(super) const CAPACITY: usize = 16 << 20;

/// What a record takes beside its bytes, roughly.
const OVERHEAD: usize = 192;

/// What a line, and a record, cost an app's budget beside its bytes: a flood of empty lines is one too.
const LINE: usize = 128;

/// Records that the thread takes at a time.
const BATCH: usize = 256;

/// How long drops are summed up to one line.
const FLOOD: Duration = Duration::from_secs(1);

/// Output that waits for the thread.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) key: LogKey,
    /// When it came.
    pub(super) time: OffsetDateTime,
    pub(super) deployment: DeploymentId,
    pub(super) request: Option<Box<str>>,
    pub(super) line_bytes: usize,
    pub(super) content: Content,
}

/// What is in a record.
#[derive(Debug)]
pub(super) enum Content {
    /// Bytes that were written: any, lines cut anywhere.
    Output(LogStream, Box<[u8]>),
    /// A request that ended, and how many before it could not be told of.
    Access(Access, u64),
}

impl Record {
    fn size(&self) -> usize {
        OVERHEAD
            + match &self.content {
                Content::Output(_, bytes) => bytes.len(),
                Content::Access(access, ..) => access.path.len(),
            }
    }
}

/// What the thread is asked.
#[derive(Debug)]
pub(super) enum Message {
    /// Store it.
    Record(Record),
    /// Open an app's log for reading, from now on in the order of writing.
    Open {
        key: LogKey,
        filter: Filter,
        tail: Option<u64>,
        follow: bool,
        reply: oneshot::Sender<std::io::Result<(History, Option<Follower>)>>,
    },
    /// Forget an app's log.
    Delete {
        key: LogKey,
        reply: oneshot::Sender<()>,
    },
    /// Store what is left and end.
    Stop,
}

/// Output of an app that was not taken.
#[derive(Debug)]
pub(super) struct Dropped {
    /// The last deployment of which some was dropped.
    pub(super) deployment: DeploymentId,
    pub(super) bytes: u64,
    since: Instant,
}

/// What an app has waiting, and may still write.
#[derive(Debug)]
struct Gate {
    budget: Budget,
    queued: usize,
    dropped: Option<Dropped>,
}

impl Gate {
    /// Whether a new one would be the same.
    fn is_idle(&self, now: Instant) -> bool {
        self.queued == 0 && self.dropped.is_none() && self.budget.is_full(now)
    }
}

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<Message>,
    queued: usize,
    gates: HashMap<LogKey, Gate>,
    /// Bytes of output that were dropped, of all apps.
    dropped: u64,
    /// The thread has ended: nothing is taken any more.
    closed: bool,
}

/// What waits for the thread.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    came: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes output, or counts it as dropped. Never waits for the thread.
    pub(super) fn output(&self, record: LogRecord<'_>) {
        let key = (record.tenant.clone(), record.app.clone());
        let (bytes, now) = (record.bytes.len(), Instant::now());
        let lines = record.bytes.iter().filter(|byte| **byte == b'\n').count();
        let cut = bytes / (record.line_bytes as usize).max(1);
        let cost = bytes + LINE * (1 + lines + cut);
        let mut state = self.lock();
        if !state.admit(&key, bytes, cost, now) {
            return state.drop_bytes(&key, record.deployment, bytes, now);
        }
        let content = Content::Output(record.stream, record.bytes.into());
        state.push(Record {
            key,
            time: OffsetDateTime::now_utc(),
            deployment: record.deployment,
            request: record.request.map(Into::into),
            line_bytes: record.line_bytes as usize,
            content,
        });
        drop(state);
        self.came.notify_one();
    }

    /// Takes a request that ended, unless there is no room: how many there were the thread says itself. The budget for
    /// them is the data plane's.
    pub(super) fn access(&self, record: AccessRecord<'_>) {
        let key = (record.tenant.clone(), record.app.clone());
        let now = Instant::now();
        let mut state = self.lock();
        if !state.admit(&key, record.path.len(), 0, now) {
            return;
        }
        state.push(Record {
            key,
            time: OffsetDateTime::now_utc(),
            deployment: record.deployment,
            request: Some(record.request.into()),
            line_bytes: 0,
            content: Content::Access(record.to_access(), record.untold),
        });
        drop(state);
        self.came.notify_one();
    }

    /// Takes what is not to be dropped. `false`: the thread has ended.
    pub(super) fn send(&self, message: Message) -> bool {
        let mut state = self.lock();
        if state.closed {
            return false;
        }
        state.messages.push_back(message);
        drop(state);
        self.came.notify_one();
        true
    }

    /// Waits for messages, at most for `patience` where that is given; some of them.
    pub(super) fn take(&self, patience: Option<Duration>) -> Vec<Message> {
        let mut state = self.lock();
        if state.messages.is_empty() {
            state = match patience {
                None => self
                    .came
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(patience) => {
                    let waited = self.came.wait_timeout(state, patience);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        let count = state.messages.len().min(BATCH);
        let taken: Vec<Message> = state.messages.drain(..count).collect();
        for message in &taken {
            if let Message::Record(record) = message {
                state.release(&record.key, record.size());
            }
        }
        taken
    }

    /// Whether output was dropped that nobody was told of.
    pub(super) fn has_dropped(&self) -> bool {
        self.lock()
            .gates
            .values()
            .any(|gate| gate.dropped.is_some())
    }

    /// What was dropped and is to be told of now: what has been summed up for long enough, or all.
    pub(super) fn dropped(&self, now: Instant, all: bool) -> Vec<(LogKey, Dropped)> {
        let due =
            |dropped: &mut Dropped| all || now.saturating_duration_since(dropped.since) >= FLOOD;
        let mut state = self.lock();
        let gates = state.gates.iter_mut();
        let told = gates.filter_map(|(key, gate)| Some((key.clone(), gate.dropped.take_if(due)?)));
        let told = told.collect();
        state.gates.retain(|_, gate| !gate.is_idle(now));
        told
    }

    /// Bytes of output that were dropped until now, of all apps.
    pub(super) fn dropped_bytes(&self) -> u64 {
        self.lock().dropped
    }

    /// Forgets what was dropped of an app.
    pub(super) fn forget(&self, key: &LogKey) {
        if let Some(gate) = self.lock().gates.get_mut(key) {
            gate.dropped = None;
        }
    }

    /// Takes nothing any more; what waits is left out.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.messages.clear();
    }
}

impl State {
    fn gate(&mut self, key: &LogKey, now: Instant) -> &mut Gate {
        self.gates.entry(key.clone()).or_insert_with(|| Gate {
            budget: Budget::new(now),
            queued: 0,
            dropped: None,
        })
    }

    /// Whether a record of `bytes` may be taken: whether there is room, and its app has the `cost` of it left.
    fn admit(&mut self, key: &LogKey, bytes: usize, cost: usize, now: Instant) -> bool {
        let left = CAPACITY.saturating_sub(self.queued);
        let closed = self.closed;
        let gate = self.gate(key, now);
        !closed && gate.queued + bytes + OVERHEAD <= left && gate.budget.take(cost, now)
    }

    /// Puts a record that was admitted into the queue.
    fn push(&mut self, record: Record) {
        let size = record.size();
        self.queued += size;
        if let Some(gate) = self.gates.get_mut(&record.key) {
            gate.queued += size;
        }
        self.messages.push_back(Message::Record(record));
    }

    fn release(&mut self, key: &LogKey, size: usize) {
        self.queued = self.queued.saturating_sub(size);
        if let Some(gate) = self.gates.get_mut(key) {
            gate.queued = gate.queued.saturating_sub(size);
        }
    }

    fn drop_bytes(&mut self, key: &LogKey, deployment: DeploymentId, bytes: usize, now: Instant) {
        self.dropped += bytes as u64;
        let dropped = self.gate(key, now).dropped.get_or_insert(Dropped {
            deployment,
            bytes: 0,
            since: now,
        });
        dropped.deployment = deployment;
        dropped.bytes += bytes as u64;
    }
}

#[cfg(test)]
mod tests {
    use platform_model::{AppName, TenantName};

    use super::*;

    fn write(queue: &Queue, app: &str, bytes: &[u8]) {
        let (tenant, app): (TenantName, AppName) = ("acme".parse().unwrap(), app.parse().unwrap());
        queue.output(LogRecord {
            tenant: &tenant,
            app: &app,
            deployment: DeploymentId(1),
            request: None,
            stream: LogStream::Stdout,
            bytes,
            line_bytes: 1024,
        });
    }

    #[test]
    fn floods_leave_room_for_others() {
        let queue = Queue::default();
        let block = vec![b'x'; 64 << 10];
        // Each may write 8 MiB at once by its budget; nobody takes anything out.
        for app in ["a", "b", "c", "d"] {
            for _ in 0..128 {
                write(&queue, app, &block);
            }
        }
        let state = queue.lock();
        assert!(state.queued < CAPACITY, "{}", state.queued);
        drop(state);
        write(&queue, "quiet", b"a line\n");
        let dropped = queue.dropped(Instant::now(), true);
        assert!(
            dropped.iter().all(|((_, app), _)| app.as_str() != "quiet"),
            "{dropped:?}"
        );
        assert!(dropped.len() >= 3, "{dropped:?}");
    }

    #[test]
    fn what_is_taken_out_makes_room() {
        let queue = Queue::default();
        for round in 0..4 {
            for _ in 0..30 {
                write(&queue, "a", &[b'x'; 60 << 10]);
            }
            let taken = queue.take(None);
            assert_eq!(taken.len(), 30, "round {round}");
            let state = queue.lock();
            assert_eq!(state.queued, 0);
            assert!(state.gates.values().all(|gate| gate.queued == 0));
        }
    }

    #[test]
    fn gates_are_kept_as_long_as_they_matter() {
        let queue = Queue::default();
        write(&queue, "a", b"a line");
        let now = Instant::now();
        queue.dropped(now, true);
        assert_eq!(queue.lock().gates.len(), 1, "something waits");
        queue.take(None);
        queue.dropped(now, true);
        assert_eq!(queue.lock().gates.len(), 1, "the budget is not full");
        queue.dropped(now + Duration::from_secs(10), true);
        assert!(queue.lock().gates.is_empty());
    }

    #[test]
    fn nothing_is_taken_after_the_end() {
        let queue = Queue::default();
        queue.close();
        write(&queue, "a", b"late");
        assert!(!queue.send(Message::Stop));
        assert!(queue.take(Some(Duration::ZERO)).is_empty());
    }
}
