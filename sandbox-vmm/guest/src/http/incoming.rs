//! What comes in: the request, answers to the component's own requests, and the bodies of both.

use crate::http::codes;
use crate::http::fields::Fields;
use crate::link::bindings::wasi::http::types::{
    ErrorCode, HostFutureTrailers, HostIncomingBody, HostIncomingRequest, HostIncomingResponse,
    Method, Scheme,
};
use crate::runtime::State;
use crate::streams;
use crate::wasi::io::{InputStream, Pollable};
use alloc::string::{String, ToString};
use sandbox_abi::head::RequestHead;
use wasmtime::Result;
use wasmtime::component::Resource;

/// The reader of an exchange's body. Dropped, it tells the writer to stop.
pub struct Reader(u32);

impl Reader {
    /// The one reader of this exchange.
    pub fn new(id: u32) -> Reader {
        Reader(id)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        streams::stop_reading(self.0);
    }
}

/// `incoming-request`.
pub struct IncomingRequest {
    method: Method,
    scheme: Option<Scheme>,
    authority: Option<String>,
    path: Option<String>,
    headers: Fields,
    body: Option<Reader>,
}

/// A method by its name.
fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "CONNECT" => Method::Connect,
        "OPTIONS" => Method::Options,
        "TRACE" => Method::Trace,
        "PATCH" => Method::Patch,
        other => Method::Other(other.to_string()),
    }
}

impl IncomingRequest {
    /// The request of an exchange.
    pub fn new(
        id: u32,
        payload: &[u8],
    ) -> core::result::Result<IncomingRequest, sandbox_abi::wire::Malformed> {
        let head = RequestHead::read(payload)?;
        Ok(IncomingRequest {
            method: method(head.method),
            scheme: Some(match head.scheme {
                None | Some("http") => Scheme::Http,
                Some("https") => Scheme::Https,
                Some(other) => Scheme::Other(other.to_string()),
            }),
            authority: head.authority.map(ToString::to_string),
            path: head.path.map(ToString::to_string),
            headers: Fields::received(payload, head.fields),
            body: Some(Reader::new(id)),
        })
    }
}

impl HostIncomingRequest for State {
    fn method(&mut self, request: Resource<IncomingRequest>) -> Result<Method> {
        Ok(self.table.get(&request)?.method.clone())
    }

    fn path_with_query(&mut self, request: Resource<IncomingRequest>) -> Result<Option<String>> {
        Ok(self.table.get(&request)?.path.clone())
    }

    fn scheme(&mut self, request: Resource<IncomingRequest>) -> Result<Option<Scheme>> {
        Ok(self.table.get(&request)?.scheme.clone())
    }

    fn authority(&mut self, request: Resource<IncomingRequest>) -> Result<Option<String>> {
        Ok(self.table.get(&request)?.authority.clone())
    }

    fn headers(&mut self, request: Resource<IncomingRequest>) -> Result<Resource<Fields>> {
        let headers = self.table.get(&request)?.headers.clone();
        Ok(self.table.push(headers)?)
    }

    fn consume(
        &mut self,
        request: Resource<IncomingRequest>,
    ) -> Result<core::result::Result<Resource<IncomingBody>, ()>> {
        match self.table.get_mut(&request)?.body.take() {
            Some(reader) => Ok(Ok(self.table.push(IncomingBody {
                reader,
                streaming: false,
            })?)),
            None => Ok(Err(())),
        }
    }

    fn drop(&mut self, request: Resource<IncomingRequest>) -> Result<()> {
        self.table.delete(request)?;
        Ok(())
    }
}

/// `incoming-response`.
pub struct IncomingResponse {
    /// The status code.
    pub status: u16,
    /// The header fields.
    pub headers: Fields,
    /// The body, until it is consumed.
    pub body: Option<Reader>,
}

impl HostIncomingResponse for State {
    fn status(&mut self, response: Resource<IncomingResponse>) -> Result<u16> {
        Ok(self.table.get(&response)?.status)
    }

    fn headers(&mut self, response: Resource<IncomingResponse>) -> Result<Resource<Fields>> {
        let headers = self.table.get(&response)?.headers.clone();
        Ok(self.table.push(headers)?)
    }

    fn consume(
        &mut self,
        response: Resource<IncomingResponse>,
    ) -> Result<core::result::Result<Resource<IncomingBody>, ()>> {
        match self.table.get_mut(&response)?.body.take() {
            Some(reader) => Ok(Ok(self.table.push(IncomingBody {
                reader,
                streaming: false,
            })?)),
            None => Ok(Err(())),
        }
    }

    fn drop(&mut self, response: Resource<IncomingResponse>) -> Result<()> {
        self.table.delete(response)?;
        Ok(())
    }
}

/// `incoming-body`.
pub struct IncomingBody {
    reader: Reader,
    streaming: bool,
}

impl HostIncomingBody for State {
    fn stream(
        &mut self,
        body: Resource<IncomingBody>,
    ) -> Result<core::result::Result<Resource<InputStream>, ()>> {
        let entry = self.table.get_mut(&body)?;
        if core::mem::replace(&mut entry.streaming, true) {
            return Ok(Err(()));
        }
        let stream = InputStream::Body(entry.reader.0);
        Ok(Ok(self.table.push_child(stream, &body)?))
    }

    fn finish(&mut self, body: Resource<IncomingBody>) -> Result<Resource<FutureTrailers>> {
        let body = self.table.delete(body)?;
        Ok(self.table.push(FutureTrailers {
            reader: Some(body.reader),
        })?)
    }

    fn drop(&mut self, body: Resource<IncomingBody>) -> Result<()> {
        self.table.delete(body)?;
        Ok(())
    }
}

/// `future-trailers`.
pub struct FutureTrailers {
    reader: Option<Reader>,
}

type Trailers = core::result::Result<core::result::Result<Option<Resource<Fields>>, ErrorCode>, ()>;

impl HostFutureTrailers for State {
    fn subscribe(&mut self, future: Resource<FutureTrailers>) -> Result<Resource<Pollable>> {
        let pollable = match &self.table.get(&future)?.reader {
            Some(reader) => Pollable::Trailers(reader.0),
            None => Pollable::Ready,
        };
        Ok(self.table.push_child(pollable, &future)?)
    }

    fn get(&mut self, future: Resource<FutureTrailers>) -> Result<Option<Trailers>> {
        self.check()?;
        let entry = self.table.get_mut(&future)?;
        let Some(reader) = &entry.reader else {
            return Ok(Some(Err(())));
        };
        if !streams::discard(reader.0) {
            return Ok(None);
        }
        let trailers = streams::trailers(reader.0);
        entry.reader = None;
        match trailers {
            Err(failure) => Ok(Some(Ok(Err(codes::error_code(&failure))))),
            Ok(payload) if payload.is_empty() => Ok(Some(Ok(Ok(None)))),
            Ok(payload) => match sandbox_abi::head::Fields::read(&payload) {
                Ok(fields) if fields.count() > 0 => {
                    let fields = Fields::received(&payload, fields);
                    Ok(Some(Ok(Ok(Some(self.table.push(fields)?)))))
                }
                _ => Ok(Some(Ok(Ok(None)))),
            },
        }
    }

    fn drop(&mut self, future: Resource<FutureTrailers>) -> Result<()> {
        self.table.delete(future)?;
        Ok(())
    }
}
