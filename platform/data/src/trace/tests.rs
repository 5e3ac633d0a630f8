//! Choosing, and the spans of a request as they come out.

use std::sync::Mutex;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request};
use platform_model::{DeploymentId, Digest, Limits};
use sandbox_abi::message::{Done, outcome};

use super::*;
use crate::Target;

/// Keeps spans.
#[derive(Default)]
struct Kept(Mutex<Vec<Span>>);

impl SpanSink for Kept {
    fn span(&self, span: Span) {
        self.0.lock().unwrap().push(span);
    }
}

fn tracer(ratio: f64) -> (Arc<Kept>, Arc<Tracer>) {
    let kept = Arc::new(Kept::default());
    let sink: Arc<dyn SpanSink> = Arc::<Kept>::clone(&kept);
    (kept, Arc::new(Tracer::new(Tracing { sink, ratio })))
}

fn spans(kept: &Kept) -> Vec<Span> {
    std::mem::take(&mut *kept.0.lock().unwrap())
}

fn attribute<'s>(span: &'s Span, name: &str) -> &'s Value {
    let found = span.attributes.iter().find(|(key, _)| *key == name);
    &found.unwrap_or_else(|| panic!("no {name}: {span:?}")).1
}

fn target() -> Target {
    Target {
        tenant: "acme".parse().unwrap(),
        app: "shop".parse().unwrap(),
        deployment: DeploymentId(3),
        artifact: "none".into(),
        digest: Digest::from_sha256([0; 32]),
        env: std::collections::BTreeMap::new(),
        allow_hosts: Vec::new(),
        limits: Limits::default(),
        isolation: platform_model::Isolation::default(),
        scale: platform_model::Scale::default(),
    }
}

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

fn request(parent: Option<&'static str>) -> http::request::Parts {
    let mut request = Request::get("/cart?secret=1").body(()).unwrap();
    if let Some(parent) = parent {
        let headers = request.headers_mut();
        headers.insert(TRACEPARENT, HeaderValue::from_static(parent));
        headers.insert(TRACESTATE, HeaderValue::from_static("a=1"));
    }
    request.into_parts().0
}

#[test]
fn the_share_that_is_chosen() {
    let chosen = |ratio| {
        let (_, tracer) = tracer(ratio);
        (0..10_000).filter(|_| tracer.chooses()).count()
    };
    assert_eq!(chosen(0.0), 0);
    assert_eq!(chosen(-1.0), 0);
    assert_eq!(chosen(1.0), 10_000);
    let tenth = chosen(0.1);
    assert!((800..1200).contains(&tenth), "{tenth}");
}

