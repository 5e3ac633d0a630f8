//! What a node counts, as Prometheus reads it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use cloister_tests::client::{self, Connection, empty};
use cloister_tests::fixture::{probe, saying};
use cloister_tests::node::Start;
use cloister_tests::wait::{SOON, until};
use cloister_tests::{Node, process};
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const EXE: &str = env!("CARGO_BIN_EXE_cloister-node");

/// A page of metrics.
struct Page(String);

impl Page {
    async fn of(node: &Node) -> Self {
        let answer = node.admin.call("GET", "/metrics", "", empty()).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        Self(answer.text())
    }

    /// The value of a series; none where there is no such series.
    fn value(&self, series: &str) -> Option<f64> {
        let value = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok();
        self.0.lines().find_map(value)
    }
}

/// A series of the app `app` of the tenant default, with one more label where that is given.
fn of_app(name: &str, label: &str) -> String {
    let comma = if label.is_empty() { "" } else { "," };
    format!("{name}{{tenant=\"default\",app=\"app\"{comma}{label}}}")
}

/// Waits until a series has this value.
async fn until_value(node: &Node, series: &str, value: f64) {
    let what = format!("{series} to be {value}");
    until(SOON, &what, || async {
        let found = Page::of(node).await.value(series);
        found.filter(|found| (found - value).abs() < f64::EPSILON)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_counted() {
    let upstream = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = upstream.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut stream, _) = upstream.accept().await.unwrap();
        let mut head = [0; 1024];
        let _ = stream.read(&mut head).await.unwrap();
        let answer = b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer).await.unwrap();
    });
    let node = Node::start(EXE).await;
    let deploy = node.deploy("app", probe()).allow_host("127.0.0.1");
    deploy
        .limits(serde_json::json!({"cpu_ms": 300}))
        .done()
        .await;
    for (path, status) in [
        ("/hello", 200),
        ("/status?404", 404),
        ("/status?302", 302),
        ("/trap/unreachable", 500),
        ("/trap/out-of-bounds", 500),
        ("/trap/divide-by-zero", 500),
        ("/trap/stack", 500),
        ("/trap/null-call", 500),
        ("/spin", 504),
    ] {
        let answer = node.get("app", path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
    for to in [to.as_str(), "elsewhere.example"] {
        let mut connection = Connection::h1(node.listen).await.unwrap();
        let mut request = connection.request("GET", "app.localhost", "/fetch", empty());
        request.headers_mut().insert("x-to", to.parse().unwrap());
        connection.call(request).await.unwrap();
    }
    let mut connection = Connection::h1(node.listen).await.unwrap();
    let body = client::full(vec![b'x'; 100_000]);
    let request = connection.request("POST", "app.localhost", "/echo", body);
    assert_eq!(connection.call(request).await.unwrap().body.len(), 100_000);
    assert_eq!(node.get("nobody", "/").await.status, 404);

    let requests =
        |class: &str| of_app("cloister_app_requests_total", &format!("class=\"{class}\""));
    until_value(&node, &requests("3xx"), 1.0).await;
    let traps = |kind: &str| of_app("cloister_app_traps_total", &format!("kind=\"{kind}\""));
    for kind in [
        "unreachable",
        "memory_bounds",
        "arithmetic",
        "stack",
        "indirect_call",
        "cpu_limit",
    ] {
        until_value(&node, &traps(kind), 1.0).await;
    }
    let egress = |outcome: &str| {
        of_app(
            "cloister_app_egress_requests_total",
            &format!("outcome=\"{outcome}\""),
        )
    };
    until_value(&node, &egress("4xx"), 1.0).await;
    until_value(&node, &egress("denied"), 1.0).await;
    until_value(
        &node,
        &of_app("cloister_app_request_body_bytes_total", ""),
        100_000.0,
    )
    .await;
    until_value(&node, &of_app("cloister_app_requests_in_flight", ""), 0.0).await;
    let page = Page::of(&node).await;
    let value = |name: &str| {
        page.value(&of_app(name, ""))
            .unwrap_or_else(|| panic!("no {name}:\n{}", page.0))
    };
    let all: f64 = ["2xx", "3xx", "4xx", "5xx", "gone"]
        .map(|class| page.value(&requests(class)).unwrap())
        .iter()
        .sum();
    assert!((all - value("cloister_app_request_duration_seconds_count")).abs() < f64::EPSILON);
    assert!(
        value("cloister_app_cpu_seconds_total") > 0.25,
        "the loop had 300 ms"
    );
    assert!(value("cloister_app_cpu_seconds_total") < 60.0);
    assert!(value("cloister_app_request_memory_max_bytes") >= 65_536.0);
    assert!(value("cloister_app_vm_resident_bytes") > 100_000.0);
    assert!(value("cloister_app_response_body_bytes_total") > 100_000.0);
    assert_eq!(
        page.value("cloister_unrouted_requests_total{class=\"4xx\"}"),
        Some(1.0)
    );
    assert_eq!(
        page.value("cloister_worker_up{tenant=\"default\"}"),
        Some(1.0)
    );
    assert_eq!(
        page.value("cloister_worker_restarts_total{tenant=\"default\"}"),
        Some(0.0)
    );
    assert!(page.value("process_open_fds").unwrap() > 5.0);

    // A worker that dies takes its VM along; the next request waits for another.
    let starts = value("cloister_app_vm_starts_total");
    process::kill(node.admin.worker("default").await.unwrap());
    node.served_again("app", SOON).await;
    until_value(
        &node,
        "cloister_worker_restarts_total{tenant=\"default\"}",
        1.0,
    )
    .await;
    until_value(&node, &of_app("cloister_app_vm_losses_total", ""), 1.0).await;
    until_value(
        &node,
        &of_app("cloister_app_vm_starts_total", ""),
        starts + 1.0,
    )
    .await;

    // Another deployment goes on counting; the app takes its numbers along when it goes.
    let before = Page::of(&node).await.value(&requests("2xx")).unwrap();
    node.deploy("app", &saying("two")).done().await;
    assert_eq!(node.get("app", "/").await.text(), "two");
    until_value(&node, &requests("2xx"), before + 1.0).await;
    node.admin.delete("/v1/tenants/default/apps/app").await;
    until(SOON, "the series to be gone", || async {
        (!Page::of(&node).await.0.contains("app=\"app\"")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_for_the_token_or_on_a_listener_of_its_own() {
    let start = Start::new(EXE).args(&["--metrics", "127.0.0.1:0", "--metrics-apps", "1"]);
    let node = start.node().await;
    let refused = client::get(node.admin.addr, "admin", "/metrics")
        .await
        .unwrap();
    assert_eq!(
        (refused.status, refused.problem().as_str()),
        (StatusCode::UNAUTHORIZED, "token-missing")
    );
    let open = node.metrics.unwrap();
    let page = client::get(open, "metrics", "/metrics").await.unwrap();
    assert_eq!(page.status, StatusCode::OK);
    assert!(
        page.header("content-type")
            .starts_with("text/plain; version=0.0.4"),
        "{page:?}"
    );
    assert!(page.text().contains("cloister_build_info{"));
    for path in ["/v1/status", "/healthz", "/"] {
        let answer = client::get(open, "metrics", path).await.unwrap();
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
    }

    // As many apps as were asked for have series of their own.
    for app in ["one", "two", "three"] {
        node.deploy(app, &saying(app)).done().await;
        assert_eq!(node.get(app, "/").await.text(), app);
    }
    let others = "cloister_app_requests_total{tenant=\"_other\",app=\"_other\",class=\"2xx\"}";
    until_value(&node, others, 2.0).await;
    let page = Page::of(&node).await;
    assert!(
        page.0.contains("app=\"one\"") && !page.0.contains("app=\"two\""),
        "{}",
        page.0
    );
    assert_eq!(page.value("cloister_apps{listed=\"false\"}"), Some(2.0));
}
