//! The guest's head and body, turned into a response.

use std::future::poll_fn;

use bytes::BytesMut;
use http::request::Parts;
use http::{HeaderMap, Response};

use super::body::{self, Body, Held};
use super::fields::{self, Framing};
use super::reject::Reject;
use crate::link::exchange::{Part, RawHead};
use crate::link::handle::Handle;
use crate::link::head::{self, HeadError};

/// Turns the guest's head into a response.
pub(super) async fn respond(
    parts: &Parts,
    handle: Handle,
    raw: RawHead,
    held: Held,
) -> Result<Response<Body>, Reject> {
    let limits = &held.hold.0.target.limits;
    if raw.payload.len() > limits.head_bytes as usize * 2 {
        return Err(Reject::ResponseHeadTooLarge(limits.head_bytes));
    }
    let (status, mut headers) = match head::response(&raw.payload) {
        Ok(head) => head,
        Err(HeadError::Malformed) => {
            handle.condemn("the guest sent a head that cannot be decoded");
            return Err(Reject::Lost);
        }
        Err(HeadError::Invalid) => {
            return Err(Reject::BadResponse(
                "the response's head is not what HTTP allows",
            ));
        }
        Err(HeadError::TooMany(_)) => {
            return Err(Reject::BadResponse(
                "the response has more header fields than can be sent",
            ));
        }
    };
    let framing = fields::response(&parts.method, status, &mut headers)?;
    let most = held.response_body.unwrap_or(u64::MAX);
    if let Framing::Length(Some(length)) = framing
        && length > most
    {
        return Err(Reject::ResponseTooLarge(most));
    }
    let body = match framing {
        Framing::None => {
            if raw.complete {
                drop(handle);
            } else {
                finish_silently(handle, held);
            }
            Body::Empty
        }
        Framing::Length(length) if raw.complete => {
            gather(&handle, length, most, &mut headers).await?
        }
        // Nothing has left yet: there is room for an error that says what was wrong.
        Framing::Length(_) if let Some(failure) = handle.failure() => {
            return Err(Reject::of(&failure, limits, limits.request_body_bytes));
        }
        Framing::Length(length) => Body::guest(handle, length, held),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// Lets the component go on after a response that has no body to send, and drops what it sends.
fn finish_silently(handle: Handle, held: Held) {
    handle.stop();
    tokio::spawn(async move {
        let _held = held;
        while let Ok(Part::Data(_)) = poll_fn(|cx| handle.poll_part(cx)).await {}
    });
}

/// Takes a body that has arrived whole.
async fn gather(
    handle: &Handle,
    length: Option<u64>,
    most: u64,
    headers: &mut HeaderMap,
) -> Result<Body, Reject> {
    let cut_off = Reject::BadResponse("the component's response was cut off");
    let mut first = None;
    let mut more = BytesMut::new();
    let encoded = loop {
        match poll_fn(|cx| handle.poll_part(cx))
            .await
            .map_err(|_| cut_off.clone())?
        {
            Part::Data(data) if first.is_none() => first = Some(data),
            Part::Data(data) => {
                if more.is_empty() {
                    more.extend_from_slice(first.as_deref().unwrap_or_default());
                }
                more.extend_from_slice(&data);
            }
            Part::End(encoded) => break encoded,
        }
    };
    let data = if more.is_empty() {
        first.unwrap_or_default()
    } else {
        more.freeze()
    };
    if data.len() as u64 > most {
        return Err(Reject::ResponseTooLarge(most));
    }
    if data.is_empty() && length.is_some_and(|length| length > 0) {
        // A head without a body: the length that counts is 0.
        headers.remove(http::header::CONTENT_LENGTH);
    } else if length.is_some_and(|length| length != data.len() as u64) {
        return Err(Reject::BadResponse(
            "the component's response is not as long as its content-length says",
        ));
    }
    let trailers = match encoded {
        Some(encoded) => body::decode_trailers(&encoded).ok_or(Reject::BadResponse(
            "the component's trailers are not what HTTP allows",
        ))?,
        None => HeaderMap::new(),
    };
    if trailers.is_empty() {
        return Ok(Body::full(data));
    }
    // Trailers need the chunked coding in HTTP/1.1.
    headers.remove(http::header::CONTENT_LENGTH);
    Ok(Body::Whole(
        (!data.is_empty()).then_some(data),
        Some(trailers),
    ))
}
