//! What happens to one request: checked, routed, handed to a guest, answered.

use std::cell::RefCell;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use http::header::HeaderValue;
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use sandbox_abi::head::{RequestHead, Timeouts};
use sandbox_abi::message::MAX_PAYLOAD;

use super::body::{self, Body};
use super::fields::{self, Framing, Origin};
use super::observe::{Observation, Observed, Observer};
use super::pump;
use super::reject::Reject;
use super::table::Table;
use crate::link::exchange::{Part, RawHead};
use crate::link::handle::Handle;
use crate::link::head::{self, HeadError};
use crate::link::{BeginError, Link};
use crate::pool::deployment::{Deployment, Hold};
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

/// What all connections share.
pub(crate) struct Service {
    pub(crate) table: ArcSwap<Table>,
    pub(crate) observer: Observer,
    ids: AtomicU64,
    ids_base: u64,
}

/// Where a connection comes from.
pub(crate) struct Peer {
    /// The address.
    pub(crate) address: String,
    /// The address as `Forwarded` wants it.
    pub(crate) node: String,
}

impl Service {
    /// A service that knows no host.
    pub(crate) fn new(observer: Observer) -> Self {
        let mut seed = [0; 8];
        // Without randomness ids still are unique within this process.
        let _ = rustix::rand::getrandom(&mut seed[..], rustix::rand::GetRandomFlags::empty());
        Service {
            table: ArcSwap::default(),
            observer,
            ids: AtomicU64::new(0),
            ids_base: u64::from_le_bytes(seed),
        }
    }

    fn make_id(&self) -> Bytes {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        // A bijection of the counter: never the same twice, and no counting for strangers.
        let n = self
            .ids
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            ^ self.ids_base;
        let mut id = [0; 16];
        for (place, digit) in id.iter_mut().enumerate() {
            let nibble = (n >> (60 - 4 * place)) & 15;
            *digit = DIGITS
                .get(usize::try_from(nibble).unwrap_or(0))
                .copied()
                .unwrap_or(b'0');
        }
        Bytes::copy_from_slice(&id)
    }

    /// Answers a request.
    pub(crate) async fn answer(
        self: Arc<Self>,
        peer: &Peer,
        request: Request<Incoming>,
    ) -> Response<Observed> {
        let (parts, body) = request.into_parts();
        let id = fields::request_id(&parts.headers, || self.make_id());
        let mut seen = self.observer.begin(peer, &parts, &id);
        let mut response = match self.exchange(peer, &parts, body, &id, &mut seen).await {
            Ok(response) => response,
            Err(reject) => reject.response(std::str::from_utf8(&id).unwrap_or_default()),
        };
        if let Ok(id) = HeaderValue::from_maybe_shared(id) {
            response.headers_mut().insert(fields::REQUEST_ID, id);
        }
        let answered = seen.answered(response);
        answered.with(self)
    }

    /// Answers a request that has two lengths.
    pub(crate) fn refuse_smuggling(
        self: Arc<Self>,
        peer: &Peer,
        parts: &Parts,
    ) -> Response<Observed> {
        let id = self.make_id();
        let seen = self.observer.begin(peer, parts, &id);
        let reject = Reject::Malformed("there are both Content-Length and Transfer-Encoding");
        let mut response = reject.response(std::str::from_utf8(&id).unwrap_or_default());
        if let Ok(id) = HeaderValue::from_maybe_shared(id) {
            response.headers_mut().insert(fields::REQUEST_ID, id);
        }
        let answered = seen.answered(response);
        answered.with(self)
    }

    async fn exchange(
        &self,
        peer: &Peer,
        parts: &Parts,
        body: Incoming,
        id: &Bytes,
        seen: &mut Observation<'_>,
    ) -> Result<Response<Body>, Reject> {
        fields::check(&parts.method, &parts.headers)?;
        let authority = fields::authority(parts.version, &parts.uri, &parts.headers)?;
        let hold = self.route(authority)?;
        let deployment = &hold.0;
        let origin = Origin {
            address: &peer.address,
            node: &peer.node,
            authority,
            id,
            trace: None,
        };
        seen.routed(deployment, &origin, parts);
        check_limits(parts, &body, deployment)?;

        let whole = body.is_end_stream();
        let handle = begin(deployment, parts, origin, whole, id, seen).await?;
        if !whole {
            tokio::spawn(pump::run(
                body,
                handle.writer(),
                deployment.target.limits.request_body_bytes,
                seen.body_count(),
            ));
        }
        let raw = handle
            .head()
            .await
            .map_err(|failure| Reject::of(&failure, &deployment.target.limits))?;
        respond(parts, handle, raw, hold).await
    }

