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
mod watch;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use platform_model::LogStream;
use sandbox_abi::message::{FLAG_END, Header, Kind, reset};
use sandbox_ring::host::{HostRing, RingMemory};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::exchange::Exchange;
use self::handle::Handle;
use self::outbox::{Outbox, OutboxError};
use crate::sync::lock;
use crate::usage::Usage;
use crate::{LogRecord, LogSink, Target};

/// A place for one incoming exchange.
#[derive(Debug, Default)]
pub(crate) struct Place {
    pub(crate) exchange: Exchange,
    /// The host let go of it.
    pub(crate) released: bool,
    /// The guest said `DONE`, or the VM is gone.
    pub(crate) done: bool,
    pub(crate) watch: watch::Watch,
    /// The id of its request.
    pub(crate) request: Bytes,
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
    gate: Arc<Semaphore>,
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
    /// A link over `memory`; `wake` is the eventfd that wakes the guest.
    ///
    /// `gate` gets a permit back for each exchange that has ended on both sides.
    pub(crate) fn new(
        target: Arc<Target>,
        usage: Arc<Usage>,
        gate: Arc<Semaphore>,
        memory: &Arc<RingMemory>,
        wake: OwnedFd,
        logs: Arc<dyn LogSink>,
    ) -> Arc<Self> {
        let count = target.limits.concurrency.max(1);
        Arc::new(Link {
            outbox: Outbox::new(HostRing::host_to_guest(memory), wake),
            places: (0..count).map(|_| Mutex::default()).collect(),
            free: Mutex::new((0..count).rev().collect()),
            calls: Mutex::default(),
            ready: CancellationToken::new(),
            lost: CancellationToken::new(),
            lost_because: OnceLock::new(),
            started: Instant::now(),
            active: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            traps: AtomicU64::new(0),
            logs,
            gate,
            usage,
            target,
        })
    }

    /// Begins an incoming exchange: sends its encoded head, and `data` if the whole body is at hand.
    ///
    /// `whole`: the body ends with `data`. The caller has taken a permit of the gate, and gives it up if this succeeds.
    pub(crate) fn begin(
        self: &Arc<Self>,
        head: &[u8],
        data: &[u8],
        whole: bool,
        request: Bytes,
    ) -> Result<Handle, BeginError> {
        if self.lost.is_cancelled() {
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
        let mut header = Header::new(Kind::Request, stream_of(index), 0);
        if whole && data.is_empty() {
            header.flags = FLAG_END;
        }
        let sent = self.outbox.try_send(header, head);
        if let Err(error) = sent {
            place.exchange.close();
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
            self.control(Header::new(Kind::Data, stream_of(index), 0), data);
            if whole {
                self.control(Header::new(Kind::End, stream_of(index), 0), &[]);
            }
        }
        self.active.fetch_add(1, Ordering::Relaxed);
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

    /// The place that a stream number of the guest means.
    fn place(&self, stream: u32) -> Option<(u32, &Mutex<Place>)> {
        let index = stream.checked_sub(1)?;
        Some((index, self.places.get(index as usize)?))
    }

    /// Frees a place that both sides are done with. Called with the place locked.
    fn recycle(&self, index: u32, place: &mut Place) {
        if place.done && place.released {
            place.done = false;
            place.exchange.close();
            place.request = Bytes::new();
            self.active.fetch_sub(1, Ordering::Relaxed);
            lock(&self.free).push(index);
            self.gate.add_permits(1);
        }
    }

    /// Milliseconds since the link was made.
    fn now(&self) -> u64 {
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
        });
    }

    /// Looks after deadlines; called every [`SWEEP`]. A guest that does not end what it was told to end is lost.
    pub(crate) fn sweep(&self) {
        if self.active.load(Ordering::Relaxed) == 0 || self.lost.is_cancelled() {
            return;
        }
        let now = self.now();
        let mut wakers = Vec::new();
        let mut overdue = false;
        for (index, place) in self.places.iter().enumerate() {
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
                    let stream = stream_of(u32::try_from(index).unwrap_or(u32::MAX));
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

/// Time between two looks at the deadlines.
pub(crate) const SWEEP: Duration = Duration::from_millis(50);

/// The stream number of a place; 0 means none.
fn stream_of(index: u32) -> u32 {
    index.wrapping_add(1)
}
