//! What is seen of requests: figures, the access log, traces.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use platform_data::metrics::{CLASSES, EGRESS, Figures, TRAPS};
use platform_data::trace::{Span, SpanKind, SpanSink, Tracing, Value};
use platform_data::{Observe, RouteTable};
use platform_model::{Access, Limits};

use crate::Case;
use crate::client::{Node, until};

pub const CASES: &[Case] = &[
    ("figures_of_requests", figures),
    ("figures_of_waits", waits),
    ("figures_of_apps_that_go", gone),
    ("figures_of_egress", egress),
    ("the_access_log", access),
    ("the_access_log_has_bounds", access_flood),
    ("traces", traces),
    ("traces_are_only_of_those_that_are_chosen", not_chosen),
];

fn only(node: &Node) -> Figures {
    let metrics = node.plane.metrics();
    let [app] = metrics.apps.as_slice() else {
        panic!("{metrics:?}")
    };
    assert_eq!((app.tenant.as_str(), app.app.as_str()), ("default", "app"));
    app.total
}

/// Waits until figures are so: a request is counted a moment after its client has the answer.
fn until_figures(node: &Node, what: &str, so: impl Fn(&Figures) -> bool) -> Figures {
    until(what, || so(&only(node)));
    only(node)
}

fn of(names: &[&str], counts: &[u64], name: &str) -> u64 {
    counts[names.iter().position(|n| *n == name).unwrap()]
}

fn figures() {
    let node = Node::with_app(Limits::default());
    for (path, status) in [
        ("/hello", 200),
        ("/status/404", 404),
        ("/status/302", 302),
        ("/trap", 500),
        ("/noresponse", 500),
    ] {
        assert_eq!(node.get(path).status, status, "{path}");
    }
    assert!(node.get("/trap-late").cut);
    let mut gone = node.connect();
    gone.say("GET /never HTTP/1.1\r\nHost: app.localhost\r\n\r\n");
    until_figures(&node, "it is under way", |figures| figures.in_flight == 1);
    drop(gone);
    node.raw("POST /count HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 9\r\n\r\nabcdefghi");
    node.get_at("nobody.localhost", "/");
    node.raw("GET / HTTP/1.1\r\nHost: app.localhost\r\nHost: b\r\n\r\n");

    let all = |figures: &Figures| figures.requests.iter().sum::<u64>() == 8;
    let figures = until_figures(&node, "all are counted", all);
    let class = |name| of(&CLASSES, &figures.requests, name);
    assert_eq!(
        ["2xx", "3xx", "4xx", "5xx", "gone"].map(class),
        [3, 1, 1, 2, 1]
    );
    assert_eq!(figures.duration.counts.iter().sum::<u64>(), 8);
    assert_eq!(
        (figures.in_flight, figures.waiting, figures.cut_off),
        (0, 0, 1)
    );
    assert_eq!(of(&TRAPS, &figures.traps, "unreachable"), 2);
    assert_eq!(figures.traps.iter().sum::<u64>(), 2);
    // The guest says 1 us and 64 KiB of each that ended.
    assert!(
        (7_000..=8_000).contains(&figures.cpu_ns),
        "{}",
        figures.cpu_ns
    );
    assert_eq!((figures.memory_max, figures.bytes_in), (65_536, 9));
    assert!(figures.bytes_out > 100, "{}", figures.bytes_out);
    assert_eq!((figures.vm_starts, figures.vm_losses), (1, 0));
    // The first request found no VM.
    assert_eq!(figures.cold_start.counts.iter().sum::<u64>(), 1);

    let seen = node.plane.metrics().node;
    assert_eq!(of(&CLASSES, &seen.unrouted, "4xx"), 2);
    until("connections are closed", || {
        node.plane.metrics().node.connections_open == 0
    });
    assert_eq!(seen.connections_accepted, 10);
}

fn waits() {
    let node = Node::with_app(Limits {
        concurrency: 1,
        head_timeout_ms: 400,
        ..Limits::default()
    });
    assert_eq!(node.get("/hello").status, 200);
    let mut held = node.connect();
    held.say("GET /never HTTP/1.1\r\nHost: app.localhost\r\n\r\n");
    until_figures(&node, "one is held", |figures| figures.in_flight == 1);
    let mut next = node.connect();
    next.say("GET /hello HTTP/1.1\r\nHost: app.localhost\r\n\r\n");
    until_figures(&node, "one waits", |figures| figures.waiting == 1);
    assert_eq!(held.answer("GET").status, 504);
    assert_eq!(next.answer("GET").status, 200);
    let figures = until_figures(&node, "none waits", |figures| figures.waiting == 0);
    assert_eq!(figures.queue_wait.counts.iter().sum::<u64>(), 1);
    assert!(figures.queue_wait.sum_us > 10_000, "{figures:?}");
    let late = until_figures(&node, "the guest has ended it", |figures| {
        of(&TRAPS, &figures.traps, "deadline") == 1
    });
    assert_eq!(late.traps.iter().sum::<u64>(), 1);

    assert_eq!(node.get("/die").status, 502);
    assert_eq!(node.get("/hello").status, 200);
    let figures = only(&node);
    assert_eq!((figures.vm_starts, figures.vm_losses), (2, 1));
    assert_eq!(figures.cold_start.counts.iter().sum::<u64>(), 2);
}

