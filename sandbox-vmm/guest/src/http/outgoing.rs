//! The component's response.

use crate::http::body::{Body, Of};
use crate::http::codes;
use crate::http::fields::Fields;
use crate::link::bindings::wasi::http::types::{
    ErrorCode, HostOutgoingBody, HostOutgoingResponse, HostResponseOutparam,
};
use crate::runtime::{Answer, State};
use crate::streams;
use crate::wasi::io::OutputStream;
use alloc::vec::Vec;
use sandbox_abi::head;
use sandbox_abi::message::{FLAG_END, Header, Kind, reset};
use sandbox_abi::wire::Sink;
use wasmtime::component::Resource;
use wasmtime::{Result, bail};

/// `outgoing-response`.
pub struct OutgoingResponse {
    status: u16,
    headers: Fields,
    body: Option<Body>,
}

impl Drop for OutgoingResponse {
    fn drop(&mut self) {
        // A response that is sent has given its body away.
        if let Some(body) = &self.body {
            body.head_dropped();
        }
    }
}

impl HostOutgoingResponse for State {
    fn new(&mut self, headers: Resource<Fields>) -> Result<Resource<OutgoingResponse>> {
        let headers = self.table.delete(headers)?.freeze();
        Ok(self.table.push(OutgoingResponse {
            status: 200,
            headers,
            body: None,
        })?)
    }

    fn status_code(&mut self, response: Resource<OutgoingResponse>) -> Result<u16> {
        Ok(self.table.get(&response)?.status)
    }

    fn set_status_code(
        &mut self,
        response: Resource<OutgoingResponse>,
        status: u16,
    ) -> Result<core::result::Result<(), ()>> {
        let response = self.table.get_mut(&response)?;
        if !(100..1000).contains(&status) {
            return Ok(Err(()));
        }
        response.status = status;
        Ok(Ok(()))
    }

    fn headers(&mut self, response: Resource<OutgoingResponse>) -> Result<Resource<Fields>> {
        let headers = self.table.get(&response)?.headers.clone();
        Ok(self.table.push(headers)?)
    }

    fn body(
        &mut self,
        response: Resource<OutgoingResponse>,
    ) -> Result<core::result::Result<Resource<OutgoingBody>, ()>> {
        let response = self.table.get_mut(&response)?;
        if response.body.is_some() {
            return Ok(Err(()));
        }
        let body = Body::new(Of::Response, response.headers.content_length());
        response.body = Some(body.clone());
        Ok(Ok(self.table.push(OutgoingBody {
            body,
            streaming: false,
        })?))
    }

    fn drop(&mut self, response: Resource<OutgoingResponse>) -> Result<()> {
        self.table.delete(response)?;
        Ok(())
    }
}

/// `outgoing-body`, of a response or of a request.
pub struct OutgoingBody {
    /// The body.
    pub body: Body,
    /// Whether its stream has been taken.
    pub streaming: bool,
}

/// Trailers as they go over the ring; `None` if they are larger than the deployment allows.
fn encode(fields: Option<&Fields>, most: u32) -> Option<Vec<u8>> {
    let Some(fields) = fields else {
        return Some(Vec::new());
    };
    let len = fields.encoded_len();
    if len > most as usize {
        return None;
    }
    let mut payload = Vec::with_capacity(len);
    head::Fields::write(&mut payload, fields.iter());
    Some(payload)
}

impl HostOutgoingBody for State {
    fn write(
        &mut self,
        body: Resource<OutgoingBody>,
    ) -> Result<core::result::Result<Resource<OutputStream>, ()>> {
        let entry = self.table.get_mut(&body)?;
        if core::mem::replace(&mut entry.streaming, true) {
            return Ok(Err(()));
        }
        let stream = OutputStream::Body(entry.body.clone());
        Ok(Ok(self.table.push_child(stream, &body)?))
    }

    fn finish(
        &mut self,
        body: Resource<OutgoingBody>,
        trailers: Option<Resource<Fields>>,
    ) -> Result<core::result::Result<(), ErrorCode>> {
        self.check()?;
        let body = self.table.delete(body)?.body;
        let trailers = match trailers {
            Some(trailers) => Some(self.table.delete(trailers)?),
            None => None,
        };
        let Some(trailers) = encode(trailers.as_ref(), self.settings.limits.head_bytes) else {
            body.abandon();
            return Ok(Err(ErrorCode::HttpResponseTrailerSectionSize(None)));
        };
        let finished = body.finish(trailers);
        self.note_progress();
        Ok(finished)
    }

    fn drop(&mut self, body: Resource<OutgoingBody>) -> Result<()> {
        self.table.delete(body)?.body.abandon();
        self.note_progress();
        Ok(())
    }
}

/// `response-outparam`.
pub struct Outparam;

impl HostResponseOutparam for State {
    fn set(
        &mut self,
        outparam: Resource<Outparam>,
        response: core::result::Result<Resource<OutgoingResponse>, ErrorCode>,
    ) -> Result<()> {
        self.check()?;
        let response = match response {
            Ok(response) => Ok(self.table.delete(response)?),
            Err(code) => Err(code),
        };
        self.table.delete(outparam)?;
        match response {
            Ok(response) => self.respond(response)?,
            Err(code) => {
                self.answer = Answer::Failed;
                streams::reset(self.id, codes::number(&code), &codes::text(&code));
            }
        }
        self.note_progress();
        Ok(())
    }

    fn send_informational(
        &mut self,
        _: Resource<Outparam>,
        _: u16,
        _: Resource<Fields>,
    ) -> Result<core::result::Result<(), ErrorCode>> {
        bail!("informational responses are an unstable feature, which this runtime does not have")
    }

    fn drop(&mut self, outparam: Resource<Outparam>) -> Result<()> {
        self.table.delete(outparam)?;
        Ok(())
    }
}

impl State {
    fn respond(&mut self, mut response: OutgoingResponse) -> Result<()> {
        let len = response.headers.encoded_len();
        if len > self.settings.limits.head_bytes as usize {
            self.answer = Answer::Failed;
            streams::reset(
                self.id,
                reset::HEAD_TOO_LARGE,
                "the head of the response is larger than the deployment allows",
            );
            bail!("the response's head of {len} bytes is larger than the deployment allows");
        }
        let mut payload = Vec::with_capacity(len + 2);
        payload.u16(response.status);
        head::Fields::write(&mut payload, response.headers.iter());
        let body = response.body.take();
        self.answer = Answer::Begun;
        let mut header = Header::new(Kind::Response, self.id, 0);
        match body {
            Some(body) => {
                streams::send_head(header, &payload);
                body.bind(self, self.id)?;
                self.body = Some(body);
            }
            None => {
                header.flags = FLAG_END;
                streams::send_head(header, &payload);
            }
        }
        Ok(())
    }
}
