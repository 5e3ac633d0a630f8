//! Egress: the requests that guests send out. Policy first, then a client of the tenant's own, streamed both ways.

mod call;
mod client;
mod error;
pub(crate) mod policy;
mod seen;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Uri, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::capture_connection;
use platform_model::TenantName;
use sandbox_abi::message::{FLAG_END, Kind, MAX_DATA, MAX_PAYLOAD, reset};
use sandbox_abi::wire::Sink;

use self::call::{Exchange, RequestBody};
use self::client::TenantClient;
use self::seen::Seen;
use crate::Target;
use crate::failure::chain;
use crate::link::drain::Outgoing;
use crate::link::head::{self, HeadError};
use crate::link::{Call, Link};
use crate::router::fields;
use crate::sync::lock;
use crate::trace::CallTrace;

/// Time for each step where the component gives none, and the most that it may give.
const STEP_TIME: Duration = Duration::from_secs(600);
/// Time for a connection where the component gives none.
const CONNECT_TIME: Duration = Duration::from_secs(60);

/// The egress of the node.
#[derive(Default)]
pub(crate) struct Egress {
    clients: Mutex<HashMap<TenantName, TenantClient>>,
}

/// A request that is off: a code of `wasi:http`, and a text.
struct Refusal(u32, String);

impl Egress {
    fn client(&self, tenant: &TenantName) -> TenantClient {
        let mut clients = lock(&self.clients);
        if let Some(client) = clients.get(tenant) {
            return client.clone();
        }
        let client = client::new();
        clients.insert(tenant.clone(), client.clone());
        client
    }
}

impl Outgoing for Egress {
    fn begin(
        &self,
        link: &Arc<Link>,
        stream: u32,
        head: Bytes,
        whole: bool,
        call: Call,
        trace: Option<CallTrace>,
    ) {
        let client = self.client(&link.target.tenant);
        let exchange = Arc::new(Exchange::new(Arc::clone(link), stream, call));
        let mut seen = Seen::new(Arc::clone(&link.counters), trace);
        tokio::spawn(async move {
            let link = Arc::clone(&exchange.link);
            tokio::select! {
                refused = run(&exchange, client, head, whole, &mut seen) => {
                    if let Err(Refusal(code, text)) = refused {
                        exchange.reset(code, &text);
                        seen.refused(code, text);
                    }
                }
                () = link.lost.cancelled() => {}
            }
        });
    }
}

async fn run(
    exchange: &Arc<Exchange>,
    client: TenantClient,
    head: Bytes,
    whole: bool,
    seen: &mut Seen,
) -> Result<(), Refusal> {
    let head = match head::request(&head) {
        Ok(head) => head,
        Err(HeadError::Malformed) => {
            exchange
                .link
                .lose("the guest sent a head that cannot be decoded");
            return Ok(());
        }
        Err(error) => return Err(Refusal(reset::HTTP_PROTOCOL_ERROR, error.to_string())),
    };
    let times = Times::of(&head.timeouts);
    let mut request = prepare(&exchange.link.target, head, exchange, whole)?;
    seen.sent(&mut request);
    let mut connection = capture_connection(&mut request);
    let sending = client::CONNECT_TIME.scope(times.connect, client.request(request));
    let response = async {
        let mut sending = std::pin::pin!(sending);
        // The connector keeps the time for the connection; that for the head begins when it stands.
        let connected = async {
            let _ = connection.wait_for_connection_metadata().await;
        };
        tokio::select! {
            biased;
            response = &mut sending => return Ok(response),
            () = connected => {}
        }
        tokio::time::timeout(times.first_byte, sending).await
    };
    let response = tokio::select! {
        response = response => response,
        () = exchange.unwanted() => return Ok(()),
    };
    let late = |_| {
        Refusal(
            reset::CONNECTION_READ_TIMEOUT,
            "the response's head did not come in time".to_owned(),
        )
    };
    let response = response
        .map_err(late)?
        .map_err(|error| Refusal(error::code(&error), chain(&error)))?;
    seen.answered(response.status().as_u16());
    forward(exchange, response, times.between_bytes).await
}

/// The times of one request.
struct Times {
    connect: Duration,
    first_byte: Duration,
    between_bytes: Duration,
}

impl Times {
    fn of(given: &sandbox_abi::head::Timeouts) -> Self {
        let time = |ns: u64, default: Duration| {
            if ns == 0 {
                default
            } else {
                Duration::from_nanos(ns).min(STEP_TIME)
            }
        };
        Times {
            connect: time(given.connect_ns, CONNECT_TIME),
            first_byte: time(given.first_byte_ns, STEP_TIME),
            between_bytes: time(given.between_bytes_ns, STEP_TIME),
        }
    }
}

