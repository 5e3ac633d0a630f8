//! Every answer that the router gives itself, as a problem of RFC 9457. One table, which `docs/errors.md` explains.

use std::time::Duration;

use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use platform_model::{Limits, Problem};
use sandbox_abi::message::{outcome, reset};

use super::body::Body;
use super::table::Whose;
use crate::link::failure::{BadBody, Deadline, Failure};
use crate::usage::Excess;

/// Why a request is not answered by its component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reject {
    /// The request is not what HTTP wants; the text says what is wrong.
    Malformed(&'static str),
    /// No app has this host name.
    UnknownHost(String),
    /// The connection was made for another host.
    Misdirected,
    /// The app's host has no route for the path.
    NoRoute,
    /// A limit of the app or of its tenant.
    Excess((Whose, Excess)),
    /// The head is larger than the number of bytes.
    HeadTooLarge(u32),
    /// The head has more fields than that.
    TooManyFields(u32),
    /// The target is longer than the number of bytes.
    TargetTooLong(u32),
    /// The body is longer than the number of bytes.
    BodyTooLarge(u64),
    /// The body came too slowly.
    SlowBody,
    /// `CONNECT`.
    Connect,
    /// A transfer coding other than `chunked`.
    Coding,
    /// As many requests run and wait as may.
    Busy(u32, u32),
    /// The request waited too long for its turn.
    Waited(Duration),
    /// No VM in time.
    NotReady(String),
    /// The ring stayed full.
    RingFull,
    /// The VM broke while the request was in it.
    Lost,
    /// A time ran out: its name as a limit, and how long it is in milliseconds.
    Deadline(&'static str, u64),
    /// The component trapped.
    Trapped,
    /// The component returned without a response.
    NoResponse,
    /// The component answered with an error code of `wasi:http`.
    Errored(u32, String),
    /// The component was over its processor time, in milliseconds.
    Cpu(u64),
    /// The component was over its memory, in bytes.
    Memory(u64),
    /// The guest has no room for one more request.
    GuestBusy,
    /// The head of the response is larger than the number of bytes.
    ResponseHeadTooLarge(u32),
    /// The body of the response is longer than the number of bytes.
    ResponseTooLarge(u64),
    /// The response is not what HTTP wants.
    BadResponse(&'static str),
}

impl Reject {
    /// What a failed exchange is to the client.
    pub(crate) fn of(failure: &Failure, limits: &Limits, request_body: u64) -> Reject {
        match failure {
            Failure::Lost => Reject::Lost,
            Failure::Deadline(Deadline::Head) => {
                Reject::Deadline("head_timeout_ms", limits.head_timeout_ms)
            }
            Failure::Deadline(Deadline::Wall) => Reject::Deadline("wall_ms", limits.wall_ms),
            Failure::Deadline(Deadline::PostReturn) => {
                Reject::Deadline("post_return_ms", limits.post_return_ms)
            }
            Failure::Body(BadBody::TooLarge) => Reject::BodyTooLarge(request_body),
            Failure::Body(BadBody::Slow) => Reject::SlowBody,
            Failure::Body(BadBody::Malformed) => {
                Reject::Malformed("the body is not framed as HTTP wants it, or ends early")
            }
            Failure::NoResponse(outcome::TRAP) | Failure::Guest(reset::TRAP, _) => Reject::Trapped,
            Failure::NoResponse(outcome::CPU) | Failure::Guest(reset::CPU, _) => {
                Reject::Cpu(limits.cpu_ms)
            }
            Failure::NoResponse(outcome::MEMORY) | Failure::Guest(reset::MEMORY, _) => {
                Reject::Memory(limits.memory_bytes)
            }
            Failure::NoResponse(outcome::BUSY) | Failure::Guest(reset::BUSY, _) => {
                Reject::GuestBusy
            }
            Failure::NoResponse(_) | Failure::Guest(reset::NO_RESPONSE, _) => Reject::NoResponse,
            Failure::Guest(reset::HEAD_TOO_LARGE, _) => {
                Reject::ResponseHeadTooLarge(limits.head_bytes)
            }
            Failure::Guest(reset::BODY_INCOMPLETE, _) => {
                Reject::BadResponse("the component ended its body early")
            }
            Failure::Guest(code, text) => {
                Reject::Errored(*code, String::from_utf8_lossy(text).into_owned())
            }
        }
    }

    /// Status, code, title and detail. What a component does wrong is 500, as in `wasmtime serve`; what the node
    /// cannot do for it is 502 to 504.
    fn row(&self) -> (u16, &'static str, &'static str, String) {
        match self {
            Reject::Malformed(what) => (
                400,
                "malformed-request",
                "Malformed request",
                (*what).to_owned(),
            ),
            Reject::UnknownHost(host) => (
                404,
                "app-not-found",
                "No such app",
                format!("no app answers to the host {host:?}"),
            ),
            Reject::Misdirected => (
                421,
                "misdirected-request",
                "Misdirected request",
                "the connection was made for another host, whose certificate is not this one's"
                    .to_owned(),
            ),
            Reject::NoRoute => (
                404,
                "route-not-found",
                "No such route",
                "the host has no route for this path".to_owned(),
            ),
            Reject::Excess((whose, excess)) => excess_row(*whose, excess),
            Reject::HeadTooLarge(limit) => (
                431,
                "head-too-large",
                "Head too large",
                format!("the head of the request is larger than {limit} bytes (limit head_bytes)"),
            ),
            Reject::TooManyFields(limit) => (
                431,
                "too-many-fields",
                "Too many header fields",
                format!("the request has more than {limit} header fields (limit header_count)"),
            ),
            Reject::TargetTooLong(limit) => (
                414,
                "target-too-long",
                "Request target too long",
                format!("the request's target is longer than {limit} bytes (limit head_bytes)"),
            ),
            Reject::BodyTooLarge(limit) => (
                413,
                "body-too-large",
                "Body too large",
                format!(
                    "the request's body is longer than {limit} bytes (limit request_body_bytes)"
                ),
            ),
            Reject::SlowBody => (
                408,
                "slow-body",
                "Body too slow",
                "nothing of the request's body came for too long".to_owned(),
            ),
            Reject::Connect => (
                501,
                "connect-not-supported",
                "CONNECT is not supported",
                "apps answer requests, they are no proxies".to_owned(),
            ),
            Reject::Coding => (
                501,
                "coding-not-supported",
                "Transfer coding not supported",
                "the only transfer coding is chunked".to_owned(),
            ),
            Reject::Busy(running, waiting) => (
                503,
                "too-many-requests-in-flight",
                "Too many requests",
                format!(
                    "{running} requests of this app run and {waiting} wait (limits concurrency and queue)"
                ),
            ),
            Reject::Waited(time) => (
                503,
                "queue-timeout",
                "Too many requests",
                format!(
                    "the request waited {} s for its turn (limit concurrency)",
                    time.as_secs()
                ),
            ),
            Reject::NotReady(why) => (
                503,
                "sandbox-not-ready",
                "The app is not ready",
                format!("its sandbox does not run: {why}"),
            ),
            Reject::RingFull => (
                503,
                "sandbox-full",
                "The app takes no more requests now",
                "its sandbox did not take the request in time".to_owned(),
            ),
            Reject::Lost => (
                502,
                "sandbox-lost",
                "The sandbox was lost",
                "the sandbox broke while it had the request; it is being made anew".to_owned(),
            ),
            Reject::Deadline(limit, ms) => (
                504,
                "deadline",
                "Out of time",
                format!("the component took longer than {ms} ms (limit {limit})"),
            ),
            Reject::Trapped => (
                500,
                "component-trapped",
                "The component trapped",
                "the component failed; its log says more".to_owned(),
            ),
            Reject::NoResponse => (
                500,
                "no-response",
                "No response",
                "the component ended without a response".to_owned(),
            ),
            Reject::Errored(code, text) => (
                500,
                "component-error",
                "The component gave an error",
                format!("the component answered with an error: {text} (code {code})"),
            ),
            Reject::Cpu(ms) => (
                504,
                "cpu-limit",
                "Out of processor time",
                format!("the component used more than {ms} ms of processor time (limit cpu_ms)"),
            ),
            Reject::Memory(bytes) => (
                503,
                "memory-limit",
                "Out of memory",
                format!(
                    "there was no memory for the request (limits memory_bytes, which is {bytes}, and vm_memory_bytes)"
                ),
            ),
            Reject::GuestBusy => (
                503,
                "sandbox-full",
                "The app takes no more requests now",
                "its sandbox has no room for one more request".to_owned(),
            ),
            Reject::ResponseHeadTooLarge(limit) => (
                502,
                "response-head-too-large",
                "Response head too large",
                format!("the head of the response is larger than {limit} bytes (limit head_bytes)"),
            ),
            Reject::ResponseTooLarge(limit) => (
                500,
                "response-too-large",
                "Response too large",
                format!(
                    "the body of the response is longer than {limit} bytes (limit response_body_bytes)"
                ),
            ),
            Reject::BadResponse(what) => (500, "bad-response", "Bad response", (*what).to_owned()),
        }
    }

    /// Seconds after which the same request may fare better.
    fn retry_after(&self) -> Option<u64> {
        match self {
            Reject::Excess((
                _,
                Excess::Rate(_, wait) | Excess::Cpu(_, wait) | Excess::Concurrency(_, wait),
            )) => Some(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)),
            Reject::Busy(..)
            | Reject::Waited(_)
            | Reject::NotReady(_)
            | Reject::RingFull
            | Reject::GuestBusy
            | Reject::Memory(_) => Some(1),
            _ => None,
        }
    }

    /// The problem.
    pub(crate) fn problem(&self, request: &str) -> Problem {
        let (status, code, title, detail) = self.row();
        let problem = Problem::new(status, code, title, detail);
        if request.is_empty() {
            problem
        } else {
            problem.with_request_id(request)
        }
    }

    /// The response, without the request's id in its head.
    pub(crate) fn response(&self, request: &str) -> Response<Body> {
        let problem = self.problem(request);
        let json = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = Response::new(Body::full(json.into()));
        *response.status_mut() =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static(platform_model::problem::CONTENT_TYPE),
        );
        if let Some(seconds) = self.retry_after() {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if *self == Reject::Connect {
            headers.insert(
                ALLOW,
                HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            );
        }
        if matches!(
            self,
            Reject::Malformed(_) | Reject::Coding | Reject::Connect
        ) {
            // Client and router may not agree on where the next request begins. HTTP/2 has no such field, and hyper
            // leaves it out there.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// The row of a limit of an app or a tenant.
fn excess_row(whose: Whose, excess: &Excess) -> (u16, &'static str, &'static str, String) {
    let whose = match whose {
        Whose::App => "this app",
        Whose::Tenant => "the apps of this tenant together",
    };
    match excess {
        Excess::Rate(rate, _) => (
            429,
            "rate-limit",
            "Too many requests",
            format!("{whose} may get {rate} requests (limit rate)"),
        ),
        Excess::Cpu(ms, _) => (
            429,
            "cpu-quota",
            "Out of processor time",
            format!("{whose} may use {ms} ms of processor time a minute (limit cpu_ms_per_minute)"),
        ),
        Excess::Concurrency(limit, _) => (
            503,
            "concurrency-limit",
            "Too many requests",
            format!("{whose} may answer {limit} requests at a time (limit concurrency)"),
        ),
    }
}

#[cfg(test)]
mod tests;
