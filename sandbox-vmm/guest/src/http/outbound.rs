//! Requests that the component makes. They leave over the ring; the host sends them, if the deployment allows it.

use crate::http::body::{Body, Of};
use crate::http::fields::Fields;
use crate::http::incoming::{IncomingResponse, Reader};
use crate::http::outgoing::OutgoingBody;
use crate::http::{codes, syntax};
use crate::link::bindings::wasi::http::outgoing_handler;
use crate::link::bindings::wasi::http::types::{
    ErrorCode, HostFutureIncomingResponse, HostOutgoingRequest, HostRequestOptions, Method, Scheme,
};
use crate::runtime::State;
use crate::streams::{self, Failure};
use crate::wasi::io::Pollable;
use alloc::string::String;
use alloc::vec::Vec;
use sandbox_abi::head::{self, RequestHead, ResponseHead, Timeouts};
use sandbox_abi::message::{FLAG_END, Header, Kind, MAX_PAYLOAD, reset};
use wasmtime::Result;
use wasmtime::component::Resource;

/// Requests that one component may have under way.
const MOST_AT_ONCE: usize = 256;

/// `outgoing-request`.
pub struct OutgoingRequest {
    method: Method,
    scheme: Option<Scheme>,
    authority: Option<String>,
    path: Option<String>,
    headers: Fields,
    body: Option<Body>,
}

impl Drop for OutgoingRequest {
    fn drop(&mut self) {
        // A request that is sent has given its body away.
        if let Some(body) = &self.body {
            body.head_dropped();
        }
    }
}

/// What a setter tells the component.
type Set = core::result::Result<(), ()>;

impl HostOutgoingRequest for State {
    fn new(&mut self, headers: Resource<Fields>) -> Result<Resource<OutgoingRequest>> {
        let headers = self.table.delete(headers)?.freeze();
        let request = OutgoingRequest {
            method: Method::Get,
            scheme: None,
            authority: None,
            path: None,
            headers,
            body: None,
        };
        Ok(self.table.push(request)?)
    }

    fn body(
        &mut self,
        request: Resource<OutgoingRequest>,
    ) -> Result<core::result::Result<Resource<OutgoingBody>, ()>> {
        let request = self.table.get_mut(&request)?;
        if request.body.is_some() {
            return Ok(Err(()));
        }
        let body = Body::new(Of::Request, request.headers.content_length());
        request.body = Some(body.clone());
        Ok(Ok(self.table.push(OutgoingBody {
            body,
            streaming: false,
        })?))
    }

    fn method(&mut self, request: Resource<OutgoingRequest>) -> Result<Method> {
        Ok(self.table.get(&request)?.method.clone())
    }

    fn set_method(&mut self, request: Resource<OutgoingRequest>, method: Method) -> Result<Set> {
        let request = self.table.get_mut(&request)?;
        if matches!(&method, Method::Other(s) if !syntax::method(s)) {
            return Ok(Err(()));
        }
        request.method = method;
        Ok(Ok(()))
    }

    fn path_with_query(&mut self, request: Resource<OutgoingRequest>) -> Result<Option<String>> {
        Ok(self.table.get(&request)?.path.clone())
    }

    fn set_path_with_query(
        &mut self,
        request: Resource<OutgoingRequest>,
        path: Option<String>,
    ) -> Result<Set> {
        let request = self.table.get_mut(&request)?;
        if path.as_deref().is_some_and(|s| !syntax::path_with_query(s)) {
            return Ok(Err(()));
        }
        request.path = path;
        Ok(Ok(()))
    }

    fn scheme(&mut self, request: Resource<OutgoingRequest>) -> Result<Option<Scheme>> {
        Ok(self.table.get(&request)?.scheme.clone())
    }

    fn set_scheme(
        &mut self,
        request: Resource<OutgoingRequest>,
        scheme: Option<Scheme>,
    ) -> Result<Set> {
        let request = self.table.get_mut(&request)?;
        if matches!(&scheme, Some(Scheme::Other(s)) if !syntax::scheme(s)) {
            return Ok(Err(()));
        }
        request.scheme = scheme;
        Ok(Ok(()))
    }

