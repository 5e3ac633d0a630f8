//! What is seen of an outgoing request: counted and traced when it ends, which is when this is dropped.

use std::sync::Arc;

use http::Request;

use super::call::RequestBody;
use crate::metrics::{Counters, Egress};
use crate::trace::CallTrace;

/// What is seen of one outgoing request.
pub(crate) struct Seen {
    counters: Arc<Counters>,
    trace: Option<CallTrace>,
    status: Option<u16>,
    refused: Option<(u32, String)>,
}

impl Seen {
    pub(crate) fn new(counters: Arc<Counters>, trace: Option<CallTrace>) -> Self {
        Self {
            counters,
            trace,
            status: None,
            refused: None,
        }
    }

    /// It is allowed, and on its way as it is after this.
    pub(crate) fn sent(&mut self, request: &mut Request<RequestBody>) {
        if let Some(trace) = &mut self.trace {
            let (method, uri) = (request.method().clone(), request.uri().clone());
            trace.send(&method, &uri, request.headers_mut());
        }
    }

    /// The head of its response has come.
    pub(crate) fn answered(&mut self, status: u16) {
        self.status = Some(status);
    }

    /// It is off, or its response is.
    pub(crate) fn refused(&mut self, code: u32, text: String) {
        self.refused = Some((code, text));
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        let refused = self.refused.take();
        self.counters.egress(match (self.status, &refused) {
            (Some(status), _) => Egress::Answered(status),
            (None, Some((code, _))) => Egress::Refused(*code),
            (None, None) => Egress::Cancelled,
        });
        if let Some(trace) = self.trace.take() {
            let gone = || {
                self.status
                    .is_none()
                    .then(|| "the component gave it up".to_owned())
            };
            let error = refused.map(|(_, text)| text).or_else(gone);
            trace.end(self.status, error);
        }
    }
}
