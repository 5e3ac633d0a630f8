//! Carries the body of a request to the guest, as fast as the guest takes it.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use sandbox_abi::message::{MAX_DATA, MAX_PAYLOAD};

use super::fields;
use super::observe::BodyCount;
use crate::link::failure::{BadBody, Failure};
use crate::link::handle::Writer;
use crate::link::head;

/// Longest time without a byte of a body that the guest waits for.
const SLOW: Duration = Duration::from_secs(30);

/// Carries `body`, at most `limit` bytes of it. Ends when the body does, or when the guest wants no more.
pub(crate) async fn run(mut body: Incoming, writer: Writer, limit: u64, count: BodyCount) {
    if let Err(bad) = carry(&mut body, &writer, limit, &count).await {
        writer.fail(Failure::Body(bad));
    }
}

async fn carry(
    body: &mut Incoming,
    writer: &Writer,
    limit: u64,
    count: &BodyCount,
) -> Result<(), BadBody> {
    let mut total: u64 = 0;
    loop {
        // Nothing is read, and no `100 Continue` sent, before the guest can take it.
        if writer.credit().await.is_none() {
            return Ok(());
        }
        let frame = tokio::select! {
            biased;
            frame = tokio::time::timeout(SLOW, body.frame()) => frame,
            () = writer.stopped() => return Ok(()),
        };
        let frame = match frame {
            Err(_) => return Err(BadBody::Slow),
            Ok(None) => {
                writer.end(&[]).await;
                return Ok(());
            }
            Ok(Some(Err(_))) => return Err(BadBody::Malformed),
            Ok(Some(Ok(frame))) => frame,
        };
        match frame.into_data() {
            Ok(data) => {
                total = total.saturating_add(data.len() as u64);
                count.add(data.len());
                if total > limit {
                    return Err(BadBody::TooLarge);
                }
                if !send(writer, &data).await {
                    return Ok(());
                }
            }
            Err(frame) => {
                let Ok(mut trailers) = frame.into_trailers() else {
                    continue;
                };
                fields::strip_trailers(&mut trailers);
                let mut encoded = Vec::new();
                head::write_trailers(&mut encoded, &trailers);
                if encoded.len() > MAX_PAYLOAD {
                    return Err(BadBody::TooLarge);
                }
                writer.end(&encoded).await;
                return Ok(());
            }
        }
    }
}

/// Sends `data` in pieces for which there is credit. `false`: nobody wants more.
async fn send(writer: &Writer, mut data: &[u8]) -> bool {
    while !data.is_empty() {
        let Some(credit) = writer.credit().await else {
            return false;
        };
        let length = data.len().min(credit as usize).min(MAX_DATA);
        let (piece, rest) = data.split_at(length);
        if !writer.data(piece).await {
            return false;
        }
        data = rest;
    }
    true
}