/// Checks a request against the policy and makes it one of hyper's.
fn prepare(
    target: &Target,
    head: head::Outgoing,
    exchange: &Arc<Exchange>,
    whole: bool,
) -> Result<Request<RequestBody>, Refusal> {
    let refuse = |code: u32, text: &str| Refusal(code, text.to_owned());
    let scheme = head
        .scheme
        .as_deref()
        .unwrap_or("https")
        .to_ascii_lowercase();
    let default_port = match scheme.as_str() {
        "http" => 80,
        "https" => 443,
        _ => {
            return Err(refuse(
                reset::HTTP_PROTOCOL_ERROR,
                "only http and https go out",
            ));
        }
    };
    if head.method == http::Method::CONNECT {
        return Err(refuse(
            reset::HTTP_PROTOCOL_ERROR,
            "CONNECT does not go out",
        ));
    }
    let invalid = |_| refuse(reset::HTTP_REQUEST_URI_INVALID, "the URI is none");
    let authority = head.authority.as_deref().unwrap_or_default();
    if fields::host_of(authority).is_none() {
        return Err(refuse(
            reset::HTTP_REQUEST_URI_INVALID,
            "the authority is no host",
        ));
    }
    let path = head
        .path
        .as_deref()
        .filter(|path| !path.is_empty())
        .unwrap_or("/");
    let uri = Uri::builder()
        .scheme(scheme.as_str())
        .authority(authority)
        .path_and_query(path)
        .build()
        .map_err(invalid)?;
    let host = uri.host().unwrap_or_default();
    let port = match authority.rsplit_once(':').map(|(_, port)| port) {
        Some(port) if !port.is_empty() && !port.ends_with(']') => port
            .parse()
            .map_err(|_| refuse(reset::HTTP_REQUEST_URI_INVALID, "the port is none"))?,
        _ => default_port,
    };
    if !policy::is_listed(&target.allow_hosts, host, port) {
        let text =
            format!("the deployment does not allow {host}:{port}: list it with --allow-host");
        return Err(Refusal(reset::HTTP_REQUEST_DENIED, text));
    }

    let mut headers = head.fields;
    let takes_trailers = fields::takes_trailers(&headers);
    fields::strip_hop_by_hop(&mut headers);
    headers.remove(header::HOST);
    if takes_trailers {
        // RFC 9110 §10.1.4: it is for the next server alone, and said to be so.
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    let length = fields::content_length(&headers).map_err(|()| {
        refuse(
            reset::HTTP_PROTOCOL_ERROR,
            "the content-length is no length",
        )
    })?;
    if whole && length.is_some_and(|length| length > 0) {
        return Err(refuse(
            reset::HTTP_PROTOCOL_ERROR,
            "the content-length is not that of the body",
        ));
    }
    let body = if whole {
        RequestBody::default()
    } else {
        RequestBody::new(Arc::clone(exchange), length)
    };
    let mut request = Request::new(body);
    *request.method_mut() = head.method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Hands a response to the guest.
async fn forward(
    exchange: &Exchange,
    response: Response<Incoming>,
    between: Duration,
) -> Result<(), Refusal> {
    let (mut parts, mut body) = response.into_parts();
    fields::strip_hop_by_hop(&mut parts.headers);
    let mut encoded = Vec::with_capacity(1024);
    encoded.u16(parts.status.as_u16());
    head::write_fields(&mut encoded, &parts.headers);
    if encoded.len() > MAX_PAYLOAD {
        return Err(Refusal(
            reset::HTTP_RESPONSE_HEADER_SECTION_SIZE,
            "the response's head is too large".to_owned(),
        ));
    }
    let ended = body.is_end_stream();
    if !exchange
        .send(Kind::Response, if ended { FLAG_END } else { 0 }, &encoded)
        .await
        || ended
    {
        return Ok(());
    }
    loop {
        if exchange.credit().await.is_none() {
            return Ok(());
        }
        let frame = tokio::select! {
            frame = tokio::time::timeout(between, body.frame()) => frame,
            () = exchange.unwanted() => return Ok(()),
        };
        match frame {
            Err(_) => {
                return Err(Refusal(
                    reset::CONNECTION_READ_TIMEOUT,
                    "the response stopped coming".to_owned(),
                ));
            }
            Ok(Some(Err(error))) => return Err(Refusal(incomplete(&error), error.to_string())),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => {
                    if !pieces(exchange, &data).await {
                        return Ok(());
                    }
                }
                Err(frame) => {
                    return end(exchange, frame.into_trailers().unwrap_or_default()).await;
                }
            },
            Ok(None) => return end(exchange, HeaderMap::new()).await,
        }
    }
}

fn incomplete(error: &hyper::Error) -> u32 {
    match error::code(error) {
        reset::HTTP_PROTOCOL_ERROR | reset::CONNECTION_TERMINATED => {
            reset::HTTP_RESPONSE_INCOMPLETE
        }
        code => code,
    }
}

async fn pieces(exchange: &Exchange, mut data: &[u8]) -> bool {
    while !data.is_empty() {
        let Some(credit) = exchange.credit().await else {
            return false;
        };
        let (piece, rest) = data.split_at(data.len().min(credit as usize).min(MAX_DATA));
        if !exchange.send(Kind::Data, 0, piece).await {
            return false;
        }
        data = rest;
    }
    true
}

async fn end(exchange: &Exchange, mut trailers: HeaderMap) -> Result<(), Refusal> {
    fields::strip_trailers(&mut trailers);
    let mut encoded = Vec::new();
    head::write_trailers(&mut encoded, &trailers);
    if encoded.len() > MAX_PAYLOAD {
        return Err(Refusal(
            reset::HTTP_RESPONSE_HEADER_SECTION_SIZE,
            "the response's trailers are too large".to_owned(),
        ));
    }
    exchange.send(Kind::End, 0, &encoded).await;
    Ok(())
}
