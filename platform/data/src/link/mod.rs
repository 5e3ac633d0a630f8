//! The link to one VM: its two rings, the exchanges on them, and the rules that a guest has to keep.
//!
//! A [`Link`] is made of fresh rings and never outlives its VM: a VM that is lost is replaced together with its link.
//!
//! # Invariants
//! - Lock order: an exchange before the [`Outbox`], never the reverse; nothing is awaited under either.
//! - Only the drain task ([`drain`]) reads the guest's ring; whatever it reads is judged before it is used.
//! - A place for an incoming exchange is used again only after the guest said `DONE` and the host let go of it.

pub(crate) mod drain;
pub(crate) mod exchange;
pub(crate) mod failure;
pub(crate) mod handle;
pub(crate) mod head;
pub(crate) mod outbox;
mod pieces;
pub(crate) mod renewal;
mod watch;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use platform_model::LogStream;
use sandbox_abi::message::{FLAG_END, Header, Kind, OUTGOING, reset};
use sandbox_abi::window::Extra;
use sandbox_ring::host::RingMemory;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use self::exchange::Exchange;
use self::handle::Handle;
use self::outbox::{Outbox, OutboxError};
use self::renewal::Renewal;
use crate::metrics::Counters;
use crate::sync::lock;
use crate::trace::GuestTrace;
use crate::usage::Usage;
use crate::{LogRecord, LogSink, Target};

/// A place for one incoming exchange.
#[derive(Default)]
pub(crate) struct Place {
    pub(crate) exchange: Exchange,
    /// The number of its exchange on the rings.
    pub(crate) stream: u32,
    /// The host let go of it.
    pub(crate) released: bool,
    /// The guest said `DONE`, or the VM is gone.
    pub(crate) done: bool,
    pub(crate) watch: watch::Watch,
    /// The id of its request.
    pub(crate) request: Bytes,
    /// The trace of the guest's part, where the request is traced.
    pub(crate) trace: Option<Box<GuestTrace>>,
}

/// An outgoing exchange.
pub(crate) type Call = Arc<Mutex<Exchange>>;

/// A link.
pub(crate) struct Link {
    pub(crate) target: Arc<Target>,
    pub(crate) usage: Arc<Usage>,
    pub(crate) outbox: Outbox,
    places: Box<[Mutex<Place>]>,
    free: Mutex<Vec<u32>>,
    pub(crate) calls: Mutex<HashMap<u32, Call>>,
    /// What bodies that the guest sends may have of memory beyond their first credit, all together.
    pub(crate) extra: Extra,
    /// Cancelled when the VM is ready for requests.
    pub(crate) ready: CancellationToken,
    /// Cancelled when the VM is lost; `lost_because` is set before.
    pub(crate) lost: CancellationToken,
    lost_because: OnceLock<String>,
    started: Instant,
    pub(crate) active: AtomicU32,
    pub(crate) requests: AtomicU64,
    pub(crate) traps: AtomicU64,
    logs: Arc<dyn LogSink>,
    pub(crate) counters: Arc<Counters>,
    gate: Arc<Semaphore>,
    /// Told when a place gets free that somebody may wait for.
    freed: Arc<Notify>,
    /// No new requests: the VM is to go.
    leaving: AtomicBool,
    /// Told when the last request has ended.
    quiet: Notify,
    /// How the VM is put back, if it is.
    pub(crate) renewal: Option<Renewal>,
    /// When the VM was asked to put itself back, in milliseconds of the link's clock and not 0; 0 where it is not.
    resetting: AtomicU64,
}

/// What a link is made of.
pub(crate) struct Parts {
    /// What it leads to.
    pub(crate) target: Arc<Target>,
    /// Gets a permit back for each exchange that has ended on both sides.
    pub(crate) gate: Arc<Semaphore>,
    /// Told when a place gets free that somebody may wait for.
    pub(crate) freed: Arc<Notify>,
    /// The eventfd that wakes the guest.
    pub(crate) wake: OwnedFd,
    /// Where the output of the component goes.
    pub(crate) logs: Arc<dyn LogSink>,
    /// The figures of the deployment.
    pub(crate) counters: Arc<Counters>,
    /// What the deployment takes.
    pub(crate) usage: Arc<Usage>,
    /// How the VM is put back, if it is.
    pub(crate) renewal: Option<Renewal>,
    /// Whether the guest sleeps until it is woken, from the start.
    pub(crate) asleep: bool,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("app", &self.target.app)
            .field("lost", &self.lost_because.get())
            .finish_non_exhaustive()
    }
}

/// An exchange was not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BeginError {
    /// The ring or the places are full; worth another try.
    Full,
    /// The VM is gone.
    Lost,
}