#[test]
fn a_request_within_that_of_its_client() {
    let (kept, tracer) = tracer(1.0);
    let mut trace = RequestTrace::begin(&tracer, &request(Some(PARENT)), b"r1", "192.0.2.1");
    trace.routed(&target(), "shop.localhost");
    trace.waited(Step::Queue, Instant::now());
    let mut guest = trace.guest();
    guest.begun();
    let to_component = guest.context().to_string();
    let mut call = CallTrace::begin(&guest);
    let mut headers = HeaderMap::new();
    let uri = "http://api.example:81/v1".parse().unwrap();
    call.send(&Method::POST, &uri, &mut headers);
    call.end(Some(200), None);
    let done = Done {
        cpu_ns: 7,
        memory: 8,
    };
    guest.done(outcome::OK, done);
    trace.end(Some(200), true, 5);

    let spans = spans(&kept);
    let [queue, call, guest, server] = &spans[..] else {
        panic!("{spans:?}")
    };
    for span in &spans {
        assert_eq!(span.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!((span.state.as_str(), &span.error), ("a=1", &None));
        assert!(span.end >= span.start);
    }
    assert_eq!(server.parent_id, 0x00f0_67aa_0ba9_02b7);
    assert!(server.parent_is_remote);
    assert_eq!(
        (server.kind, server.name.as_ref()),
        (SpanKind::Server, "GET")
    );
    assert_eq!(attribute(server, "url.path"), &Value::from("/cart"));
    assert_eq!(attribute(server, "cloister.deployment"), &Value::Number(3));
    assert_eq!(
        attribute(server, "http.response.status_code"),
        &Value::Number(200)
    );
    assert_eq!(
        (queue.parent_id, queue.name.as_ref()),
        (server.span_id, "queue")
    );
    assert_eq!(
        (guest.parent_id, guest.name.as_ref()),
        (server.span_id, "guest")
    );
    assert_eq!(attribute(guest, "cloister.cpu_ns"), &Value::Number(7));
    assert_eq!(
        (call.parent_id, call.kind),
        (guest.span_id, SpanKind::Client)
    );
    assert_eq!(attribute(call, "server.port"), &Value::Number(81));
    let id = |span: &Span| format!("00-{:032x}-{:016x}-01", span.trace_id, span.span_id);
    assert_eq!(to_component, id(guest));
    assert_eq!(headers[TRACEPARENT], id(call));
    assert_eq!(headers[TRACESTATE], "a=1");
}

#[test]
fn without_a_client_that_traces_it_is_a_trace_of_its_own() {
    let (kept, tracer) = tracer(1.0);
    for parent in [None, Some("00-0-0-00")] {
        let trace = RequestTrace::begin(&tracer, &request(parent), b"r1", "192.0.2.1");
        drop(trace.guest());
        trace.end(None, false, 0);
        let spans = spans(&kept);
        let [server] = &spans[..] else {
            panic!("the guest never had it: {spans:?}")
        };
        assert!(server.trace_id != 0 && server.parent_id == 0 && !server.parent_is_remote);
        assert_eq!(server.state, "");
        assert_eq!(server.error.as_deref(), Some("the client went away"));
    }
}

#[test]
fn a_component_that_traces_is_in_between() {
    let (kept, tracer) = tracer(1.0);
    let trace = RequestTrace::begin(&tracer, &request(None), b"r1", "192.0.2.1");
    let guest = trace.guest();
    let uri = "http://api.example/".parse().unwrap();
    let own = Context {
        span_id: 77,
        ..guest.context().clone()
    };
    let mut headers = HeaderMap::new();
    headers.insert(TRACEPARENT, own.to_string().parse().unwrap());
    headers.insert(TRACESTATE, HeaderValue::from_static("b=2"));
    let mut call = CallTrace::begin(&guest);
    call.send(&Method::GET, &uri, &mut headers);
    call.end(None, Some("refused".to_owned()));
    let call = spans(&kept).remove(0);
    assert_eq!(
        (call.parent_id, call.error.as_deref()),
        (77, Some("refused"))
    );
    assert!(
        headers[TRACEPARENT]
            .to_str()
            .unwrap()
            .contains(&format!("{:016x}", call.span_id))
    );
    assert_eq!(headers[TRACESTATE], "b=2");

    // Another trace is the component's own business.
    headers.insert(TRACEPARENT, HeaderValue::from_static(PARENT));
    let mut call = CallTrace::begin(&guest);
    call.send(&Method::GET, &uri, &mut headers);
    call.end(Some(503), None);
    assert_eq!(headers[TRACEPARENT], PARENT);
    let call = spans(&kept).remove(0);
    assert_eq!(call.parent_id, guest.context().span_id);
    assert_eq!(call.error.as_deref(), Some("status 503"));
}

#[test]
fn a_guest_that_is_lost_says_nothing_more() {
    let (kept, tracer) = tracer(1.0);
    let trace = RequestTrace::begin(&tracer, &request(None), b"r1", "192.0.2.1");
    let mut guest = trace.guest();
    guest.begun();
    drop(guest);
    assert_eq!(
        spans(&kept)[0].error.as_deref(),
        Some("the sandbox was lost")
    );
}

#[test]
fn days_are_measured_steadily() {
    let clock = Clock::now();
    let later = clock.steady + Duration::from_secs(3);
    assert_eq!(clock.day_of(later), clock.day + Duration::from_secs(3));
}
