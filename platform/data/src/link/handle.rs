//! The host's hold on an incoming exchange.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use sandbox_abi::message::{Header, Kind, MAX_DATA, reset};

use super::exchange::{Part, RawHead};
use super::failure::Failure;
use super::outbox::OutboxError;
use super::{Link, Place};
use crate::sync::lock;

/// The reader of an incoming exchange's response. Dropped before the response has ended, it cancels the exchange.
#[derive(Debug)]
pub(crate) struct Handle {
    link: Arc<Link>,
    index: u32,
    generation: u64,
}

impl Handle {
    pub(super) fn new(link: Arc<Link>, index: u32, generation: u64) -> Self {
        Handle {
            link,
            index,
            generation,
        }
    }

    fn with<R>(&self, act: impl FnOnce(&mut Place) -> R) -> Option<R> {
        self.link
            .places
            .get(self.index as usize)
            .map(|place| act(&mut lock(place)))
    }

    /// Waits for the head of the response.
    pub(crate) fn poll_head(&self, cx: &mut Context<'_>) -> Poll<Result<RawHead, Failure>> {
        self.with(|place| place.exchange.poll_head(cx))
            .unwrap_or(Poll::Ready(Err(Failure::Lost)))
    }

    /// Waits for the head of the response.
    pub(crate) async fn head(&self) -> Result<RawHead, Failure> {
        poll_fn(|cx| self.poll_head(cx)).await
    }

    /// Takes the next part of the response's body, and grants the guest what was taken.
    pub(crate) fn poll_part(&self, cx: &mut Context<'_>) -> Poll<Result<Part, Failure>> {
        let polled = self.with(|place| {
            let polled = place.exchange.poll_part(cx, &self.link.extra);
            if let Poll::Ready(Ok((_, credit))) = &polled
                && *credit > 0
            {
                self.link
                    .control(Header::new(Kind::Credit, place.stream, *credit), &[]);
            }
            polled.map_ok(|(part, _)| part)
        });
        polled.unwrap_or(Poll::Ready(Err(Failure::Lost)))
    }

    /// How the exchange failed, if it did.
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.with(|place| place.exchange.failure.clone()).flatten()
    }

    /// Wants no more of the response's body, without cancelling what the component does.
    pub(crate) fn stop(&self) {
        self.with(|place| {
            if !place.exchange.ended() {
                self.link
                    .control(Header::new(Kind::Stop, place.stream, 0), &[]);
            }
            place.exchange.discard();
        });
    }

    /// The writing end of the request's body.
    pub(crate) fn writer(&self) -> Writer {
        Writer {
            link: Arc::clone(&self.link),
            index: self.index,
            generation: self.generation,
        }
    }

    /// The guest's answer was no answer: its VM is lost.
    pub(crate) fn condemn(&self, reason: &str) {
        self.link.lose(reason);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let link = &self.link;
        self.with(|place| {
            place.released = true;
            if place.exchange.open && !place.exchange.ended() {
                place.exchange.discard();
                if place.exchange.failure.is_none() {
                    place
                        .exchange
                        .fail_as(Failure::Guest(reset::CANCELLED, bytes::Bytes::new()));
                    link.control(
                        Header::new(Kind::Reset, place.stream, reset::CANCELLED),
                        b"cancelled",
                    );
                    place.watch.gave_up(link.now());
                }
                place.exchange.wake_writer();
            }
            if link.lost.is_cancelled() {
                place.done = true;
            }
            link.recycle(self.index, place);
        });
    }
}

/// The writing end of an incoming exchange's request body. It may outlive the exchange, and then it is stopped.
#[derive(Debug)]
pub(crate) struct Writer {
    link: Arc<Link>,
    index: u32,
    generation: u64,
}

impl Writer {
    fn with<R>(&self, act: impl FnOnce(&mut Place) -> R) -> Option<R> {
        let mut place = lock(self.link.places.get(self.index as usize)?);
        (place.exchange.generation == self.generation).then(|| act(&mut place))
    }

    /// Waits until the guest takes more, and says how many bytes. `None`: it wants no more.
    pub(crate) fn poll_credit(&self, cx: &mut Context<'_>) -> Poll<Option<u32>> {
        self.with(|place| place.exchange.poll_credit(cx))
            .unwrap_or(Poll::Ready(None))
    }

    /// Waits until the guest takes more, and says how many bytes. `None`: it wants no more.
    pub(crate) async fn credit(&self) -> Option<u32> {
        poll_fn(|cx| self.poll_credit(cx)).await
    }

    /// Resolves once the guest wants no more, whether or not it has credit left.
    pub(crate) async fn stopped(&self) {
        poll_fn(|cx| {
            self.with(|place| place.exchange.poll_stopped(cx))
                .unwrap_or(Poll::Ready(()))
        })
        .await;
    }

    /// Sends data for which there is credit, at most `MAX_DATA` bytes. Waits for room. `false`: nobody wants it.
    pub(crate) async fn data(&self, data: &[u8]) -> bool {
        debug_assert!(data.len() <= MAX_DATA);
        self.record(Kind::Data, data).await
    }

    /// Ends the body with encoded trailers. Waits for room. `false`: nobody wants it.
    pub(crate) async fn end(&self, trailers: &[u8]) -> bool {
        self.record(Kind::End, trailers).await
    }

    async fn record(&self, kind: Kind, payload: &[u8]) -> bool {
        loop {
            let mut room = std::pin::pin!(self.link.outbox.room());
            room.as_mut().enable();
            let sent = self.with(|place| {
                if !place.exchange.open || place.exchange.failure.is_some() {
                    return None;
                }
                let header = Header::new(kind, place.stream, 0);
                let sent = self.link.outbox.try_send(header, payload);
                if sent.is_ok() && kind == Kind::Data {
                    place.exchange.spend(payload.len());
                }
                Some(sent)
            });
            match sent.flatten() {
                None => return false,
                Some(Ok(())) => return true,
                Some(Err(OutboxError::Full)) => tokio::select! {
                    () = room => {}
                    () = self.link.lost.cancelled() => return false,
                },
                Some(Err(OutboxError::Broken)) => {
                    self.link.lose("the guest garbled its ring");
                    return false;
                }
            }
        }
    }

    /// The body is no good: the exchange fails with `failure`, and the guest is told that it is off.
    pub(crate) fn fail(&self, failure: Failure) {
        let mut wakers = Vec::new();
        self.with(|place| {
            if place.exchange.open && !place.exchange.ended() {
                place.exchange.fail(failure, &mut wakers);
                self.link.control(
                    Header::new(Kind::Reset, place.stream, reset::CANCELLED),
                    b"the request's body failed",
                );
                place.watch.gave_up(self.link.now());
            }
        });
        for waker in wakers {
            waker.wake();
        }
    }
}
