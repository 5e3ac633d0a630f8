//! Traces: from the client through the VM to an upstream, as a collector gets them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use cloister_tests::client::{Connection, empty};
use cloister_tests::collector::{Collector, Span, attribute, hex};
use cloister_tests::fixture::probe;
use cloister_tests::node::Start;
use cloister_tests::wait::{SOON, until};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const EXE: &str = env!("CARGO_BIN_EXE_cloister-node");

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Answers one request, and gives its head.
async fn upstream(listener: TcpListener) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(answer).await.unwrap();
    String::from_utf8(head).unwrap()
}

fn named(spans: &[Span], name: &str, kind: SpanKind) -> Span {
    let found = spans
        .iter()
        .find(|span| span.name == name && span.kind == i32::from(kind));
    found
        .unwrap_or_else(|| panic!("no {name}: {spans:#?}"))
        .clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_from_its_client_to_an_upstream() {
    let collector = Collector::start().await;
    let endpoint = format!("http://{}", collector.addr);
    let node = Start::new(EXE)
        .args(&["--otlp-endpoint", &endpoint])
        .node()
        .await;
    node.deploy("app", probe())
        .allow_host("127.0.0.1")
        .done()
        .await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap().to_string();
    let upstream = tokio::spawn(upstream(listener));

    let mut connection = Connection::h1(node.listen).await.unwrap();
    let mut request = connection.request("GET", "app.localhost", "/fetch", empty());
    let headers = request.headers_mut();
    headers.insert("x-to", to.parse().unwrap());
    headers.insert("x-request-id", "r-1".parse().unwrap());
    headers.insert(
        "traceparent",
        format!("00-{TRACE}-00f067aa0ba902b7-01").parse().unwrap(),
    );
    headers.insert("tracestate", "vendor=1".parse().unwrap());
    let answer = connection.call(request).await.unwrap();
    assert_eq!(answer.text(), "status 200");
    let sent = upstream.await.unwrap();

    let spans = until(SOON, "the spans at the collector", || async {
        let spans = collector.spans();
        (spans.len() >= 3).then_some(spans)
    })
    .await;
    let server = named(&spans, "GET", SpanKind::Server);
    let guest = named(&spans, "guest", SpanKind::Internal);
    let call = named(&spans, "GET", SpanKind::Client);
    for span in [&server, &guest, &call] {
        assert_eq!(hex(&span.trace_id), TRACE);
        assert_eq!(span.trace_state, "vendor=1");
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
    }
    assert_eq!(hex(&server.parent_span_id), "00f067aa0ba902b7");
    assert_eq!(guest.parent_span_id, server.span_id);
    assert_eq!(
        call.parent_span_id, guest.span_id,
        "the guest says whose call it is"
    );
    assert!(guest.start_time_unix_nano >= server.start_time_unix_nano);
    assert!(call.start_time_unix_nano >= guest.start_time_unix_nano);
    for (name, value) in [
        ("http.request.method", "GET"),
        ("url.path", "/fetch"),
        ("http.response.status_code", "200"),
        ("cloister.app", "app"),
        ("cloister.request", "r-1"),
    ] {
        assert_eq!(attribute(&server, name).as_deref(), Some(value));
    }
    let cpu: u64 = attribute(&guest, "cloister.cpu_ns")
        .unwrap()
        .parse()
        .unwrap();
    assert!((1_000..1_000_000_000).contains(&cpu), "{cpu}");
    let parent = format!("traceparent: 00-{TRACE}-{}-01", hex(&call.span_id));
    assert!(
        sent.contains(&parent) && sent.contains("tracestate: vendor=1"),
        "{sent}"
    );

    // A malformed one is as good as none: a trace of its own.
    let before = collector.spans().len();
    let mut request = connection.request("GET", "app.localhost", "/headers", empty());
    request
        .headers_mut()
        .insert("traceparent", "00-nothing".parse().unwrap());
    let seen = connection.call(request).await.unwrap().text();
    let spans = until(SOON, "two more spans", || async {
        let spans = collector.spans().split_off(before);
        (spans.len() == 2).then_some(spans)
    })
    .await;
    let server = named(&spans, "GET", SpanKind::Server);
    let guest = named(&spans, "guest", SpanKind::Internal);
    assert!(server.parent_span_id.is_empty() && hex(&server.trace_id) != TRACE);
    let parent = format!("00-{}-{}-01", hex(&guest.trace_id), hex(&guest.span_id));
    assert!(
        seen.contains(&parent) && !seen.contains("nothing"),
        "{seen}"
    );

    // What fails says so.
    let before = collector.spans().len();
    assert_eq!(node.get("app", "/trap/unreachable").await.status, 500);
    let spans = until(SOON, "the spans of a trap", || async {
        let spans = collector.spans().split_off(before);
        (spans.len() == 2).then_some(spans)
    })
    .await;
    for (name, kind, message) in [
        ("GET", SpanKind::Server, "status 500"),
        ("guest", SpanKind::Internal, "the component trapped"),
    ] {
        let status = named(&spans, name, kind).status.unwrap();
        assert_eq!((status.code, status.message.as_str()), (2, message));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_chooses_and_the_last_spans_are_sent() {
    let collector = Collector::start().await;
    let endpoint = format!("http://{}/", collector.addr);
    let args = ["--otlp-endpoint", &endpoint, "--trace-ratio", "0"];
    let node = Start::new(EXE).args(&args).node().await;
    node.deploy("app", probe()).done().await;
    let mut connection = Connection::h1(node.listen).await.unwrap();
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let mut request = connection.request("GET", "app.localhost", "/headers", empty());
    request
        .headers_mut()
        .insert("traceparent", parent.parse().unwrap());
    let seen = connection.call(request).await.unwrap().text();
    assert!(seen.contains(&parent), "it is passed on as it came: {seen}");
    node.stop().await;
    assert!(
        collector.spans().is_empty(),
        "a client's mark has nothing traced"
    );

    let node = Start::new(EXE)
        .args(&["--otlp-endpoint", &endpoint])
        .node()
        .await;
    node.deploy("app", probe()).done().await;
    for _ in 0..5 {
        node.get("app", "/hello").await;
    }
    node.stop().await;
    assert_eq!(collector.spans().len(), 10, "two for each request");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_gone_harms_nothing() {
    let start = Start::new(EXE).args(&["--otlp-endpoint", "http://127.0.0.1:1"]);
    let node = start.node().await;
    node.deploy("app", probe()).done().await;
    for _ in 0..20 {
        assert_eq!(node.get("app", "/hello").await.status, 200);
    }
    until(SOON, "the node to say so", || async {
        node.said()
            .contains("collector does not take spans")
            .then_some(())
    })
    .await;
    let page = node.admin.call("GET", "/metrics", "", empty()).await.text();
    assert!(
        page.contains("cloister_trace_spans_total{outcome=\"sent\"} 0"),
        "{page}"
    );
    assert!(
        !page.contains("cloister_trace_spans_total{outcome=\"failed\"} 0"),
        "{page}"
    );
}
