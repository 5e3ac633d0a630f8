//! What is seen of each request on its way through the router: counted, told to the access log, traced.
//!
//! An [`Observation`] begins with the request's head and ends when it is dropped: with the response's body, or with the
//! request's future where its client went away before. It decides nothing about the request. What it needs is borrowed
//! or moved into it where that can be: a count of references that all threads share costs more than what is counted here.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, Uri};
use http_body::{Frame, SizeHint};

use super::body::{Body, BodyError};
use super::fields::Origin;
use super::service::{Peer, Service};
use crate::metrics::{Counters, Registry, Wait};
use crate::pool::deployment::Deployment;
use crate::trace::{GuestTrace, RequestTrace, Step, Tracer};
use crate::{AccessRecord, LogSink};

/// What all requests are seen by.
pub(crate) struct Observer {
    pub(crate) registry: Arc<Registry>,
    /// Where requests are told of, if they are.
    pub(crate) access: Option<Arc<dyn LogSink>>,
    /// Who traces, if anybody.
    pub(crate) tracer: Option<Arc<Tracer>>,
    /// When the node started.
    pub(crate) started: Instant,
}

/// What is seen of one request until it is answered.
pub(crate) struct Observation<'o> {
    observer: &'o Observer,
    /// None once it is handed over to the response's body.
    seen: Option<Seen>,
}

/// What is known of one request.
struct Seen {
    began: Instant,
    /// Its deployment, once it has found one.
    deployment: Option<Arc<Deployment>>,
    /// What is told of it when it has ended, if anything is.
    told: Option<Box<Told>>,
    trace: Option<Box<RequestTrace>>,
    status: Option<u16>,
    /// Whether the whole response was handed to the connection.
    complete: bool,
    bytes_out: u64,
}

/// What is told of a request, as far as it is known at its beginning.
struct Told {
    id: String,
    method: Method,
    uri: Uri,
    client: String,
    bytes_in: Arc<AtomicU64>,
    /// Whether the access log is told too, not only the node's own.
    access: bool,
}

/// Where bytes of a request's body are counted.
pub(crate) struct BodyCount {
    counters: Option<Arc<Counters>>,
    request: Option<Arc<AtomicU64>>,
}

impl BodyCount {
    /// So many more were read.
    pub(crate) fn add(&self, bytes: usize) {
        if let Some(counters) = &self.counters {
            counters.read(bytes);
        }
        if let Some(request) = &self.request {
            request.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }
}

impl Observer {
    /// A request has come.
    pub(crate) fn begin(&self, peer: &Peer, parts: &Parts, id: &Bytes) -> Observation<'_> {
        let tracer = self.tracer.as_ref().filter(|tracer| tracer.chooses());
        let trace = tracer.map(|tracer| RequestTrace::begin(tracer, parts, id, &peer.address));
        Observation {
            observer: self,
            seen: Some(Seen {
                began: Instant::now(),
                deployment: None,
                told: None,
                trace: trace.map(Box::new),
                status: None,
                complete: parts.method == Method::HEAD,
                bytes_out: 0,
            }),
        }
    }

    /// What is to be told of a request to this deployment, if anything is.
    fn told(
        &self,
        seen: &Seen,
        counters: &Counters,
        origin: &Origin<'_>,
        parts: &Parts,
    ) -> Option<Box<Told>> {
        let second = seen.began.saturating_duration_since(self.started).as_secs();
        let access = self.access.is_some() && counters.may_tell(second);
        (access || tracing::enabled!(tracing::Level::DEBUG)).then(|| {
            Box::new(Told {
                id: String::from_utf8_lossy(origin.id).into_owned(),
                method: parts.method.clone(),
                uri: parts.uri.clone(),
                client: origin.address.to_owned(),
                bytes_in: Arc::default(),
                access,
            })
        })
    }
}