    /// Finds the deployment that answers for a host, and holds on to it.
    fn route(&self, authority: &str) -> Result<Hold, Reject> {
        let host = fields::host_of(authority).unwrap_or_default();
        // A deployment that leaves the table has left it before it refuses: the second look finds its successor.
        for _ in 0..3 {
            let table = self.table.load();
            match table.find(host).map(Deployment::hold) {
                Some(Some(hold)) => return Ok(hold),
                Some(None) => {}
                None if table.published => break,
                None => return Err(Reject::NotReady("the node is starting".to_owned())),
            }
        }
        Err(Reject::UnknownHost(host.chars().take(255).collect()))
    }
}

fn check_limits(parts: &Parts, body: &Incoming, deployment: &Deployment) -> Result<(), Reject> {
    let limits = &deployment.target.limits;
    let (bytes, count) = fields::size(&parts.method, &parts.uri, &parts.headers);
    if count > limits.header_count as usize {
        return Err(Reject::TooManyFields(limits.header_count));
    }
    if bytes > limits.head_bytes as usize {
        let target = parts
            .uri
            .path_and_query()
            .map_or(0, |target| target.as_str().len());
        let only_target = target > limits.head_bytes as usize;
        return Err(if only_target {
            Reject::TargetTooLong(limits.head_bytes)
        } else {
            Reject::HeadTooLarge(limits.head_bytes)
        });
    }
    if body.size_hint().lower() > limits.request_body_bytes {
        return Err(Reject::BodyTooLarge(limits.request_body_bytes));
    }
    Ok(())
}

/// Waits for a turn and for a VM, and hands the request over.
async fn begin(
    deployment: &Arc<Deployment>,
    parts: &Parts,
    origin: Origin<'_>,
    whole: bool,
    id: &Bytes,
    seen: &Observation<'_>,
) -> Result<Handle, Reject> {
    take_turn(deployment, seen).await?;
    // From here a permit is ours, until an exchange takes it over.
    let permit = Permit(deployment);
    let mut full = false;
    let mut guest = seen.guest();
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
async fn take_place(deployment: &Deployment, seen: &Observation<'_>) -> Result<(), Reject> {
    let freed = deployment.freed.notified();
    let waiting = Placeless::new(deployment);
    // Between the try and the wait a place may have become free.
    if deployment.pick().is_some_and(|link| link.free_places() > 0) {
        return Ok(());
    }
    let wait = seen.wait(Step::Queue);
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
async fn take_turn(deployment: &Deployment, seen: &Observation<'_>) -> Result<(), Reject> {
    if let Ok(permit) = deployment.gate.try_acquire() {
        permit.forget();
        return Ok(());
    }
    let limits = &deployment.target.limits;
    let waiting = Waiting(deployment);
    if deployment.waiting.fetch_add(1, Ordering::Relaxed) >= limits.queue {
        return Err(Reject::Busy(limits.concurrency, limits.queue));
    }
    let wait = seen.wait(Step::Queue);
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
    seen: &Observation<'_>,
) -> Result<Arc<Link>, Reject> {
    if let Some(link) = deployment.pick() {
        return Ok(link);
    }
    let _wait = seen.wait(Step::SandboxStart);
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
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    RequestHead::write(
        buffer,
        parts.method.as_str(),
        Some("http"),
        Some(origin.authority),
        Some(path),
        Timeouts::default(),
    );
    fields::write_request(buffer, parts.version, &parts.headers, origin);
}

/// Turns the guest's head into a response.
async fn respond(
    parts: &Parts,
    handle: Handle,
    raw: RawHead,
    hold: Hold,
) -> Result<Response<Body>, Reject> {
    let limits = &hold.0.target.limits;
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
    let body = match framing {
        Framing::None => {
            if raw.complete {
                drop(handle);
            } else {
                finish_silently(handle, hold);
            }
            Body::Empty
        }
        Framing::Length(length) if raw.complete => gather(&handle, length, &mut headers).await?,
        // Nothing has left yet: there is room for an error that says what was wrong.
        Framing::Length(_) if let Some(failure) = handle.failure() => {
            return Err(Reject::of(&failure, limits));
        }
        Framing::Length(length) => Body::guest(handle, length, hold),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// Lets the component go on after a response that has no body to send, and drops what it sends.
fn finish_silently(handle: Handle, hold: Hold) {
    handle.stop();
    tokio::spawn(async move {
        let _hold = hold;
        while let Ok(Part::Data(_)) = poll_fn(|cx| handle.poll_part(cx)).await {}
    });
}

/// Takes a body that has arrived whole.
async fn gather(
    handle: &Handle,
    length: Option<u64>,
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
