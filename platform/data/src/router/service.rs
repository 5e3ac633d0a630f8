//! What happens to one request: checked, routed, admitted, handed to a guest, answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue, STRICT_TRANSPORT_SECURITY, USER_AGENT};
use http::request::Parts;
use http::{Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;

use super::body::{Body, Held};
use super::fields::{self, Origin};
use super::observe::{Observation, Observed, Observer};
use super::reject::Reject;
use super::split::NewCookie;
use super::table::{Host, Leases, Table, To};
use super::{local, pump, respond, turn};
use crate::pool::deployment::Deployment;
use crate::tls;

/// What all connections share.
pub(crate) struct Service {
    pub(crate) table: ArcSwap<Table>,
    pub(crate) certificates: tls::Current,
    pub(crate) observer: Observer,
    /// The port that HTTPS is served on, if it is.
    tls_port: Option<u16>,
    ids: AtomicU64,
    ids_base: u64,
}

/// Where a connection comes from.
pub(crate) struct Peer {
    /// The address.
    pub(crate) address: String,
    /// The address as `Forwarded` wants it.
    pub(crate) node: String,
    /// The TLS that it came over, if it did.
    pub(crate) tls: Option<Tls>,
}

/// What is known of a connection over TLS.
pub(crate) struct Tls {
    /// The name that the client asked for, in lower case.
    pub(crate) name: Option<Box<str>>,
}

/// What is put into the head of an answer, whoever gives it.
#[derive(Default)]
struct Dressing {
    hsts: Option<HeaderValue>,
    cookie: Option<NewCookie>,
}

impl Dressing {
    fn put(self, headers: &mut HeaderMap, secure: bool) {
        if let Some(hsts) = self.hsts {
            headers.entry(STRICT_TRANSPORT_SECURITY).or_insert(hsts);
        }
        if let Some(cookie) = self.cookie {
            cookie.put(headers, secure);
        }
    }
}

/// What becomes of a request.
enum Routed<'r> {
    /// The router has answered.
    Answered(Response<Body>),
    /// A deployment is to answer.
    Admitted(Admitted<'r>),
}

/// A request that a deployment is to answer.
struct Admitted<'r> {
    held: Held,
    /// The part of the path that the component does not see.
    prefix: &'r str,
    /// Most bytes of its body.
    request_body: u64,
}

impl Service {
    /// A service that knows no host.
    pub(crate) fn new(observer: Observer, tls_port: Option<u16>) -> Self {
        let mut seed = [0; 8];
        // Without randomness ids still are unique within this process.
        let _ = rustix::rand::getrandom(&mut seed[..], rustix::rand::GetRandomFlags::empty());
        Service {
            table: ArcSwap::default(),
            certificates: tls::Current::default(),
            observer,
            tls_port,
            ids: AtomicU64::new(0),
            ids_base: u64::from_le_bytes(seed),
        }
    }

    fn make_id(&self) -> Bytes {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        // A bijection of the counter: never the same twice, and no counting for strangers.
        let n = self
            .ids
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            ^ self.ids_base;
        let mut id = [0; 16];
        for (place, digit) in id.iter_mut().enumerate() {
            let nibble = (n >> (60 - 4 * place)) & 15;
            *digit = DIGITS
                .get(usize::try_from(nibble).unwrap_or(0))
                .copied()
                .unwrap_or(b'0');
        }
        Bytes::copy_from_slice(&id)
    }

    /// Answers a request.
    pub(crate) async fn answer(
        self: Arc<Self>,
        peer: &Peer,
        request: Request<Incoming>,
    ) -> Response<Observed> {
        let (parts, body) = request.into_parts();
        let id = fields::request_id(&parts.headers, || self.make_id());
        let mut seen = self.observer.begin(peer, &parts, &id);
        let mut dressing = Dressing::default();
        let answer = self.exchange(peer, &parts, body, &id, &mut dressing, &mut seen);
        let mut response = match answer.await {
            Ok(response) => response,
            Err(reject) => reject.response(std::str::from_utf8(&id).unwrap_or_default()),
        };
        dressing.put(response.headers_mut(), peer.tls.is_some());
        if let Ok(id) = HeaderValue::from_maybe_shared(id) {
            response.headers_mut().insert(fields::REQUEST_ID, id);
        }
        let answered = seen.answered(response);
        answered.with(self)
    }