impl Link {
    /// A link over `memory`.
    pub(crate) fn new(memory: &Arc<RingMemory>, parts: Parts) -> Arc<Self> {
        let target = parts.target;
        let count = match &parts.renewal {
            Some(renewal) => renewal.after,
            None => target.limits.concurrency,
        };
        let count = count.clamp(1, MAX_PLACES);
        Arc::new(Link {
            outbox: Outbox::new(memory, parts.wake, parts.asleep),
            places: (0..count).map(|_| Mutex::default()).collect(),
            free: Mutex::new((0..count).rev().collect()),
            calls: Mutex::default(),
            extra: Extra::new(EXTRA),
            ready: CancellationToken::new(),
            lost: CancellationToken::new(),
            lost_because: OnceLock::new(),
            started: Instant::now(),
            active: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            traps: AtomicU64::new(0),
            logs: parts.logs,
            counters: parts.counters,
            usage: parts.usage,
            gate: parts.gate,
            freed: parts.freed,
            leaving: AtomicBool::new(false),
            quiet: Notify::new(),
            renewal: parts.renewal,
            resetting: AtomicU64::new(0),
            target,
        })
    }

    /// Begins an incoming exchange: sends its encoded head, and `data` if the whole body is at hand.
    ///
    /// `whole`: the body ends with `data`. The caller has taken a permit of the gate, and gives it up if this succeeds,
    /// and the trace.
    pub(crate) fn begin(
        self: &Arc<Self>,
        head: &[u8],
        data: &[u8],
        whole: bool,
        request: Bytes,
        trace: &mut Option<Box<GuestTrace>>,
    ) -> Result<Handle, BeginError> {
        // Counted before the look: who waits for the last request to end sees either it or the flag seen here.
        let counted = Active::new(self);
        if !self.serves() {
            return Err(BeginError::Lost);
        }
        let index = lock(&self.free).pop().ok_or(BeginError::Full)?;
        let Some(place) = self.places.get(index as usize) else {
            return Err(BeginError::Full);
        };
        let mut place = lock(place);
        place.exchange.begin(true, false);
        place.released = false;
        place.done = false;
        place.request = request;
        place.watch.begin(self.now(), &self.target.limits);
        let generation = place.exchange.generation;
        let stream = stream_of(index, generation);
        place.stream = stream;
        let mut header = Header::new(Kind::Request, stream, 0);
        if whole && data.is_empty() {
            header.flags = FLAG_END;
        }
        let sent = self.outbox.try_send(header, head);
        if let Err(error) = sent {
            place.exchange.close(&self.extra);
            drop(place);
            lock(&self.free).push(index);
            return Err(match error {
                OutboxError::Full => BeginError::Full,
                OutboxError::Broken => {
                    self.lose("the guest garbled its ring");
                    BeginError::Lost
                }
            });
        }
        if !data.is_empty() {
            // Queued if there is no room: it is small, and the head is on its way.
            place.exchange.spend(data.len());
            self.control(Header::new(Kind::Data, stream, 0), data);
            if whole {
                self.control(Header::new(Kind::End, stream, 0), &[]);
            }
        }
        if let Some(mut trace) = trace.take() {
            trace.begun();
            place.trace = Some(trace);
        }
        counted.keep();
        drop(place);
        let handle = Handle::new(Arc::clone(self), index, generation);
        if self.lost.is_cancelled() {
            // Lost meanwhile: whoever declared it so may have passed this place by.
            self.fail_all();
        }
        Ok(handle)
    }

    /// Sends a small record; a guest that does not take it is lost.
    pub(crate) fn control(&self, header: Header, payload: &[u8]) {
        if self.outbox.send(header, payload).is_err() && !self.lost.is_cancelled() {
            // Not `lose`: an exchange may be locked here. The drain task finds the flag and does the rest.
            let _ = self
                .lost_because
                .set("the guest does not read its ring, or garbled it".to_owned());
            self.lost.cancel();
        }
    }

    /// Declares the VM lost: every exchange fails now. Only the first reason counts.
    pub(crate) fn lose(&self, reason: &str) {
        let _ = self.lost_because.set(reason.to_owned());
        self.lost.cancel();
        self.fail_all();
    }

    /// Fails everything that is under way; the link is lost.
    pub(crate) fn fail_all(&self) {
        let mut wakers = Vec::new();
        for (index, place) in self.places.iter().enumerate() {
            let mut place = lock(place);
            if place.exchange.open {
                if !place.exchange.ended() {
                    place.exchange.fail_as(failure::Failure::Lost);
                }
                place.exchange.finish(&mut wakers);
                place.done = true;
                self.recycle(u32::try_from(index).unwrap_or(u32::MAX), &mut place);
            }
        }
        for call in std::mem::take(&mut *lock(&self.calls)).into_values() {
            let mut call = lock(&call);
            call.fail(failure::Failure::Lost, &mut wakers);
            call.open = false;
        }
        for waker in wakers {
            waker.wake();
        }
        self.outbox.abandon();
    }

