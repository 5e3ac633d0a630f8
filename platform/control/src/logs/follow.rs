//! Following a log: each follower has a queue of bounded size, and is told of what did not fit.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use platform_model::{DeploymentId, LogLine, LogStream};
use time::OffsetDateTime;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;

use super::filter::Filter;

/// Bytes of lines that may wait for a follower.
const BEHIND: usize = 1 << 20;

/// Bytes of lines that are looked through at a time, about.
const BATCH: usize = 64 << 10;

/// What waits for a follower.
#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Arc<[u8]>>,
    bytes: usize,
    /// Lines that had no room since the last that had.
    missed: u64,
    deployment: Option<DeploymentId>,
    /// No more comes, or nobody reads.
    closed: bool,
}

/// Between the thread and one follower.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    came: Notify,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the follower a line, or counts it. `false`: nobody reads.
    pub(super) fn push(&self, line: &Arc<[u8]>, deployment: DeploymentId) -> bool {
        let mut state = self.lock();
        if state.closed {
            return false;
        }
        // Once lines are missed, the next are too until the follower was told: the gap is in one place.
        if state.missed > 0 || state.bytes + line.len() > BEHIND {
            state.missed += 1;
            state.deployment = Some(deployment);
        } else {
            state.bytes += line.len();
            state.lines.push_back(Arc::clone(line));
        }
        drop(state);
        self.came.notify_one();
        true
    }

    /// Ends what the follower gets.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.came.notify_one();
    }

    /// What is there, at most about [`BATCH`] bytes.
    fn take(&self) -> Next {
        let mut state = self.lock();
        let mut lines = Vec::new();
        let mut bytes = 0;
        while bytes < BATCH
            && let Some(line) = state.lines.pop_front()
        {
            bytes += line.len();
            lines.push(line);
        }
        state.bytes -= bytes;
        if !lines.is_empty() {
            return Next::Lines(lines);
        }
        match (std::mem::take(&mut state.missed), state.deployment) {
            (missed @ 1.., Some(deployment)) => Next::Gap(told(missed, deployment)),
            _ if state.closed => Next::End,
            _ => Next::Nothing,
        }
    }
}

/// What a follower has next.
enum Next {
    /// Lines of the app's.
    Lines(Vec<Arc<[u8]>>),
    /// The line that says how many were missed.
    Gap(Arc<[u8]>),
    /// Nothing yet.
    Nothing,
    /// Nothing any more.
    End,
}

/// The line that says how many were missed.
fn told(missed: u64, deployment: DeploymentId) -> Arc<[u8]> {
    let line = LogLine {
        time: OffsetDateTime::now_utc(),
        deployment,
        request: None,
        stream: LogStream::System,
        line: format!("{missed} lines are left out here: they came faster than they are read"),
        access: None,
    };
    line_of(&line)
}

/// A line as it is stored.
pub(super) fn line_of(line: &LogLine) -> Arc<[u8]> {
    // A time of now and texts are always JSON.
    let mut json = serde_json::to_vec(line).unwrap_or_default();
    json.push(b'\n');
    json.into()
}

/// Gives an app's lines as they are written.
#[derive(Debug)]
pub struct Follower {
    inbox: Arc<Inbox>,
    filter: Filter,
    /// Lines that are wanted and not given yet.
    wanted: VecDeque<Arc<[u8]>>,
    /// Lines that are being looked through.
    looking: Option<JoinHandle<VecDeque<Arc<[u8]>>>>,
    /// The turns of those who read.
    scans: Arc<Semaphore>,
}

impl Follower {
    /// A follower, and where its lines are to be put.
    pub(super) fn new(filter: Filter, scans: Arc<Semaphore>) -> (Self, Arc<Inbox>) {
        let inbox = Arc::new(Inbox::default());
        let follower = Self {
            inbox: Arc::clone(&inbox),
            filter,
            wanted: VecDeque::new(),
            looking: None,
            scans,
        };
        (follower, inbox)
    }

    /// The next line that is wanted, as it is stored. A follower that is too slow misses lines, which go on being
    /// stored, and gets a line that says how many. None when the app is deleted or the node stops.
    /// Nothing is lost where the future is dropped.
    pub async fn next(&mut self) -> Option<Arc<[u8]>> {
        loop {
            if let Some(line) = self.wanted.pop_front() {
                return Some(line);
            }
            if let Some(looking) = &mut self.looking {
                // Without an answer the node is going down.
                self.wanted = looking.await.unwrap_or_default();
                self.looking = None;
                continue;
            }
            match self.inbox.take() {
                Next::Lines(lines) => self.look_through(lines),
                // Whatever is wanted: it may have been among them.
                Next::Gap(line) => return Some(line),
                Next::Nothing => self.inbox.came.notified().await,
                Next::End => return None,
            }
        }
    }

    /// Keeps what is wanted. What takes its time waits for a turn, and runs where it is in nobody's way.
    fn look_through(&mut self, lines: Vec<Arc<[u8]>>) {
        let filter = self.filter.clone();
        let keep = move || {
            let wanted = |line: &Arc<[u8]>| {
                serde_json::from_slice(line).is_ok_and(|parsed: LogLine| filter.wants(&parsed))
            };
            lines.into_iter().filter(wanted).collect()
        };
        if !self.filter.is_costly() {
            self.wanted = keep();
            return;
        }
        let scans = Arc::clone(&self.scans);
        self.looking = Some(tokio::spawn(async move {
            // Never closed.
            let _turn = scans.acquire().await;
            let looking = tokio::task::spawn_blocking(keep);
            looking.await.unwrap_or_default()
        }));
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.inbox.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Arc<[u8]> {
        line_of(&LogLine {
            time: OffsetDateTime::UNIX_EPOCH,
            deployment: DeploymentId(1),
            request: None,
            stream: LogStream::Stdout,
            line: text.to_owned(),
            access: None,
        })
    }

    fn new() -> (Follower, Arc<Inbox>) {
        Follower::new(Filter::default(), Arc::new(Semaphore::new(1)))
    }

    #[tokio::test]
    async fn who_is_slow_is_told_where_and_how_much_is_missing() {
        let (mut follower, inbox) = new();
        let long = line(&"x".repeat(100_000));
        let mut taken = 0;
        while inbox.lock().missed == 0 {
            assert!(inbox.push(&long, DeploymentId(7)));
            taken += 1;
        }
        assert!((10..12).contains(&taken), "{taken}");
        inbox.push(&line("short"), DeploymentId(7));
        for _ in 1..taken {
            assert_eq!(follower.next().await.unwrap(), long);
        }
        let gap = follower.next().await.unwrap();
        let gap: LogLine = serde_json::from_slice(&gap).unwrap();
        assert_eq!(gap.deployment, DeploymentId(7));
        assert!(gap.line.starts_with("2 lines"), "{}", gap.line);
        inbox.push(&line("after"), DeploymentId(7));
        assert_eq!(follower.next().await.unwrap(), line("after"));
    }

    #[tokio::test]
    async fn the_end() {
        let (mut follower, inbox) = new();
        inbox.push(&line("last"), DeploymentId(1));
        inbox.close();
        assert!(follower.next().await.is_some());
        assert!(follower.next().await.is_none());
        let (follower, inbox) = new();
        drop(follower);
        assert!(!inbox.push(&line("nobody"), DeploymentId(1)));
    }
}
