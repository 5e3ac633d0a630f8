//! A response that is known as a whole before it is sent.

use wasip2::http::types::{Fields, OutgoingBody, OutgoingResponse, ResponseOutparam};

/// Status, headers and body.
pub struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Answer {
    pub fn text(body: String) -> Self {
        Self::new(200, "text/plain; charset=utf-8", body)
    }

    pub fn json(body: String) -> Self {
        Self::new(200, "application/json", body)
    }

    fn new(status: u16, content_type: &str, body: String) -> Self {
        let headers = vec![("content-type", content_type.to_owned()), ("content-length", body.len().to_string())];
        Self { status, headers, body }
    }

    /// The same with one more header.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Sends it. What fails here fails because the client is gone, so there is nobody to tell.
    pub fn send(self, out: ResponseOutparam) {
        let headers = Fields::new();
        for (name, value) in &self.headers {
            let _ = headers.append(name, value.as_bytes());
        }
        let response = OutgoingResponse::new(headers);
        let _ = response.set_status_code(self.status);
        let Ok(body) = response.body() else { return };
        ResponseOutparam::set(out, Ok(response));
        if let Ok(stream) = body.write() {
            for chunk in self.body.as_bytes().chunks(4096) {
                if stream.blocking_write_and_flush(chunk).is_err() {
                    break;
                }
            }
        }
        let _ = OutgoingBody::finish(body, None);
    }
}

/// An error in the form of RFC 9457. `detail` is one of our own texts, with nothing in it to escape.
pub fn problem(status: u16, detail: &str) -> Answer {
    let body = format!("{{\"status\":{status},\"detail\":\"{detail}\"}}\n");
    Answer::new(status, "application/problem+json", body)
}
