//! One outgoing request: the guest's hold on it, and its body as hyper's client takes it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use sandbox_abi::message::{Header, Kind};

use crate::link::exchange::Part;
use crate::link::failure::Failure;
use crate::link::outbox::OutboxError;
use crate::link::{Call, Link, head};
use crate::router::fields;
use crate::sync::lock;

/// An outgoing exchange. Its number is free again when the last hold on it is gone.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) link: Arc<Link>,
    stream: u32,
    call: Call,
}

impl Exchange {
    pub(crate) fn new(link: Arc<Link>, stream: u32, call: Call) -> Self {
        Exchange { link, stream, call }
    }

    /// Tells the guest that it is off.
    pub(crate) fn reset(&self, code: u32, text: &str) {
        let mut call = lock(&self.call);
        if call.open && call.failure.is_none() {
            self.link
                .control(Header::new(Kind::Reset, self.stream, code), text.as_bytes());
            call.fail_as(Failure::Guest(code, Bytes::new()));
            call.wake_writer();
        }
        call.open = false;
    }

    /// Resolves once the guest wants no more of the response.
    pub(crate) async fn unwanted(&self) {
        poll_fn(|cx| lock(&self.call).poll_stopped(cx)).await;
    }

    /// Waits until the guest takes more of the response, and says how much. `None`: it wants no more.
    pub(crate) async fn credit(&self) -> Option<u32> {
        poll_fn(|cx| lock(&self.call).poll_credit(cx)).await
    }

    /// Sends a record of the response. Waits for room. `false`: nobody wants it.
    pub(crate) async fn send(&self, kind: Kind, flags: u8, payload: &[u8]) -> bool {
        let mut header = Header::new(kind, self.stream, 0);
        header.flags = flags;
        loop {
            let mut room = std::pin::pin!(self.link.outbox.room());
            room.as_mut().enable();
            let sent = {
                let mut call = lock(&self.call);
                if !call.open || call.failure.is_some() {
                    return false;
                }
                let sent = self.link.outbox.try_send(header, payload);
                if sent.is_ok() && kind == Kind::Data {
                    call.spend(payload.len());
                }
                sent
            };
            match sent {
                Ok(()) => return true,
                Err(OutboxError::Full) => tokio::select! {
                    () = room => {}
                    () = self.link.lost.cancelled() => return false,
                },
                Err(OutboxError::Broken) => {
                    self.link.lose("the guest garbled its ring");
                    return false;
                }
            }
        }
    }

    fn poll_part(&self, cx: &mut Context<'_>) -> Poll<Result<Part, Failure>> {
        let (part, credit) = ready!(lock(&self.call).poll_part(cx, &self.link.extra))?;
        if credit > 0 {
            self.link
                .control(Header::new(Kind::Credit, self.stream, credit), &[]);
        }
        Poll::Ready(Ok(part))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        lock(&self.call).close(&self.link.extra);
        lock(&self.link.calls).remove(&self.stream);
    }
}

/// The guest gave up the request in the middle of its body.
#[derive(Debug, thiserror::Error)]
#[error("the component gave up its request")]
pub(crate) struct GaveUp;

/// The body of a request, as the guest sends it.
#[derive(Debug, Default)]
pub(crate) struct RequestBody {
    /// None once it has ended.
    exchange: Option<Arc<Exchange>>,
    length: Option<u64>,
}

impl RequestBody {
    /// The body that the guest sends; `length` is what the head says of it.
    pub(crate) fn new(exchange: Arc<Exchange>, length: Option<u64>) -> Self {
        RequestBody {
            exchange: Some(exchange),
            length,
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = GaveUp;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, GaveUp>>> {
        let Some(exchange) = &self.exchange else {
            return Poll::Ready(None);
        };
        let part = ready!(exchange.poll_part(cx));
        if let Ok(Part::Data(data)) = part {
            if let Some(left) = &mut self.length {
                match left.checked_sub(data.len() as u64) {
                    Some(rest) => *left = rest,
                    None => return Poll::Ready(Some(Err(GaveUp))),
                }
            }
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        self.exchange = None;
        Poll::Ready(match part {
            Err(_) => Some(Err(GaveUp)),
            Ok(Part::End(Some(encoded))) => match head::trailers(&encoded) {
                Ok(mut trailers) => {
                    fields::strip_trailers(&mut trailers);
                    Some(Ok(Frame::trailers(trailers)))
                }
                Err(_) => Some(Err(GaveUp)),
            },
            Ok(_) if self.length.is_some_and(|left| left > 0) => Some(Err(GaveUp)),
            Ok(_) => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.exchange.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.exchange.is_none() {
            return SizeHint::with_exact(0);
        }
        self.length
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(exchange) = &self.exchange {
            // The upstream wants no more of it.
            let mut call = lock(&exchange.call);
            if call.open && !call.ended() {
                exchange
                    .link
                    .control(Header::new(Kind::Stop, exchange.stream, 0), &[]);
            }
            call.discard();
        }
    }
}
