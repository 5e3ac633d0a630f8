//! The one task that reads what a guest writes.
//!
//! It takes records in batches, judges each, and wakes whoever waits once a batch. It sleeps on the doorbell's eventfd,
//! and announces so in the ring: a guest rings only for a router that sleeps.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use platform_model::LogStream;
use sandbox_abi::message::{FLAG_END, Header, Kind, MAX_PAYLOAD, OUTGOING, outcome, reset};
use sandbox_ring::host::{HostRing, RingMemory};
use sandbox_ring::{Consumer, Corrupt};
use std::sync::atomic::Ordering;
use tokio::io::unix::AsyncFd;

use super::Link;
use super::exchange::{Exchange, Payload};
use super::failure::Violation;
use super::pieces;
use crate::sync::lock;
use crate::trace::CallTrace;

/// Records taken before others get their turn.
const BATCH: usize = 128;
/// Turns given to others, with requests under way, before the task sleeps.
const PATIENCE: u32 = 2;
/// Most outgoing exchanges of one guest at a time.
const MAX_CALLS: usize = 1024;

/// Who does a guest's outgoing requests.
pub(crate) trait Outgoing: Send + Sync + 'static {
    /// Begins one. `head` is encoded; `whole`: it has no body. Must not block.
    /// Within the part of `trace`, where there is one.
    fn begin(
        &self,
        link: &Arc<Link>,
        stream: u32,
        head: Bytes,
        whole: bool,
        call: super::Call,
        trace: Option<CallTrace>,
    );
}

/// Reads the guest's ring until the VM is lost. `done` says that the VM was put back, where it is.
pub(crate) async fn run(
    link: Arc<Link>,
    memory: Arc<RingMemory>,
    doorbell: AsyncFd<OwnedFd>,
    done: Option<AsyncFd<OwnedFd>>,
    outgoing: Arc<dyn Outgoing>,
) {
    let mut drain = Drain {
        link: Arc::clone(&link),
        consumer: Consumer::new(HostRing::guest_to_host(&memory)),
        memory,
        done,
        greeted: false,
        outgoing,
        wakers: Vec::new(),
        buffer: vec![0; MAX_PAYLOAD].into(),
        now: None,
    };
    let lost = link.lost.clone();
    let ended = tokio::select! {
        ended = drain.serve(&doorbell) => ended,
        () = lost.cancelled() => Ok(()),
    };
    if let Err(violation) = ended {
        tracing::warn!(tenant = %link.target.tenant, app = %link.target.app, deployment = %link.target.deployment, %violation, "VM is lost");
        link.lose(&violation.to_string());
    }
    link.fail_all();
}

struct Drain {
    link: Arc<Link>,
    memory: Arc<RingMemory>,
    consumer: Consumer<HostRing>,
    /// Says that the VM was put back, where it is.
    done: Option<AsyncFd<OwnedFd>>,
    /// The guest has said that it is ready, since it was put back.
    greeted: bool,
    outgoing: Arc<dyn Outgoing>,
    wakers: Vec<Waker>,
    buffer: Box<[u8]>,
    /// The link's clock, read once for the records of a batch.
    now: Option<u64>,
}

impl Drain {
    async fn serve(&mut self, doorbell: &AsyncFd<OwnedFd>) -> Result<(), Violation> {
        loop {
            match self.read(doorbell).await {
                // The rings are wiped under the reader's hands while the VM is put back.
                Ok(Read::Reset) => {}
                Err(_) if self.link.is_resetting() => {}
                Ok(Read::End) => return Ok(()),
                Err(violation) => return Err(violation),
            }
            let Some(done) = &self.done else {
                return Err(Violation("the VM is put back, but cannot be"));
            };
            // An error means that the runtime is going down; then this task is too.
            if rung(done).await.is_err() {
                return Ok(());
            }
            self.consumer = Consumer::new(HostRing::guest_to_host(&self.memory));
            self.greeted = false;
            self.link.renew();
        }
    }

    /// Reads until the VM is being put back, or the runtime goes down.
    async fn read(&mut self, doorbell: &AsyncFd<OwnedFd>) -> Result<Read, Violation> {
        let mut idle = 0;
        loop {
            if self.batch()? > 0 {
                idle = 0;
                tokio::task::yield_now().await;
                continue;
            }
            if self.link.is_resetting() {
                return Ok(Read::Reset);
            }
            self.flush()?;
            if idle < PATIENCE && self.link.active.load(Ordering::Relaxed) > 0 {
                idle += 1;
                tokio::task::yield_now().await;
                continue;
            }
            idle = 0;
            if self.consumer.sleep().map_err(corrupt)? {
                let renewed = async {
                    match &self.done {
                        Some(done) => {
                            // Not taken here: it is for `serve`.
                            let _ = done.readable().await;
                        }
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    () = renewed => return Ok(Read::Reset),
                    rung = rung(doorbell) => if rung.is_err() {
                        return Ok(Read::End);
                    }
                }
                self.consumer.awake();
                self.flush()?;
            }
        }
    }

    fn flush(&self) -> Result<(), Violation> {
        let flushed = self.link.outbox.flush();
        flushed.map_err(|_| Violation("the ring to the guest is garbled"))
    }

    /// Takes what is there, at most [`BATCH`] records.
    fn batch(&mut self) -> Result<usize, Violation> {
        let mut count = 0;
        let mut held = false;
        self.now = None;
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut result = Ok(());
        while count < BATCH && result.is_ok() {
            match self.pop(&mut buffer) {
                Ok(Some((header, payload))) => {
                    count += 1;
                    held = true;
                    // With the last request of a round the VM is put back, which makes its rings blank: from then on nothing
                    // may be written into them.
                    if header.kind == Kind::Done && self.done.is_some() {
                        self.release();
                        held = false;
                    }
                    result = self.record(header, payload);
                }
                Ok(None) => break,
                Err(error) => result = Err(corrupt(error)),
            }
        }
        self.buffer = buffer;
        if held {
            self.release();
        }
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
        result.map(|()| count)
    }

    /// Gives the guest the room of what was read.
    fn release(&mut self) {
        if self.consumer.release() {
            self.link.outbox.nudge();
        }
    }

    /// Takes the next record; data in memory that goes on with it.
    fn pop<'b>(&mut self, buffer: &'b mut [u8]) -> Result<Option<(Header, Payload<'b>)>, Corrupt> {
        let Some(header) = self.consumer.peek()? else {
            return Ok(None);
        };
        if header.kind == Kind::Data {
            let mut piece = pieces::take(header.len as usize);
            self.consumer.pop_into(&mut piece)?;
            return Ok(Some((header, Payload::Owned(pieces::bytes(piece)))));
        }
        let record = self.consumer.pop(buffer)?;
        Ok(record.map(|(header, payload)| (header, Payload::Borrowed(payload))))
    }

