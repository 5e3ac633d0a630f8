//! What is seen of each request on its way through the router: counted, told to the access log, traced.
//!
//! An [`Observation`] begins with the request's head and ends when it is dropped: with the response's body, or with the
//! request's future where its client went away before. It decides nothing about the request.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, Uri};
use http_body::{Frame, SizeHint};

use super::body::{Body, BodyError};
use super::service::Peer;
use crate::metrics::{Counters, Registry, Wait};
use crate::pool::deployment::Deployment;
use crate::trace::{GuestTrace, RequestTrace, Step, Tracer};
use crate::{AccessRecord, LogSink, Target};

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

/// What is seen of one request.
pub(crate) struct Observation {
    observer: Arc<Observer>,
    began: Instant,
    /// The counters of its deployment, once it has found one.
    counters: Option<Arc<Counters>>,
    /// What the access log will say, and the node's own at the level debug, where one of them wants it.
    told: Option<Box<Told>>,
    trace: Option<Box<RequestTrace>>,
    status: Option<u16>,
    /// Whether the whole response was handed to the connection.
    complete: bool,
    bytes_out: u64,
}

/// What a log says of a request, as far as it is known at its beginning.
struct Told {
    id: Bytes,
    method: Method,
    uri: Uri,
    peer: Arc<Peer>,
    target: Option<Arc<Target>>,
    bytes_in: Arc<AtomicU64>,
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
    pub(crate) fn begin(
        self: &Arc<Self>,
        peer: &Arc<Peer>,
        parts: &Parts,
        id: &Bytes,
    ) -> Observation {
        let told = (self.access.is_some() || tracing::enabled!(tracing::Level::DEBUG)).then(|| {
            Box::new(Told {
                id: id.clone(),
                method: parts.method.clone(),
                uri: parts.uri.clone(),
                peer: Arc::clone(peer),
                target: None,
                bytes_in: Arc::default(),
            })
        });
        let tracer = self.tracer.as_ref().filter(|tracer| tracer.chooses());
        Observation {
            observer: Arc::clone(self),
            began: Instant::now(),
            counters: None,
            told,
            trace: tracer
                .map(|tracer| Box::new(RequestTrace::begin(tracer, parts, id, &peer.address))),
            status: None,
            complete: parts.method == Method::HEAD,
            bytes_out: 0,
        }
    }
}

impl Observation {
    /// It has found its deployment.
    pub(crate) fn routed(&mut self, deployment: &Deployment, host: &str) {
        deployment.counters.begun();
        self.counters = Some(Arc::clone(&deployment.counters));
        if let Some(told) = &mut self.told {
            told.target = Some(Arc::clone(&deployment.target));
        }
        if let Some(trace) = &mut self.trace {
            trace.routed(&deployment.target, host);
        }
    }

    /// Where the bytes of its body are to be counted.
    pub(crate) fn body_count(&self) -> BodyCount {
        BodyCount {
            counters: self.counters.clone(),
            request: self.told.as_ref().map(|told| Arc::clone(&told.bytes_in)),
        }
    }

    /// It waits from now on, until the wait is dropped.
    pub(crate) fn wait(&self, step: Step) -> Waiting<'_> {
        let counters = self.counters.as_deref();
        Waiting {
            _counted: counters.map(|counters| match step {
                Step::Queue => counters.queue(),
                Step::SandboxStart => counters.cold_start(),
            }),
            step,
            traced: self.trace.as_deref().map(|trace| (trace, Instant::now())),
        }
    }

    /// The trace of the guest's part.
    pub(crate) fn guest(&self) -> Option<Box<GuestTrace>> {
        self.trace.as_ref().map(|trace| Box::new(trace.guest()))
    }

    /// It is answered: the response, whose body is seen too.
    pub(crate) fn answered(mut self, response: Response<Body>) -> Response<Observed> {
        self.status = Some(response.status().as_u16());
        response.map(|body| {
            self.complete |= http_body::Body::is_end_stream(&body);
            Observed {
                body,
                observation: self,
            }
        })
    }

    /// Tells of it, now that it has ended: the node's own log where that wants it, and the access log.
    fn tell(&self, told: &Told, target: &Target, counters: &Counters, duration: Duration) {
        let request = str::from_utf8(&told.id).unwrap_or_default();
        let (method, path) = (told.method.as_str(), told.uri.path());
        tracing::debug!(request, tenant = %target.tenant, app = %target.app, deployment = %target.deployment,
            method, path, status = self.status, complete = self.complete, took = ?duration, "request");
        let observer = &self.observer;
        let Some(log) = &observer.access else {
            return;
        };
        let Some(untold) = counters.may_tell(observer.started.elapsed().as_secs()) else {
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
            client: &told.peer.address,
            untold,
        });
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        if let Some(trace) = self.trace.take() {
            trace.end(self.status, self.complete, self.bytes_out);
        }
        let observer = &self.observer;
        let Some(counters) = &self.counters else {
            if let Some(status) = self.status {
                observer.registry.node.unrouted(status);
            }
            return;
        };
        let duration = self.began.elapsed();
        counters.ended(self.status, self.complete, self.bytes_out, duration);
        if let Some(told) = &self.told
            && let Some(target) = &told.target
        {
            self.tell(told, target, counters, duration);
        }
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
    observation: Observation,
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
        let seen = &mut this.observation;
        match &frame {
            Some(Ok(frame)) => {
                seen.bytes_out += frame.data_ref().map_or(0, |data| data.len() as u64);
                seen.complete |= http_body::Body::is_end_stream(&this.body);
            }
            Some(Err(_)) => {}
            None => seen.complete = true,
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