fn gone() {
    let node = Node::with_app(Limits::default());
    assert_eq!(node.get("/hello").status, 200);
    let second = node.target("default", "app", 2, Limits::default(), &[], "");
    node.publish("app.localhost", second);
    assert_eq!(node.get("/hello").status, 200);
    let deployments = || node.plane.metrics().apps[0].deployments.len();
    until("the first deployment is gone", || deployments() == 1);
    assert_eq!(only(&node).requests[0], 2, "its numbers stay");
    let _runtime = node.runtime.enter();
    node.plane.publish(RouteTable::new());
    until("the app is gone", || node.plane.metrics().apps.is_empty());
}

fn egress() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = upstream.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = upstream.accept().unwrap();
        read_head(&mut stream);
        stream
            .write_all(b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno")
            .unwrap();
    });
    let node = Node::with_app(Limits::default());
    for (url, status) in [
        (format!("http://{address}/x"), 404),
        ("http://elsewhere.example/".to_owned(), 502),
        ("http://127.0.0.1:1/".to_owned(), 502),
    ] {
        let answer = fetch(&node, &url, "");
        assert_eq!(answer, status, "{url}");
    }
    server.join().unwrap();
    let all = |figures: &Figures| figures.egress.iter().sum::<u64>() == 3;
    let figures = until_figures(&node, "all are counted", all);
    let outcome = |name| of(&EGRESS, &figures.egress, name);
    assert_eq!(["4xx", "denied", "failed"].map(outcome), [1, 1, 1]);
}

fn fetch(node: &Node, url: &str, fields: &str) -> u16 {
    let head =
        format!("GET /fetch HTTP/1.1\r\nHost: app.localhost\r\nX-Url: {url}\r\n{fields}\r\n");
    node.raw(&head).status
}

/// A head, whole, as text.
fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn told() -> Observe {
    Observe {
        access: true,
        ..Observe::default()
    }
}

fn access() {
    let node = Node::seen_with_app(Limits::default(), told());
    node.raw(
        "GET /status/404?secret=1 HTTP/1.1\r\nHost: app.localhost\r\nX-Request-Id: r-1\r\n\r\n",
    );
    node.raw(
        "POST /count HTTP/1.1\r\nHost: app.localhost\r\nX-Request-Id: r-2\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n0\r\n\r\n",
    );
    let mut head = node.connect();
    head.say("HEAD /hello HTTP/1.1\r\nHost: app.localhost\r\n\r\n");
    assert_eq!(head.answer("HEAD").status, 200);
    node.get("/trap-late");
    let mut gone = node.connect();
    gone.say("GET /never HTTP/1.1\r\nHost: app.localhost\r\nX-Request-Id: r-3\r\n\r\n");
    until("it is under way", || only(&node).in_flight == 1);
    drop(gone);
    node.get_at("nobody.localhost", "/");
    let lines = || node.logs.1.lock().unwrap().clone();
    until("all are told of", || lines().len() == 5);
    let of = |id: &str| {
        lines()
            .into_iter()
            .find(|(request, _)| request == id)
            .unwrap()
            .1
    };
    let plain = of("r-1");
    assert!(plain.duration_us > 0);
    let expected = Access {
        method: "GET".to_owned(),
        path: "/status/404".to_owned(),
        status: Some(404),
        complete: true,
        bytes_in: 0,
        bytes_out: 10,
        client: "127.0.0.1".to_owned(),
        ..plain.clone()
    };
    assert_eq!(plain, expected);
    let counted = of("r-2");
    assert_eq!(
        (counted.bytes_in, counted.bytes_out, counted.method.as_str()),
        (3, 1, "POST")
    );
    let left = of("r-3");
    assert_eq!((left.status, left.complete), (None, false));
    let path = |path: &str| {
        lines()
            .into_iter()
            .find(|(_, access)| access.path == path)
            .unwrap()
            .1
    };
    let cut = path("/trap-late");
    assert_eq!((cut.status, cut.complete), (Some(200), false));
    let head = path("/hello");
    assert_eq!(
        (head.method.as_str(), head.bytes_out, head.complete),
        ("HEAD", 0, true)
    );
}

