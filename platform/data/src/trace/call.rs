//! The trace of a request that a component sends.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, HeaderValue, Method, Uri};

use super::{
    Clock, Context, GuestTrace, Span, SpanKind, TRACEPARENT, TRACESTATE, Tracer, Value, span_id,
};

/// The trace of an outgoing request.
pub(crate) struct CallTrace {
    tracer: Arc<Tracer>,
    clock: Clock,
    context: Context,
    parent_id: u64,
    attributes: Vec<(&'static str, Value)>,
    name: String,
}

impl CallTrace {
    /// Begins the trace of a request that is sent within the guest's part of another.
    pub(crate) fn begin(within: &GuestTrace) -> Self {
        let tracer = Arc::clone(within.tracer());
        Self {
            context: Context {
                span_id: span_id(),
                ..within.context().clone()
            },
            parent_id: within.context().span_id,
            clock: Clock::now(),
            attributes: Vec::new(),
            name: String::new(),
            tracer,
        }
    }

    /// What is sent, and to whom. The upstream gets this span as its parent, unless the component has put the request
    /// into another trace. Where it has named a span of its own in this trace, that is the parent of this one.
    pub(crate) fn send(&mut self, method: &Method, uri: &Uri, headers: &mut HeaderMap) {
        method.as_str().clone_into(&mut self.name);
        self.attributes.extend([
            ("http.request.method", method.as_str().into()),
            ("server.address", uri.host().unwrap_or_default().into()),
            ("url.path", uri.path().into()),
        ]);
        if let Some(port) = uri.port_u16() {
            self.attributes.push(("server.port", port.into()));
        }
        match Context::read(headers) {
            Some(own) if own.trace_id != self.context.trace_id => return,
            Some(own) => {
                self.parent_id = own.span_id;
                self.context.state = own.state;
            }
            None => {}
        }
        headers.remove(&TRACESTATE);
        if let Ok(value) = HeaderValue::from_str(&self.context.to_string()) {
            headers.insert(TRACEPARENT, value);
        }
        if !self.context.state.is_empty()
            && let Ok(value) = HeaderValue::from_str(&self.context.state)
        {
            headers.insert(TRACESTATE, value);
        }
    }

    /// The request ended.
    pub(crate) fn end(self, status: Option<u16>, error: Option<String>) {
        let mut attributes = self.attributes;
        attributes.extend(status.map(|status| ("http.response.status_code", status.into())));
        let refused = status.filter(|status| *status >= 400);
        self.tracer.sink.span(Span {
            trace_id: self.context.trace_id,
            span_id: self.context.span_id,
            parent_id: self.parent_id,
            parent_is_remote: false,
            state: self.context.state,
            kind: SpanKind::Client,
            name: if self.name.is_empty() {
                "call".into()
            } else {
                self.name.into()
            },
            start: self.clock.day,
            end: self.clock.day_of(Instant::now()),
            attributes,
            error: error.or_else(|| refused.map(|status| format!("status {status}"))),
        });
    }
}