    fn record(&mut self, header: Header, payload: Payload<'_>) -> Result<(), Violation> {
        if header.kind == Kind::Ready {
            if std::mem::replace(&mut self.greeted, true) {
                return Err(Violation("it said twice that it is ready"));
            }
            self.link.ready.cancel();
            return Ok(());
        }
        if header.kind == Kind::Log {
            return self.log(header, &payload);
        }
        if header.stream & OUTGOING != 0 {
            return self.call(header, payload);
        }
        let link = &self.link;
        let (index, mut place) = link
            .place(header.stream)
            .ok_or(Violation("a record for a request that is not"))?;
        let place = &mut *place;
        if header.kind != Kind::Done {
            return place.exchange.on_record(header, payload, &mut self.wakers);
        }
        let done = place
            .exchange
            .on_done(header.aux, &payload, &mut self.wakers)?;
        let now = *self.now.get_or_insert_with(|| link.now());
        let passed = place.watch.passed(now);
        let failure = place.exchange.failure.as_ref();
        link.counters.done(header.aux, failure, done, passed);
        link.usage.charge_cpu(done.cpu_ns);
        if let Some(trace) = place.trace.take() {
            trace.done(header.aux, done);
        }
        if header.aux == outcome::TRAP {
            link.traps.fetch_add(1, Ordering::Relaxed);
        }
        link.requests.fetch_add(1, Ordering::Relaxed);
        place.done = true;
        link.recycle(index, place);
        Ok(())
    }

    fn log(&self, header: Header, payload: &[u8]) -> Result<(), Violation> {
        let stream = match header.aux {
            1 => LogStream::Stdout,
            2 => LogStream::Stderr,
            _ => return Err(Violation("output to neither stdout nor stderr")),
        };
        let request = self
            .link
            .place(header.stream)
            .map(|(_, place)| place.request.clone());
        let request = request
            .as_ref()
            .and_then(|id| std::str::from_utf8(id).ok())
            .filter(|id| !id.is_empty());
        self.link.log(request, stream, payload);
        Ok(())
    }

    fn call(&mut self, header: Header, payload: Payload<'_>) -> Result<(), Violation> {
        if header.kind != Kind::Request {
            let call = lock(&self.link.calls).get(&header.stream).cloned();
            // A record may have crossed with the host's end of the exchange: it is nobody's then.
            let Some(call) = call else { return Ok(()) };
            let mut call = lock(&call);
            return if call.open {
                call.on_record(header, payload, &mut self.wakers)
            } else {
                Ok(())
            };
        }
        let mut calls = lock(&self.link.calls);
        if calls.contains_key(&header.stream) {
            return Err(Violation("a second outgoing request with the same number"));
        }
        if calls.len() >= MAX_CALLS {
            drop(calls);
            self.link.control(
                Header::new(Kind::Reset, header.stream, reset::CONNECTION_LIMIT_REACHED),
                b"too many outgoing requests",
            );
            return Ok(());
        }
        let whole = header.flags & FLAG_END != 0;
        let mut exchange = Exchange::default();
        exchange.begin(false, whole);
        let call = Arc::new(std::sync::Mutex::new(exchange));
        calls.insert(header.stream, Arc::clone(&call));
        drop(calls);
        // The guest says which of its requests makes the call; it can only mistake one of its own for another.
        let within = self.link.place(header.aux).map(|(_, place)| place);
        let trace = within.and_then(|place| Some(CallTrace::begin(place.trace.as_deref()?)));
        self.outgoing.begin(
            &self.link,
            header.stream,
            Bytes::copy_from_slice(&payload),
            whole,
            call,
            trace,
        );
        Ok(())
    }
}

fn corrupt(_: Corrupt) -> Violation {
    Violation("its ring is garbled")
}

/// Why the reader stopped.
enum Read {
    /// The VM is being put back.
    Reset,
    /// The runtime goes down.
    End,
}

/// Waits until an eventfd is written, and takes what it has counted.
async fn rung(event: &AsyncFd<OwnedFd>) -> std::io::Result<()> {
    let mut ready = event.readable().await?;
    let _ = rustix::io::read(event.get_ref(), &mut [0_u8; 8]);
    ready.clear_ready();
    Ok(())
}