    /// Answers a request that has two lengths.
    pub(crate) fn refuse_smuggling(
        self: Arc<Self>,
        peer: &Peer,
        parts: &Parts,
    ) -> Response<Observed> {
        let id = self.make_id();
        let seen = self.observer.begin(peer, parts, &id);
        let reject = Reject::Malformed("there are both Content-Length and Transfer-Encoding");
        let mut response = reject.response(std::str::from_utf8(&id).unwrap_or_default());
        if let Ok(id) = HeaderValue::from_maybe_shared(id) {
            response.headers_mut().insert(fields::REQUEST_ID, id);
        }
        let answered = seen.answered(response);
        answered.with(self)
    }

    async fn exchange(
        &self,
        peer: &Peer,
        parts: &Parts,
        body: Incoming,
        id: &Bytes,
        dressing: &mut Dressing,
        seen: &mut Observation<'_>,
    ) -> Result<Response<Body>, Reject> {
        fields::check(&parts.method, &parts.headers)?;
        let authority = fields::authority(parts.version, &parts.uri, &parts.headers)?;
        let admitted = match self.route(peer, parts, authority, dressing)? {
            Routed::Admitted(admitted) => admitted,
            Routed::Answered(response) => return Ok(response),
        };
        let origin = Origin {
            address: &peer.address,
            node: &peer.node,
            scheme: if peer.tls.is_some() { "https" } else { "http" },
            authority,
            prefix: admitted.prefix,
            id,
            trace: None,
        };
        seen.routed(&admitted.held.hold.0, &origin, parts);
        serve(parts, body, origin, admitted, id, seen).await
    }

    /// Finds what answers a request: the router itself, or a deployment, which is held on to.
    fn route<'r>(
        &self,
        peer: &Peer,
        parts: &'r Parts,
        authority: &str,
        dressing: &mut Dressing,
    ) -> Result<Routed<'r>, Reject> {
        let name = fields::host_of(authority).unwrap_or_default();
        // A deployment that leaves the table has left it before it refuses: the second look finds its successor.
        for _ in 0..3 {
            let table = self.table.load();
            if let Some(answer) = local::challenge(&table, name, parts) {
                return Ok(Routed::Answered(answer));
            }
            let Some(host) = table.find(name) else {
                if table.published {
                    break;
                }
                return Err(Reject::NotReady("the node is starting".to_owned()));
            };
            if let Some(tls) = &peer.tls {
                if !self.is_for(name, tls) {
                    return Err(Reject::Misdirected);
                }
                dressing.hsts.clone_from(&host.hsts);
            } else if let Some(answer) = local::to_https(host, authority, self.tls_port, parts) {
                return answer.map(Routed::Answered);
            }
            if let Some(routed) = self.route_at(host, parts, dressing)? {
                return Ok(routed);
            }
        }
        Err(Reject::UnknownHost(name.chars().take(255).collect()))
    }

    /// Whether a connection whose client asked for one name may be used for another: the certificate that it got is
    /// that of both.
    fn is_for(&self, name: &str, tls: &Tls) -> bool {
        let asked = tls.name.as_deref().unwrap_or_default();
        if asked.eq_ignore_ascii_case(name) {
            return true;
        }
        let table = self.certificates.load();
        let found = (table.find(asked), table.find(&name.to_ascii_lowercase()));
        matches!(found, (Some(one), Some(other)) if Arc::ptr_eq(one, other))
    }

    /// The same at a host. `None`: the deployment is on its way out, look again.
    fn route_at<'r>(
        &self,
        host: &Host,
        parts: &'r Parts,
        dressing: &mut Dressing,
    ) -> Result<Option<Routed<'r>>, Reject> {
        let path = parts.uri.path();
        let route = host.route(path).ok_or(Reject::NoRoute)?;
        let backend = match &route.to {
            To::App(backend) => backend,
            To::Redirect(redirect) => {
                let answer = local::redirect(route, redirect, parts)?;
                return Ok(Some(Routed::Answered(answer)));
            }
        };
        let make = || String::from_utf8_lossy(&self.make_id()).into_owned();
        let chosen = backend.split.choose(&parts.headers, make);
        let none = || Reject::NotReady("no deployment of it is served".to_owned());
        let (share, cookie) = chosen.ok_or_else(none)?;
        let Some(hold) = Deployment::hold(&share.deployment) else {
            return Ok(None);
        };
        let leases = backend.admit(&hold.0.usage).map_err(Reject::Excess)?;
        dressing.cookie = cookie;
        Ok(Some(Routed::Admitted(Admitted {
            held: Held {
                hold,
                counts: true,
                response_body: backend.response_body,
                _leases: leases,
            },
            prefix: path.get(..backend.strip).unwrap_or_default(),
            request_body: share.request_body,
        })))
    }
}

