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
use super::exchange::Exchange;
use super::failure::Violation;
use crate::sync::lock;

/// Records taken before others get their turn.
const BATCH: usize = 128;
/// Turns given to others, with requests under way, before the task sleeps.
const PATIENCE: u32 = 2;
/// Most outgoing exchanges of one guest at a time.
const MAX_CALLS: usize = 1024;

/// Who does a guest's outgoing requests.
pub(crate) trait Outgoing: Send + Sync + 'static {
    /// Begins one. `head` is encoded; `whole`: it has no body. Must not block.
    fn begin(&self, link: &Arc<Link>, stream: u32, head: Bytes, whole: bool, call: super::Call);
}

/// Reads the guest's ring until the VM is lost.
pub(crate) async fn run(
    link: Arc<Link>,
    memory: Arc<RingMemory>,
    doorbell: AsyncFd<OwnedFd>,
    outgoing: Arc<dyn Outgoing>,
) {
    let consumer = Consumer::new(HostRing::guest_to_host(&memory));
    let mut drain = Drain {
        link: Arc::clone(&link),
        consumer,
        outgoing,
        wakers: Vec::new(),
        buffer: vec![0; MAX_PAYLOAD].into(),
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
    consumer: Consumer<HostRing>,
    outgoing: Arc<dyn Outgoing>,
    wakers: Vec<Waker>,
    buffer: Box<[u8]>,
}

impl Drain {
    async fn serve(&mut self, doorbell: &AsyncFd<OwnedFd>) -> Result<(), Violation> {
        let mut idle = 0;
        loop {
            if self.batch()? > 0 {
                idle = 0;
                tokio::task::yield_now().await;
                continue;
            }
            self.link
                .outbox
                .flush()
                .map_err(|_| Violation("the ring to the guest is garbled"))?;
            if idle < PATIENCE && self.link.active.load(Ordering::Relaxed) > 0 {
                idle += 1;
                tokio::task::yield_now().await;
                continue;
            }
            idle = 0;
            if self.consumer.sleep().map_err(corrupt)? {
                // An error means that the runtime is going down; then this task is too.
                let Ok(mut ready) = doorbell.readable().await else {
                    return Ok(());
                };
                let mut count = [0; 8];
                let _ = rustix::io::read(doorbell.get_ref(), &mut count);
                ready.clear_ready();
                self.consumer.awake();
                self.link
                    .outbox
                    .flush()
                    .map_err(|_| Violation("the ring to the guest is garbled"))?;
            }
        }
    }

    /// Takes what is there, at most [`BATCH`] records.
    fn batch(&mut self) -> Result<usize, Violation> {
        let mut count = 0;
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut result = Ok(());
        while count < BATCH && result.is_ok() {
            match self.consumer.pop(&mut buffer) {
                Ok(Some((header, payload))) => {
                    count += 1;
                    result = self.record(header, payload);
                }
                Ok(None) => break,
                Err(error) => result = Err(corrupt(error)),
            }
        }
        self.buffer = buffer;
        if count > 0 && self.consumer.release() {
            self.link.outbox.nudge();
        }
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
        result.map(|()| count)
    }

    fn record(&mut self, header: Header, payload: &[u8]) -> Result<(), Violation> {
        if header.kind == Kind::Ready {
            if self.link.ready.is_cancelled() {
                return Err(Violation("it said twice that it is ready"));
            }
            self.link.ready.cancel();
            return Ok(());
        }
        if header.kind == Kind::Log {
            return self.log(header, payload);
        }
        if header.stream & OUTGOING != 0 {
            return self.call(header, payload);
        }
        let link = &self.link;
        let (index, place) = link
            .place(header.stream)
            .ok_or(Violation("a record for a request that never was"))?;
        let mut place = lock(place);
        if header.kind != Kind::Done {
            return place.exchange.on_record(header, payload, &mut self.wakers);
        }
        let done = place
            .exchange
            .on_done(header.aux, payload, &mut self.wakers)?;
        link.usage.charge_cpu(done.cpu_ns);
        if header.aux == outcome::TRAP {
            link.traps.fetch_add(1, Ordering::Relaxed);
        }
        link.requests.fetch_add(1, Ordering::Relaxed);
        place.done = true;
        link.recycle(index, &mut place);
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
            .map(|(_, place)| lock(place).request.clone());
        let request = request
            .as_ref()
            .and_then(|id| std::str::from_utf8(id).ok())
            .filter(|id| !id.is_empty());
        self.link.log(request, stream, payload);
        Ok(())
    }

    fn call(&mut self, header: Header, payload: &[u8]) -> Result<(), Violation> {
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
        self.outgoing.begin(
            &self.link,
            header.stream,
            Bytes::copy_from_slice(payload),
            whole,
            call,
        );
        Ok(())
    }
}

fn corrupt(_: Corrupt) -> Violation {
    Violation("its ring is garbled")
}