fn access_flood() {
    let node = Node::seen_with_app(Limits::default(), told());
    let mut connection = node.connect();
    for _ in 0..2500 {
        connection.say("GET /empty HTTP/1.1\r\nHost: app.localhost\r\n\r\n");
        assert_eq!(connection.answer("GET").status, 200);
    }
    let figures = until_figures(&node, "all are counted", |f| f.requests[0] == 2500);
    assert_eq!(figures.in_flight, 0);
    let told = node.logs.1.lock().unwrap().len();
    // However many seconds it took, in each of them there are at most 1,000.
    let seconds = figures.duration.sum_us / 1_000_000 + 2;
    assert!(told as u64 <= 1000 * seconds, "{told} in {seconds} s");
    assert!(told >= 1000, "{told}");
}

/// Keeps spans.
#[derive(Default)]
struct Kept(Mutex<Vec<Span>>);

impl SpanSink for Kept {
    fn span(&self, span: Span) {
        self.0.lock().unwrap().push(span);
    }
}

fn traced(ratio: f64) -> (Arc<Kept>, Observe) {
    let kept = Arc::new(Kept::default());
    let sink: Arc<dyn SpanSink> = Arc::<Kept>::clone(&kept);
    let observe = Observe {
        tracing: Some(Tracing { sink, ratio }),
        ..Observe::default()
    };
    (kept, observe)
}

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn traces() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = upstream.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = upstream.accept().unwrap();
        let head = read_head(&mut stream);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .unwrap();
        head
    });
    let (kept, observe) = traced(1.0);
    let node = Node::seen_with_app(Limits::default(), observe);
    let url = format!("http://{address}/x");
    let fields = format!("traceparent: {PARENT}\r\ntracestate: a=1\r\n");
    assert_eq!(fetch(&node, &url, &fields), 200);
    let sent = server.join().unwrap();

    // The VM was not there yet, so there is a span for that wait too.
    let spans = || kept.0.lock().unwrap().clone();
    until("all spans are there", || spans().len() == 4);
    let spans = spans();
    let named = |name: &str, kind| {
        let found = spans
            .iter()
            .find(|span| span.name == name && span.kind == kind);
        found.unwrap_or_else(|| panic!("no {name}: {spans:?}"))
    };
    let server = named("GET", SpanKind::Server);
    let start = named("sandbox start", SpanKind::Internal);
    let guest = named("guest", SpanKind::Internal);
    let call = named("GET", SpanKind::Client);
    assert_eq!(server.parent_id, 0x00f0_67aa_0ba9_02b7);
    assert_eq!(
        (start.parent_id, guest.parent_id),
        (server.span_id, server.span_id)
    );
    assert_eq!(call.parent_id, guest.span_id);
    assert!(
        spans
            .iter()
            .all(|span| span.trace_id == 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736)
    );
    assert!(
        spans
            .iter()
            .all(|span| span.error.is_none() && span.end >= span.start),
        "{spans:?}"
    );
    assert!(guest.start >= start.end && call.start >= guest.start && call.end <= server.end);
    assert!(
        guest
            .attributes
            .contains(&("cloister.cpu_ns", Value::Number(1000))),
        "{guest:?}"
    );
    let id = format!(
        "traceparent: 00-{:032x}-{:016x}-01",
        call.trace_id, call.span_id
    );
    assert!(
        sent.contains(&id) && sent.contains("tracestate: a=1"),
        "{sent}"
    );

    // A component sees its own part as its parent; what a client says falsely is left out.
    let head = "GET /headers HTTP/1.1\r\nHost: app.localhost\r\ntraceparent: 00-xyz\r\ntracestate: a=1\r\n\r\n";
    let seen = node.raw(head).text();
    let all = || kept.0.lock().unwrap().clone();
    until("its spans are there", || all().len() == 6);
    let guest = all()
        .into_iter()
        .rfind(|span| span.name == "guest")
        .unwrap();
    let id = format!(
        "traceparent: 00-{:032x}-{:016x}-01",
        guest.trace_id, guest.span_id
    );
    assert!(seen.contains(&id), "{seen}");
    assert_eq!(
        (
            seen.matches("traceparent").count(),
            seen.matches("tracestate").count()
        ),
        (1, 0)
    );

    // A guest that is lost has ended its part too.
    assert_eq!(node.get("/die").status, 502);
    let lost = || {
        all()
            .into_iter()
            .find(|span| span.name == "guest" && span.error.is_some())
    };
    until("its part has ended", || lost().is_some());
    assert_eq!(
        lost().unwrap().error.as_deref(),
        Some("the sandbox was lost")
    );
}

fn not_chosen() {
    let (kept, observe) = traced(0.0);
    let node = Node::seen_with_app(Limits::default(), observe);
    let head =
        format!("GET /headers HTTP/1.1\r\nHost: app.localhost\r\ntraceparent: {PARENT}\r\n\r\n");
    let seen = node.raw(&head).text();
    assert!(seen.contains(PARENT), "it is handed on as it is: {seen}");
    std::thread::sleep(Duration::from_millis(50));
    assert!(kept.0.lock().unwrap().is_empty());
}