/// Asks a deployment for `path` with a GET of the node's own, past the route table and what counts requests.
pub(crate) async fn probe(
    deployment: &Arc<Deployment>,
    path: &str,
) -> Result<Response<Body>, Reject> {
    let malformed = |_| Reject::Malformed("the path is none");
    let request = Request::get(path).header(USER_AGENT, "cloister-health");
    let (parts, ()) = request.body(()).map_err(malformed)?.into_parts();
    let target = &deployment.target;
    let host = target.app.host(&target.tenant);
    let id = Bytes::from_static(b"health");
    let origin = Origin {
        address: "127.0.0.1",
        node: "127.0.0.1",
        scheme: "http",
        authority: &host,
        prefix: "",
        id: &id,
        trace: None,
    };
    let stopped = || Reject::NotReady("it is on its way out".to_owned());
    let held = Held {
        hold: Deployment::hold(deployment).ok_or_else(stopped)?,
        counts: false,
        response_body: None,
        _leases: Leases::default(),
    };
    let limits = &target.limits;
    let handle = turn::begin(deployment, &parts, origin, true, &id, None).await?;
    let head = handle.head().await;
    let raw = head.map_err(|failure| Reject::of(&failure, limits, limits.request_body_bytes))?;
    respond::respond(&parts, handle, raw, held).await
}

/// Hands a request to its deployment and waits for the answer.
async fn serve(
    parts: &Parts,
    body: Incoming,
    origin: Origin<'_>,
    admitted: Admitted<'_>,
    id: &Bytes,
    seen: &Observation<'_>,
) -> Result<Response<Body>, Reject> {
    let Admitted {
        held, request_body, ..
    } = admitted;
    let deployment = &held.hold.0;
    check_limits(parts, &body, deployment, request_body)?;
    let whole = body.is_end_stream();
    let handle = turn::begin(deployment, parts, origin, whole, id, Some(seen)).await?;
    if !whole {
        let (writer, count) = (handle.writer(), seen.body_count());
        tokio::spawn(pump::run(body, writer, request_body, count));
    }
    let raw = handle
        .head()
        .await
        .map_err(|failure| Reject::of(&failure, &deployment.target.limits, request_body))?;
    respond::respond(parts, handle, raw, held).await
}

fn check_limits(
    parts: &Parts,
    body: &Incoming,
    deployment: &Deployment,
    request_body: u64,
) -> Result<(), Reject> {
    let limits = &deployment.target.limits;
    let (bytes, count) = fields::size(&parts.method, &parts.uri, &parts.headers);
    if count > limits.header_count as usize {
        return Err(Reject::TooManyFields(limits.header_count));
    }
    if bytes > limits.head_bytes as usize {
        let target = parts
            .uri
            .path_and_query()
            .map_or(0, |target| target.as_str().len());
        let only_target = target > limits.head_bytes as usize;
        return Err(if only_target {
            Reject::TargetTooLong(limits.head_bytes)
        } else {
            Reject::HeadTooLarge(limits.head_bytes)
        });
    }
    if body.size_hint().lower() > request_body {
        return Err(Reject::BodyTooLarge(request_body));
    }
    Ok(())
}
