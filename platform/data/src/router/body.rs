//! The body of a response: nothing, bytes that are at hand, or what a guest sends as it sends it.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::fields;
use super::table::Leases;
use crate::link::exchange::Part;
use crate::link::failure::Failure;
use crate::link::handle::Handle;
use crate::link::head;
use crate::pool::deployment::Hold;

/// A response was cut off. The connection, or the stream of HTTP/2, ends with it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The exchange failed.
    #[error("the component's response was cut off: {0:?}")]
    Failed(Failure),
    /// More than the app or its tenant may send.
    #[error("the component's response is longer than the limit response_body_bytes")]
    TooLarge,
    /// More or less than the response's `content-length` says.
    #[error("the component's response is not as long as it said")]
    Length,
    /// Trailers that cannot be sent.
    #[error("the component's trailers are not what HTTP allows")]
    Trailers,
}

impl BodyError {
    /// Whether it is not the client that is to blame.
    fn is_of_deployment(&self) -> bool {
        !matches!(self, BodyError::Failed(Failure::Body(_)))
    }
}

/// A response's body.
#[derive(Default)]
pub(crate) enum Body {
    /// Nothing is left.
    #[default]
    Empty,
    /// Bytes, then perhaps trailers.
    Whole(Option<Bytes>, Option<HeaderMap>),
    /// What the guest sends.
    Guest(GuestBody),
}

/// What a guest sends.
pub(crate) struct GuestBody {
    handle: Handle,
    /// Bytes that are still to come, where the head says so.
    remaining: Option<u64>,
    /// Bytes that may still come.
    allowed: u64,
    held: Held,
}

/// What a request holds until its response has ended.
pub(crate) struct Held {
    /// Its deployment.
    pub(crate) hold: Hold,
    /// Whether it is a client's, so that its failure counts.
    pub(crate) counts: bool,
    /// Most bytes of the response's body.
    pub(crate) response_body: Option<u64>,
    /// What it takes of the limits on requests in flight.
    pub(crate) _leases: Leases,
}

impl Body {
    /// A body of bytes that are at hand.
    pub(crate) fn full(bytes: Bytes) -> Self {
        if bytes.is_empty() {
            Body::Empty
        } else {
            Body::Whole(Some(bytes), None)
        }
    }

    /// The body that the guest sends; `length` is what the head says of it.
    pub(crate) fn guest(handle: Handle, length: Option<u64>, held: Held) -> Self {
        Body::Guest(GuestBody {
            handle,
            remaining: length,
            allowed: held.response_body.unwrap_or(u64::MAX),
            held,
        })
    }
}

impl GuestBody {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let part = match std::task::ready!(self.handle.poll_part(cx)) {
            Ok(part) => part,
            Err(failure) => return Poll::Ready(Some(Err(BodyError::Failed(failure)))),
        };
        Poll::Ready(match part {
            Part::Data(data) => {
                match self.allowed.checked_sub(data.len() as u64) {
                    Some(rest) => self.allowed = rest,
                    None => return Poll::Ready(Some(Err(BodyError::TooLarge))),
                }
                if let Some(remaining) = &mut self.remaining {
                    match remaining.checked_sub(data.len() as u64) {
                        Some(rest) => *remaining = rest,
                        None => return Poll::Ready(Some(Err(BodyError::Length))),
                    }
                }
                Some(Ok(Frame::data(data)))
            }
            Part::End(_) if self.remaining.is_some_and(|rest| rest > 0) => {
                Some(Err(BodyError::Length))
            }
            Part::End(None) => None,
            Part::End(Some(encoded)) => match decode_trailers(&encoded) {
                Some(trailers) if trailers.is_empty() => None,
                Some(trailers) => Some(Ok(Frame::trailers(trailers))),
                None => Some(Err(BodyError::Trailers)),
            },
        })
    }
}

/// Trailers as they may be sent.
pub(crate) fn decode_trailers(encoded: &Bytes) -> Option<HeaderMap> {
    let mut trailers = head::trailers(encoded).ok()?;
    fields::strip_trailers(&mut trailers);
    Some(trailers)
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match &mut *self {
            Body::Empty => None,
            Body::Whole(data, trailers) => match data.take() {
                Some(data) => Some(Ok(Frame::data(data))),
                None => trailers
                    .take()
                    .map(|trailers| Ok(Frame::trailers(trailers))),
            },
            Body::Guest(guest) => match std::task::ready!(guest.poll(cx)) {
                Some(Ok(frame)) if frame.is_data() => return Poll::Ready(Some(Ok(frame))),
                end => {
                    if let Some(Err(error)) = &end
                        && guest.held.counts
                        && error.is_of_deployment()
                    {
                        guest.held.hold.0.counters.broke();
                    }
                    // Lets go of the exchange now, not when the connection is done with the body.
                    *self = Body::Empty;
                    end
                }
            },
        };
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Body::Empty | Body::Whole(None, None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Empty => SizeHint::with_exact(0),
            Body::Whole(data, None) => {
                SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64))
            }
            Body::Whole(_, Some(_)) => SizeHint::default(),
            Body::Guest(guest) => guest
                .remaining
                .map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}