impl Observation<'_> {
    /// It has found its deployment.
    pub(crate) fn routed(
        &mut self,
        deployment: &Arc<Deployment>,
        origin: &Origin<'_>,
        parts: &Parts,
    ) {
        let Some(seen) = &mut self.seen else { return };
        deployment.counters.begun();
        seen.told = self
            .observer
            .told(seen, &deployment.counters, origin, parts);
        seen.deployment = Some(Arc::clone(deployment));
        if let Some(trace) = &mut seen.trace {
            trace.routed(&deployment.target, origin.authority);
        }
    }

    fn counters(&self) -> Option<&Arc<Counters>> {
        Some(&self.seen.as_ref()?.deployment.as_ref()?.counters)
    }

    /// Where the bytes of its body are to be counted.
    pub(crate) fn body_count(&self) -> BodyCount {
        let told = self.seen.as_ref().and_then(|seen| seen.told.as_ref());
        BodyCount {
            counters: self.counters().map(Arc::clone),
            request: told.map(|told| Arc::clone(&told.bytes_in)),
        }
    }

    /// It waits from now on, until the wait is dropped.
    pub(crate) fn wait(&self, step: Step) -> Waiting<'_> {
        let trace = self.seen.as_ref().and_then(|seen| seen.trace.as_deref());
        Waiting {
            _counted: self.counters().map(|counters| match step {
                Step::Queue => counters.queue(),
                Step::SandboxStart => counters.cold_start(),
            }),
            step,
            traced: trace.map(|trace| (trace, Instant::now())),
        }
    }

    /// The trace of the guest's part.
    pub(crate) fn guest(&self) -> Option<Box<GuestTrace>> {
        let trace = self.seen.as_ref()?.trace.as_ref()?;
        Some(Box::new(trace.guest()))
    }

    /// It is answered. What is left to be seen is that of the response's body: see [`Answered::with`].
    pub(crate) fn answered(mut self, response: Response<Body>) -> Answered {
        let mut seen = self.seen.take();
        if let Some(seen) = &mut seen {
            seen.status = Some(response.status().as_u16());
            seen.complete |= http_body::Body::is_end_stream(response.body());
        }
        Answered { response, seen }
    }
}

impl Drop for Observation<'_> {
    fn drop(&mut self) {
        if let Some(seen) = self.seen.take() {
            seen.end(self.observer);
        }
    }
}

/// A response on its way to being seen.
pub(crate) struct Answered {
    response: Response<Body>,
    seen: Option<Seen>,
}

impl Answered {
    /// The response, whose body holds on to the observer of its service.
    pub(crate) fn with(self, service: Arc<Service>) -> Response<Observed> {
        self.response.map(|body| Observed {
            body,
            seen: self.seen,
            service,
        })
    }
}

impl Seen {
    /// The request has ended: counts it, and tells of it.
    fn end(mut self, observer: &Observer) {
        // Whoever left has no use for what may have been complete.
        self.complete &= self.status.is_some();
        if let Some(trace) = self.trace.take() {
            trace.end(self.status, self.complete, self.bytes_out);
        }
        let Some(deployment) = &self.deployment else {
            if let Some(status) = self.status {
                observer.registry.node.unrouted(status);
            }
            return;
        };
        let duration = self.began.elapsed();
        let counters = &deployment.counters;
        counters.ended(self.status, self.complete, self.bytes_out, duration);
        let Some(told) = &self.told else {
            return;
        };
        let target = &deployment.target;
        let (request, method, path) = (told.id.as_str(), told.method.as_str(), told.uri.path());
        tracing::debug!(request, tenant = %target.tenant, app = %target.app, deployment = %target.deployment,
            method, path, status = self.status, complete = self.complete, took = ?duration, "request");
        let Some(log) = observer.access.as_ref().filter(|_| told.access) else {
            return;
        };
        log.access(AccessRecord {
            tenant: &target.tenant,
            app: &target.app,
            deployment: target.deployment,
            request,
            method,
            path,
            status: self.status,
            complete: self.complete,
            bytes_in: told.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out,
            duration,
            client: &told.client,
            untold: counters.untold(),
        });
    }
}

/// A wait of a request.
pub(crate) struct Waiting<'o> {
    _counted: Option<Wait<'o>>,
    step: Step,
    traced: Option<(&'o RequestTrace, Instant)>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some((trace, began)) = self.traced {
            trace.waited(self.step, began);
        }
    }
}

/// A response's body that is seen.
pub(crate) struct Observed {
    body: Body,
    seen: Option<Seen>,
    service: Arc<Service>,
}

impl Drop for Observed {
    fn drop(&mut self) {
        if let Some(seen) = self.seen.take() {
            seen.end(&self.service.observer);
        }
    }
}

impl http_body::Body for Observed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let Some(seen) = &mut this.seen {
            match &frame {
                Some(Ok(frame)) => {
                    seen.bytes_out += frame.data_ref().map_or(0, |data| data.len() as u64);
                    seen.complete |= http_body::Body::is_end_stream(&this.body);
                }
                Some(Err(_)) => {}
                None => seen.complete = true,
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        http_body::Body::is_end_stream(&self.body)
    }

    fn size_hint(&self) -> SizeHint {
        http_body::Body::size_hint(&self.body)
    }
}