    fn authority(&mut self, request: Resource<OutgoingRequest>) -> Result<Option<String>> {
        Ok(self.table.get(&request)?.authority.clone())
    }

    fn set_authority(
        &mut self,
        request: Resource<OutgoingRequest>,
        authority: Option<String>,
    ) -> Result<Set> {
        let request = self.table.get_mut(&request)?;
        if authority.as_deref().is_some_and(|s| !syntax::authority(s)) {
            return Ok(Err(()));
        }
        request.authority = authority;
        Ok(Ok(()))
    }

    fn headers(&mut self, request: Resource<OutgoingRequest>) -> Result<Resource<Fields>> {
        let headers = self.table.get(&request)?.headers.clone();
        Ok(self.table.push(headers)?)
    }

    fn drop(&mut self, request: Resource<OutgoingRequest>) -> Result<()> {
        self.table.delete(request)?;
        Ok(())
    }
}

/// `request-options`: times in nanoseconds.
#[derive(Clone, Copy, Default)]
pub struct RequestOptions {
    connect: Option<u64>,
    first_byte: Option<u64>,
    between_bytes: Option<u64>,
}

impl HostRequestOptions for State {
    fn new(&mut self) -> Result<Resource<RequestOptions>> {
        Ok(self.table.push(RequestOptions::default())?)
    }

    fn connect_timeout(&mut self, options: Resource<RequestOptions>) -> Result<Option<u64>> {
        Ok(self.table.get(&options)?.connect)
    }

    fn set_connect_timeout(
        &mut self,
        options: Resource<RequestOptions>,
        duration: Option<u64>,
    ) -> Result<Set> {
        self.table.get_mut(&options)?.connect = duration;
        Ok(Ok(()))
    }

    fn first_byte_timeout(&mut self, options: Resource<RequestOptions>) -> Result<Option<u64>> {
        Ok(self.table.get(&options)?.first_byte)
    }

    fn set_first_byte_timeout(
        &mut self,
        options: Resource<RequestOptions>,
        duration: Option<u64>,
    ) -> Result<Set> {
        self.table.get_mut(&options)?.first_byte = duration;
        Ok(Ok(()))
    }

    fn between_bytes_timeout(&mut self, options: Resource<RequestOptions>) -> Result<Option<u64>> {
        Ok(self.table.get(&options)?.between_bytes)
    }

    fn set_between_bytes_timeout(
        &mut self,
        options: Resource<RequestOptions>,
        duration: Option<u64>,
    ) -> Result<Set> {
        self.table.get_mut(&options)?.between_bytes = duration;
        Ok(Ok(()))
    }

    fn drop(&mut self, options: Resource<RequestOptions>) -> Result<()> {
        self.table.delete(options)?;
        Ok(())
    }
}

/// `future-incoming-response`.
pub struct FutureResponse {
    /// The exchange; `None` once its answer was taken.
    exchange: Option<Reader>,
    id: u32,
}

impl OutgoingRequest {
    /// The request as it goes over the ring, or what is wrong with it.
    fn encode(&self, options: RequestOptions) -> core::result::Result<Vec<u8>, ErrorCode> {
        if self.body.is_none() && self.headers.content_length().is_some_and(|n| n != 0) {
            return Err(ErrorCode::HttpRequestBodySize(Some(0)));
        }
        let method = match &self.method {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Connect => "CONNECT",
            Method::Options => "OPTIONS",
            Method::Trace => "TRACE",
            Method::Patch => "PATCH",
            Method::Other(other) => other,
        };
        let scheme = match &self.scheme {
            Some(Scheme::Http) => "http",
            Some(Scheme::Other(s)) if s == "http" => "http",
            None | Some(Scheme::Https) => "https",
            Some(Scheme::Other(s)) if s == "https" => "https",
            Some(Scheme::Other(_)) => return Err(ErrorCode::HttpProtocolError),
        };
        let Some(authority) = self.authority.as_deref().filter(|a| !a.is_empty()) else {
            return Err(ErrorCode::HttpRequestUriInvalid);
        };
        let Some(path) = self.path.as_deref() else {
            return Err(ErrorCode::HttpProtocolError);
        };
        let path = if path.is_empty() { "/" } else { path };
        let len = self.headers.encoded_len() + method.len() + authority.len() + path.len() + 64;
        if len > MAX_PAYLOAD {
            return Err(ErrorCode::HttpRequestHeaderSectionSize(
                u32::try_from(len).ok(),
            ));
        }
        // On the ring 0 stands for none; no time at all is as good as 1 ns.
        let time = |given: Option<u64>| given.map_or(0, |ns| ns.max(1));
        let timeouts = Timeouts {
            connect_ns: time(options.connect),
            first_byte_ns: time(options.first_byte),
            between_bytes_ns: time(options.between_bytes),
        };
        let mut payload = Vec::with_capacity(len);
        RequestHead::write(
            &mut payload,
            method,
            Some(scheme),
            Some(authority),
            Some(path),
            timeouts,
        );
        head::Fields::write(&mut payload, self.headers.iter());
        Ok(payload)
    }
}

