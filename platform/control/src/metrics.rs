//! What is counted, as a page for Prometheus. Read when it is asked for; kept for a moment, so that asking often costs
//! no more.
//!
//! | module | what |
//! |---|---|
//! | `page` | the metrics: their names, and what each is made of |
//! | `process` | what the kernel says of the daemon's process |
//!
//! `deploy/observability.md` has the table of all metrics; a test compares it with the page.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::sync::Mutex;

use crate::api::About;
use crate::logs::Logs;
use crate::sandbox::Sandboxes;

mod page;
mod process;

/// The media type of a page.
pub const CONTENT_TYPE: &str = prometheus_client::encoding::prometheus_text::CONTENT_TYPE;

/// How long a page is given out before it is made anew.
const FRESH: Duration = Duration::from_millis(500);

/// Spans on their way to the collector. Written by who sends them, shown on the page.
#[derive(Debug, Default)]
pub struct SpanCounters {
    /// Spans that the collector has taken.
    pub sent: AtomicU64,
    /// Spans that had no room in the queue.
    pub dropped: AtomicU64,
    /// Spans that the collector did not take.
    pub failed: AtomicU64,
}

/// Makes pages. Clones share theirs.
#[derive(Clone)]
pub struct Metrics {
    sandboxes: Arc<dyn Sandboxes>,
    logs: Logs,
    about: About,
    last: Arc<Mutex<Option<(Instant, Bytes)>>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("about", &self.about)
            .finish_non_exhaustive()
    }
}

impl Metrics {
    /// Pages about these.
    #[must_use]
    pub fn new(sandboxes: Arc<dyn Sandboxes>, logs: Logs, about: About) -> Self {
        Self {
            sandboxes,
            logs,
            about,
            last: Arc::default(),
        }
    }

    /// The page. Waits at most half a second for the workers' figures.
    pub async fn page(&self) -> Bytes {
        let mut last = self.last.lock().await;
        if let Some((made, page)) = &*last
            && made.elapsed() < FRESH
        {
            return page.clone();
        }
        let status = self.sandboxes.status().await;
        let read = page::Read {
            data: self.sandboxes.metrics(),
            status,
            log_dropped_bytes: self.logs.dropped_bytes(),
            process: process::read(),
            started: SystemTime::now()
                .checked_sub(self.about.started.elapsed())
                .unwrap_or(SystemTime::UNIX_EPOCH),
            about: self.about.clone(),
        };
        let page = Bytes::from(read.page());
        *last = Some((Instant::now(), page.clone()));
        page
    }
}

/// What is counted now.
fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
