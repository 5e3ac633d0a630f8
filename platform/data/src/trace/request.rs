//! The trace of one request: its own span, its waits, and the guest's part.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use sandbox_abi::message::{Done, outcome};

use super::{Clock, Context, Span, SpanKind, Tracer, Value, span_id, trace_id};
use crate::Target;

/// A wait on a request's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// For its turn.
    Queue,
    /// For a VM.
    SandboxStart,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::SandboxStart => "sandbox start",
        }
    }
}

/// The trace of a request.
pub(crate) struct RequestTrace {
    tracer: Arc<Tracer>,
    clock: Clock,
    /// The request's own span.
    context: Context,
    parent_id: u64,
    name: Cow<'static, str>,
    attributes: Vec<(&'static str, Value)>,
}

impl RequestTrace {
    /// Begins the trace of a request, within that of its client where it names one.
    pub(crate) fn begin(tracer: &Arc<Tracer>, parts: &Parts, id: &[u8], client: &str) -> Self {
        let parent = Context::read(&parts.headers);
        let context = Context {
            trace_id: parent
                .as_ref()
                .map_or_else(trace_id, |parent| parent.trace_id),
            span_id: span_id(),
            state: parent
                .as_ref()
                .map_or_else(String::new, |parent| parent.state.clone()),
        };
        let version = match parts.version {
            http::Version::HTTP_2 => "2",
            http::Version::HTTP_10 => "1.0",
            _ => "1.1",
        };
        let attributes = vec![
            ("http.request.method", parts.method.as_str().into()),
            ("url.path", parts.uri.path().into()),
            ("network.protocol.version", version.into()),
            ("client.address", client.into()),
            (
                "cloister.request",
                String::from_utf8_lossy(id).as_ref().into(),
            ),
        ];
        Self {
            tracer: Arc::clone(tracer),
            clock: Clock::now(),
            context,
            parent_id: parent.map_or(0, |parent| parent.span_id),
            name: Cow::Owned(parts.method.as_str().to_owned()),
            attributes,
        }
    }

    /// It has found its deployment.
    pub(crate) fn routed(&mut self, target: &Target, host: &str) {
        self.attributes.extend([
            ("server.address", host.into()),
            ("cloister.tenant", target.tenant.as_str().into()),
            ("cloister.app", target.app.as_str().into()),
            ("cloister.deployment", target.deployment.0.into()),
        ]);
    }

    /// It waited from `began` until now.
    pub(crate) fn waited(&self, step: Step, began: Instant) {
        self.tracer.sink.span(Span {
            trace_id: self.context.trace_id,
            span_id: span_id(),
            parent_id: self.context.span_id,
            parent_is_remote: false,
            state: self.context.state.clone(),
            kind: SpanKind::Internal,
            name: step.name().into(),
            start: self.clock.day_of(began),
            end: self.clock.day_of(Instant::now()),
            attributes: Vec::new(),
            error: None,
        });
    }

    /// The guest's part, which begins when the request is handed to it.
    pub(crate) fn guest(&self) -> GuestTrace {
        GuestTrace {
            tracer: Arc::clone(&self.tracer),
            clock: self.clock,
            began: None,
            context: Context {
                span_id: span_id(),
                ..self.context.clone()
            },
            parent_id: self.context.span_id,
            ended: None,
        }
    }

    /// The request ended. Without a status its client went away before there was an answer.
    pub(crate) fn end(self, status: Option<u16>, complete: bool, bytes_out: u64) {
        let error = match status {
            None => Some("the client went away".to_owned()),
            Some(status @ 500..) => Some(format!("status {status}")),
            Some(_) if !complete => Some("the response was cut off".to_owned()),
            Some(_) => None,
        };
        let mut attributes = self.attributes;
        attributes.extend(status.map(|status| ("http.response.status_code", status.into())));
        attributes.push(("http.response.body.size", bytes_out.into()));
        self.tracer.sink.span(Span {
            trace_id: self.context.trace_id,
            span_id: self.context.span_id,
            parent_id: self.parent_id,
            parent_is_remote: self.parent_id != 0,
            state: self.context.state,
            kind: SpanKind::Server,
            name: self.name,
            start: self.clock.day,
            end: self.clock.day_of(Instant::now()),
            attributes,
            error,
        });
    }
}

/// The guest's part of a request. Where it is dropped without its end, the guest is gone.
pub(crate) struct GuestTrace {
    tracer: Arc<Tracer>,
    clock: Clock,
    /// When the request was handed to the guest; none where it was not.
    began: Option<Instant>,
    context: Context,
    parent_id: u64,
    ended: Option<(u32, Done)>,
}

impl GuestTrace {
    /// What is within this part.
    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// The tracer, for what is within this part.
    pub(crate) fn tracer(&self) -> &Arc<Tracer> {
        &self.tracer
    }

    /// The guest has it from now on.
    pub(crate) fn begun(&mut self) {
        self.began = Some(Instant::now());
    }

    /// The guest says `DONE`.
    pub(crate) fn done(mut self, how: u32, done: Done) {
        self.ended = Some((how, done));
    }
}

impl Drop for GuestTrace {
    fn drop(&mut self) {
        let Some(began) = self.began else {
            return;
        };
        let mut attributes = Vec::new();
        let error = match self.ended {
            None => Some("the sandbox was lost"),
            Some((how, done)) => {
                attributes.push(("cloister.cpu_ns", done.cpu_ns.into()));
                attributes.push(("cloister.memory_bytes", done.memory.into()));
                match how {
                    outcome::OK => None,
                    outcome::TRAP => Some("the component trapped"),
                    outcome::CPU => Some("out of processor time"),
                    outcome::MEMORY => Some("out of memory"),
                    outcome::CANCELLED => Some("cancelled"),
                    outcome::POST_RETURN => Some("it worked on for too long after its response"),
                    _ => Some("the guest had no room for it"),
                }
            }
        };
        self.tracer.sink.span(Span {
            trace_id: self.context.trace_id,
            span_id: self.context.span_id,
            parent_id: self.parent_id,
            parent_is_remote: false,
            state: std::mem::take(&mut self.context.state),
            kind: SpanKind::Internal,
            name: "guest".into(),
            start: self.clock.day_of(began),
            end: self.clock.day_of(Instant::now()),
            attributes,
            error: error.map(str::to_owned),
        });
    }
}