impl outgoing_handler::Host for State {
    fn handle(
        &mut self,
        request: Resource<OutgoingRequest>,
        options: Option<Resource<RequestOptions>>,
    ) -> Result<core::result::Result<Resource<FutureResponse>, ErrorCode>> {
        self.check()?;
        let options = match options {
            Some(options) => self.table.delete(options)?,
            None => RequestOptions::default(),
        };
        let mut request = self.table.delete(request)?;
        let payload = match request.encode(options) {
            Ok(payload) => payload,
            Err(code) => return Ok(Err(code)),
        };
        if self.outgoing.len() >= MOST_AT_ONCE {
            self.outgoing.retain(|id| streams::exists(*id));
            if self.outgoing.len() >= MOST_AT_ONCE {
                return Ok(Err(ErrorCode::ConnectionLimitReached));
            }
        }
        let id = streams::open();
        self.outgoing.push(id);
        let mut header = Header::new(Kind::Request, id, self.id);
        match request.body.take() {
            Some(body) => {
                streams::send_head(header, &payload);
                body.bind(self, id)?;
            }
            None => {
                header.flags = FLAG_END;
                streams::send_head(header, &payload);
            }
        }
        Ok(Ok(self.table.push(FutureResponse {
            exchange: Some(Reader::new(id)),
            id,
        })?))
    }
}

type Response =
    core::result::Result<core::result::Result<Resource<IncomingResponse>, ErrorCode>, ()>;

impl HostFutureIncomingResponse for State {
    fn subscribe(&mut self, future: Resource<FutureResponse>) -> Result<Resource<Pollable>> {
        let entry = self.table.get(&future)?;
        let pollable = if entry.exchange.is_some() {
            Pollable::Response(entry.id)
        } else {
            Pollable::Ready
        };
        Ok(self.table.push_child(pollable, &future)?)
    }

    fn get(&mut self, future: Resource<FutureResponse>) -> Result<Option<Response>> {
        self.check()?;
        let entry = self.table.get_mut(&future)?;
        if entry.exchange.is_none() {
            return Ok(Some(Err(())));
        }
        let Some(answer) = streams::answer(entry.id) else {
            return Ok(None);
        };
        let reader = entry.exchange.take();
        let payload = match answer {
            Ok(payload) => payload,
            Err(failure) => return Ok(Some(Ok(Err(codes::error_code(&failure))))),
        };
        let Ok(head) = ResponseHead::read(&payload) else {
            let failure = Failure {
                code: reset::HTTP_PROTOCOL_ERROR,
                text: String::new(),
            };
            return Ok(Some(Ok(Err(codes::error_code(&failure)))));
        };
        let response = IncomingResponse {
            status: head.status,
            headers: Fields::received(&payload, head.fields),
            body: reader,
        };
        Ok(Some(Ok(Ok(self.table.push(response)?))))
    }

    fn drop(&mut self, future: Resource<FutureResponse>) -> Result<()> {
        self.table.delete(future)?;
        Ok(())
    }
}
