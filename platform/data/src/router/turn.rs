//! A request's turn: it waits for a permit and for a VM, and its head is handed to the guest.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http::request::Parts;
use sandbox_abi::head::{RequestHead, Timeouts};
use sandbox_abi::message::MAX_PAYLOAD;

use super::fields::{self, Origin};
use super::observe::Observation;
use super::reject::Reject;
use crate::link::handle::Handle;
use crate::link::{BeginError, Link};
use crate::pool::deployment::Deployment;
use crate::trace::Step;

/// Longest wait for a VM to get ready.
const START_WAIT: Duration = Duration::from_secs(15);
/// Longest wait for a turn.
const QUEUE_WAIT: Duration = Duration::from_secs(30);
/// Longest wait for a deployment to say how it is after it has said something else.
const PHASE_WAIT: Duration = Duration::from_millis(10);
/// Longest wait for room in the ring.
const ROOM_WAIT: Duration = Duration::from_secs(2);

thread_local! {
    /// Where heads are encoded: one buffer for each thread, kept.
    static ENCODED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Waits for a turn and for a VM, and hands the request over.
pub(super) async fn begin(
    deployment: &Arc<Deployment>,
    parts: &Parts,
    origin: Origin<'_>,
    whole: bool,
    id: &Bytes,
    seen: Option<&Observation<'_>>,
) -> Result<Handle, Reject> {
    take_turn(deployment, seen).await?;
    // From here a permit is ours, until an exchange takes it over.
    let permit = Permit(deployment);
    let mut full = false;
    let mut guest = seen.and_then(Observation::guest);
    loop {
        let link = serving_link(deployment, seen).await?;
        let mut room = std::pin::pin!(link.outbox.room());
        room.as_mut().enable();
        let begun = ENCODED.with_borrow_mut(|buffer| {
            buffer.clear();
            let trace = guest.as_ref().map(|guest| guest.context());
            encode(buffer, parts, &Origin { trace, ..origin });
            if buffer.len() > MAX_PAYLOAD {
                None
            } else {
                Some(link.begin(buffer, &[], whole, id.clone(), &mut guest))
            }
        });
        match begun {
            None => return Err(Reject::HeadTooLarge(deployment.target.limits.head_bytes)),
            Some(Ok(handle)) => {
                permit.hand_over();
                return Ok(handle);
            }
            Some(Err(BeginError::Lost)) => {}
            Some(Err(BeginError::Full)) if link.renewal.is_some() => {
                take_place(deployment, seen).await?;
            }
            Some(Err(BeginError::Full)) if full => return Err(Reject::RingFull),
            Some(Err(BeginError::Full)) => {
                full = tokio::time::timeout(ROOM_WAIT, room).await.is_err();
                if full {
                    return Err(Reject::RingFull);
                }
            }
        }
    }
}

/// Waits until one of the VMs may have a free place: each is put back between its requests.
async fn take_place(deployment: &Deployment, seen: Option<&Observation<'_>>) -> Result<(), Reject> {
    let freed = deployment.freed.notified();
    let waiting = Placeless::new(deployment);
    // Between the try and the wait a place may have become free.
    if deployment.pick().is_some_and(|link| link.free_places() > 0) {
        return Ok(());
    }
    let wait = seen.map(|seen| seen.wait(Step::Queue));
    let freed = tokio::time::timeout(QUEUE_WAIT, freed).await;
    drop((wait, waiting));
    freed.map_err(|_| Reject::Waited(QUEUE_WAIT))
}

struct Placeless<'d>(&'d Deployment);

impl<'d> Placeless<'d> {
    fn new(deployment: &'d Deployment) -> Self {
        deployment.placeless.fetch_add(1, Ordering::Relaxed);
        Placeless(deployment)
    }
}

impl Drop for Placeless<'_> {
    fn drop(&mut self) {
        self.0.placeless.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A permit of the gate that no exchange has taken over yet.
struct Permit<'d>(&'d Arc<Deployment>);

impl Permit<'_> {
    fn hand_over(self) {
        std::mem::forget(self);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.gate.add_permits(1);
    }
}

/// Takes a permit, after waiting in the queue if it must be.
async fn take_turn(deployment: &Deployment, seen: Option<&Observation<'_>>) -> Result<(), Reject> {
    if let Ok(permit) = deployment.gate.try_acquire() {
        permit.forget();
        return Ok(());
    }
    let limits = &deployment.target.limits;
    let waiting = Waiting(deployment);
    if deployment.waiting.fetch_add(1, Ordering::Relaxed) >= limits.queue {
        return Err(Reject::Busy(limits.concurrency, limits.queue));
    }
    let wait = seen.map(|seen| seen.wait(Step::Queue));
    let permit = tokio::time::timeout(QUEUE_WAIT, deployment.gate.acquire()).await;
    drop((wait, waiting));
    match permit {
        Ok(Ok(permit)) => {
            permit.forget();
            Ok(())
        }
        _ => Err(Reject::Waited(QUEUE_WAIT)),
    }
}

struct Waiting<'d>(&'d Deployment);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The link to a VM that serves; waits for one that starts.
async fn serving_link(
    deployment: &Deployment,
    seen: Option<&Observation<'_>>,
) -> Result<Arc<Link>, Reject> {
    if let Some(link) = deployment.pick() {
        return Ok(link);
    }
    let _wait = seen.map(|seen| seen.wait(Step::SandboxStart));
    let wait = async {
        let mut phase = deployment.phase.subscribe();
        loop {
            deployment
                .ready()
                .await
                .map_err(|error| Reject::NotReady(error.to_string()))?;
            if let Some(link) = deployment.pick() {
                return Ok(link);
            }
            // It serves no more and does not say so yet, or the other way round: whatever comes next is said.
            let next = phase.changed();
            if tokio::time::timeout(PHASE_WAIT, next)
                .await
                .is_ok_and(|c| c.is_err())
            {
                return Err(Reject::NotReady("it was stopped".to_owned()));
            }
        }
    };
    let late = |_| {
        Reject::NotReady(format!(
            "it was not ready within {} s",
            START_WAIT.as_secs()
        ))
    };
    tokio::time::timeout(START_WAIT, wait).await.map_err(late)?
}

fn encode(buffer: &mut Vec<u8>, parts: &Parts, origin: &Origin<'_>) {
    RequestHead::write(
        buffer,
        parts.method.as_str(),
        Some(origin.scheme),
        Some(origin.authority),
        Some(&path(&parts.uri, origin.prefix.len())),
        Timeouts::default(),
    );
    fields::write_request(buffer, parts.version, &parts.headers, origin);
}

/// Path and query as the component sees them: without the first `strip` bytes.
fn path(uri: &Uri, strip: usize) -> Cow<'_, str> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    match path.get(strip..) {
        Some(rest) if strip == 0 || rest.starts_with('/') => rest.into(),
        Some(rest) => format!("/{rest}").into(),
        None => path.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_taken_off() {
        for (uri, strip, seen) in [
            ("/api/x?q", 0, "/api/x?q"),
            ("/api/x?q", 4, "/x?q"),
            ("/api", 4, "/"),
            ("/api?q", 4, "/?q"),
            ("/api/", 4, "/"),
            ("http://h/api/x", 4, "/x"),
            ("*", 0, "*"),
        ] {
            assert_eq!(path(&uri.parse().unwrap(), strip), seen, "{uri}");
        }
    }
}