    /// Why the VM is lost.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.lost_because.get().map(String::as_str)
    }

    /// The place that a stream number of the guest means, locked, if the exchange of that number is the one that has it.
    fn place(&self, stream: u32) -> Option<(u32, MutexGuard<'_, Place>)> {
        let index = (stream & (STREAMS_STEP - 1)).checked_sub(1)?;
        let place = lock(self.places.get(index as usize)?);
        (place.stream == stream).then_some((index, place))
    }

    /// Frees a place that both sides are done with. Called with the place locked.
    fn recycle(&self, index: u32, place: &mut Place) {
        if place.done && place.released {
            place.done = false;
            place.exchange.close(&self.extra);
            place.request = Bytes::new();
            place.trace = None;
            let left = self.one_less();
            self.gate.add_permits(1);
            match &self.renewal {
                None => lock(&self.free).push(index),
                Some(renewal) => {
                    if left == 0 && lock(&self.free).is_empty() && !self.lost.is_cancelled() {
                        self.outbox.close();
                        self.resetting.store(self.now().max(1), Ordering::Release);
                        renewal.ask();
                    }
                }
            }
        }
    }

    fn one_less(&self) -> u32 {
        let left = self.active.fetch_sub(1, Ordering::SeqCst) - 1;
        if left == 0 {
            self.quiet.notify_waiters();
        }
        left
    }

    /// Whether it takes requests.
    pub(crate) fn serves(&self) -> bool {
        !self.lost.is_cancelled() && !self.leaving.load(Ordering::SeqCst)
    }

    /// Takes no more requests.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::SeqCst);
    }

    /// Resolves when it has no request.
    pub(crate) async fn idle(&self) {
        loop {
            let quiet = self.quiet.notified();
            if self.active.load(Ordering::SeqCst) == 0 {
                return;
            }
            quiet.await;
        }
    }

    /// Whether the VM is being put back.
    pub(crate) fn is_resetting(&self) -> bool {
        self.resetting.load(Ordering::Acquire) != 0
    }

    /// The VM was put back: a new round begins.
    pub(crate) fn renew(&self) {
        self.outbox.renew();
        self.resetting.store(0, Ordering::Release);
        if let Some(renewal) = &self.renewal {
            renewal.count();
        }
        let count = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        *lock(&self.free) = (0..count).rev().collect();
        for _ in 0..count {
            self.freed.notify_one();
        }
    }

    /// Requests that it can take now.
    pub(crate) fn free_places(&self) -> usize {
        lock(&self.free).len()
    }

    /// Milliseconds since the link was made.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Writes a line about this VM into its app's log.
    pub(crate) fn note(&self, line: &str) {
        self.log(None, LogStream::System, line.as_bytes());
    }

    fn log(&self, request: Option<&str>, stream: LogStream, bytes: &[u8]) {
        let target = &self.target;
        self.logs.write(LogRecord {
            tenant: &target.tenant,
            app: &target.app,
            deployment: target.deployment,
            request,
            stream,
            bytes,
            line_bytes: target.limits.log_line_bytes,
        });
    }

    /// Looks after deadlines; called every [`SWEEP`]. A guest that does not end what it was told to end is lost.
    pub(crate) fn sweep(&self) {
        let now = self.now();
        let resetting = self.resetting.load(Ordering::Acquire);
        if resetting != 0 && now > resetting + RESET_TIME && !self.lost.is_cancelled() {
            return self.lose("the VM was not put back in time");
        }
        if self.active.load(Ordering::Relaxed) == 0 || self.lost.is_cancelled() {
            return;
        }
        let mut wakers = Vec::new();
        let mut overdue = false;
        for place in &self.places {
            let mut place = lock(place);
            let place = &mut *place;
            if !place.exchange.open {
                continue;
            }
            match place.watch.check(now, &place.exchange, place.released) {
                watch::Verdict::Fine => {}
                watch::Verdict::Expired(deadline) => {
                    place
                        .exchange
                        .fail(failure::Failure::Deadline(deadline), &mut wakers);
                    let stream = place.stream;
                    self.control(
                        Header::new(Kind::Reset, stream, reset::DEADLINE),
                        b"out of time",
                    );
                }
                watch::Verdict::Overdue => overdue = true,
            }
        }
        for waker in wakers {
            waker.wake();
        }
        if overdue {
            self.lose("the guest did not end a request that it was told to end");
        }
    }
}

/// A request that is about to begin, counted as one that has.
struct Active<'l>(&'l Link);

impl<'l> Active<'l> {
    fn new(link: &'l Link) -> Self {
        link.active.fetch_add(1, Ordering::SeqCst);
        Active(link)
    }

    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.one_less();
    }
}

/// Time between two looks at the deadlines.
pub(crate) const SWEEP: Duration = Duration::from_millis(50);

/// Bytes that the bodies of one VM may have on their way beyond their first credit.
const EXTRA: u32 = 8 << 20;

/// Milliseconds that a VM has for being put back.
const RESET_TIME: u64 = 5_000;

/// Most places: as many requests as a deployment may have at once.
const MAX_PLACES: u32 = 1024;
/// From the numbers of one use of the places to those of the next.
const STREAMS_STEP: u32 = 2048;
const _: () = assert!(MAX_PLACES < STREAMS_STEP);

/// The stream number of a place in its so-manieth use; 0 means none. It is a long time until a number comes again, so
/// that what a component still holds of an exchange cannot be taken for another one.
fn stream_of(index: u32, generation: u64) -> u32 {
    let uses = (OUTGOING / STREAMS_STEP) as u64;
    let generation = u32::try_from(generation % uses).unwrap_or(0);
    generation * STREAMS_STEP + index + 1
}
