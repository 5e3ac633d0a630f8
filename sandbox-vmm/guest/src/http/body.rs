//! Bodies that the component sends: of its response, or of a request that it makes.

use crate::http::codes;
use crate::http::held::Held;
use crate::kernel::cell::Solo;
use crate::link::bindings::wasi::http::types::ErrorCode;
use crate::runtime::State;
use crate::streams;
use crate::wasi::io::StreamError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use sandbox_abi::message::{INITIAL_CREDIT, MAX_DATA, reset};

/// What one write may have at most, whatever `check-write` said: a component that never asks may rely on it.
const LARGEST_WRITE: usize = 1 << 20;

/// Whether a body belongs to a request or to a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// A request that the component makes.
    Request,
    /// The component's response.
    Response,
}

/// Where a body goes.
enum To {
    /// Its head has not been sent: it waits here, with its trailers once it is finished.
    Waiting(Vec<u8>, Option<Vec<u8>>, Held),
    /// An exchange.
    Exchange(u32),
    /// Nowhere: its head was dropped.
    Nowhere,
}

struct Inner {
    to: To,
    of: Of,
    expected: Option<u64>,
    written: u64,
    /// More was written than expected: what was expected is sent as the whole body.
    full: bool,
}

/// A body. Clones are the same body.
#[derive(Clone)]
pub struct Body(Arc<Solo<Inner>>);

impl Body {
    /// A body of `expected` bytes, or of any number.
    pub fn new(of: Of, expected: Option<u64>) -> Body {
        let to = To::Waiting(Vec::new(), None, Held::default());
        Body(Arc::new(Solo::new(Inner {
            to,
            of,
            expected,
            written: 0,
            full: false,
        })))
    }

    fn with<R>(&self, f: impl FnOnce(&mut Inner) -> R) -> R {
        self.0.with(f)
    }

    /// How many bytes may be written now. `None`: nobody wants them.
    pub fn permit(&self) -> Option<usize> {
        self.with(|b| match &b.to {
            To::Waiting(bytes, ..) => Some((INITIAL_CREDIT as usize).saturating_sub(bytes.len())),
            To::Exchange(id) => streams::credit(*id).map(|n| n as usize),
            To::Nowhere => None,
        })
    }

    /// Whether [`Body::permit`] has something to say.
    pub fn writable(&self) -> bool {
        self.permit() != Some(0)
    }

    /// Sends bytes, and waits where they are more than was permitted.
    pub fn write(&self, state: &State, bytes: &[u8]) -> Result<(), StreamError> {
        let too_much = || {
            Err(StreamError::Trap(wasmtime::format_err!(
                "write exceeded budget"
            )))
        };
        if bytes.len() > LARGEST_WRITE {
            return too_much();
        }
        let (id, bytes, over) = self.with(|b| {
            let (bytes, over) = b.count(bytes);
            let id = match &mut b.to {
                To::Waiting(waiting, end, held) => {
                    if waiting.len() + bytes.len() > LARGEST_WRITE || !held.grow(bytes.len()) {
                        Err(true)
                    } else {
                        waiting.extend_from_slice(bytes);
                        if over.is_some() {
                            *end = Some(Vec::new());
                        }
                        Ok(None)
                    }
                }
                To::Exchange(id) => Ok(Some(*id)),
                To::Nowhere => Err(false),
            };
            (id, bytes, over)
        });
        match id {
            Err(true) => return too_much(),
            Err(false) => return Err(StreamError::Closed),
            Ok(None) => {}
            Ok(Some(id)) => {
                send(state, id, bytes)?;
                if over.is_some() {
                    streams::end(id, &[]);
                }
            }
        }
        over.map_or(Ok(()), |code| Err(StreamError::Failed(codes::of(code))))
    }

    /// The head has been sent: the body goes to this exchange from now on. Waits until what was written is sent.
    pub fn bind(&self, state: &State, id: u32) -> wasmtime::Result<()> {
        let before = self.with(|b| core::mem::replace(&mut b.to, To::Exchange(id)));
        if let To::Waiting(bytes, trailers, _) = before {
            match send(state, id, &bytes) {
                Ok(()) | Err(StreamError::Closed | StreamError::Failed(_)) => {}
                Err(StreamError::Trap(e)) => return Err(e),
            }
            if let Some(trailers) = trailers {
                streams::end(id, &trailers);
            }
        } else if let To::Nowhere = before {
            self.abandon();
        }
        Ok(())
    }

    /// The head was dropped before it was sent.
    pub fn head_dropped(&self) {
        self.with(|b| b.to = To::Nowhere);
    }

    /// The body was dropped before its end.
    pub fn abandon(&self) {
        let (before, of) = self.with(|b| {
            let before = if b.full {
                To::Nowhere
            } else {
                core::mem::replace(&mut b.to, To::Nowhere)
            };
            (before, b.of)
        });
        if let To::Exchange(id) = before {
            let code = if of == Of::Response {
                reset::BODY_INCOMPLETE
            } else {
                reset::HTTP_PROTOCOL_ERROR
            };
            streams::reset(id, code, "the component dropped the body before its end");
        }
    }

    /// The end of the body.
    pub fn finish(&self, trailers: Vec<u8>) -> Result<(), ErrorCode> {
        let wrong = self.with(|b| {
            b.expected
                .is_some_and(|n| n != b.written)
                .then(|| b.size_error())
        });
        if let Some(code) = wrong {
            self.abandon();
            return Err(code);
        }
        let id = self.with(|b| match &mut b.to {
            To::Waiting(_, end, _) => {
                *end = Some(trailers.clone());
                None
            }
            To::Exchange(id) => Some(*id),
            To::Nowhere => None,
        });
        if let Some(id) = id {
            streams::end(id, &trailers);
        }
        Ok(())
    }
}

impl Inner {
    /// Counts bytes as written. Gives those of them that are sent, and the error if that is not all of them.
    fn count<'b>(&mut self, bytes: &'b [u8]) -> (&'b [u8], Option<ErrorCode>) {
        let before = self.written;
        self.written = before.saturating_add(bytes.len() as u64);
        let Some(expected) = self.expected.filter(|n| self.written > *n) else {
            return (bytes, None);
        };
        self.full = true;
        let room = usize::try_from(expected.saturating_sub(before)).unwrap_or(usize::MAX);
        let fitting = bytes.get(..room).unwrap_or(bytes);
        (fitting, Some(self.size_error()))
    }

    fn size_error(&self) -> ErrorCode {
        match self.of {
            Of::Request => ErrorCode::HttpRequestBodySize(Some(self.written)),
            Of::Response => ErrorCode::HttpResponseBodySize(Some(self.written)),
        }
    }
}

/// Sends all of `bytes`, as the reader grants credit.
fn send(state: &State, id: u32, mut bytes: &[u8]) -> Result<(), StreamError> {
    while !bytes.is_empty() {
        let Some(credit) = streams::credit(id) else {
            return Err(StreamError::Closed);
        };
        if credit == 0 {
            state.wait(None, || streams::writable(id))?;
            continue;
        }
        let (now, later) = bytes.split_at(bytes.len().min(credit as usize).min(MAX_DATA));
        streams::send_data(id, now);
        bytes = later;
    }
    match streams::credit(id) {
        Some(_) => Ok(()),
        None => Err(StreamError::Closed),
    }
}
