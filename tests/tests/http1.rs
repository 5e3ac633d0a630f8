//! HTTP/1.1 as RFC 9110 and RFC 9112 have it, byte by byte, with requests that are well.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::net::SocketAddr;
use std::time::Duration;

use cloister_tests::Node;
use cloister_tests::fixture::probe;
use cloister_tests::raw::{Raw, RawAnswer, exchange};
use serde_json::json;
use tokio::sync::OnceCell;

const EXE: &str = env!("CARGO_BIN_EXE_cloister-node");
const HOST: &str = "Host: app.localhost\r\n";

async fn node() -> &'static Node {
    static NODE: OnceCell<Node> = OnceCell::const_new();
    NODE.get_or_init(|| async {
        let node = Node::start(EXE).await;
        node.deploy("app", probe()).done().await;
        let limits = json!({ "request_body_bytes": 1_000_000, "concurrency": 1, "queue": 1, "head_timeout_ms": 4000 });
        node.deploy("small", probe()).limits(limits).done().await;
        node.deploy("one", probe())
            .limits(json!({ "concurrency": 1 }))
            .done()
            .await;
        node
    })
    .await
}

/// Runs a blocking test against the node.
async fn with(test: impl FnOnce(SocketAddr) + Send + 'static) {
    let listen = node().await.listen;
    tokio::task::spawn_blocking(move || test(listen))
        .await
        .unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()));
}

/// The answer to one request that gets one.
fn answer(listen: SocketAddr, request: &str) -> RawAnswer {
    exchange(listen, request).unwrap_or_else(|| panic!("no answer to {request:?}"))
}

/// What the component saw of a request's head: the first line, and the fields.
fn seen(listen: SocketAddr, request: &str) -> Vec<String> {
    let answer = answer(listen, request);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text().lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_kept_and_closed_when_asked() {
    with(|listen| {
        let mut raw = Raw::connect(listen);
        for _ in 0..10 {
            raw.send(format!("GET /hello HTTP/1.1\r\n{HOST}\r\n"));
            let answer = raw.answer().unwrap();
            assert_eq!(answer.text(), "Hello!\n");
            assert!(
                answer
                    .header("connection")
                    .iter()
                    .all(|v| !v.contains("close")),
                "{}",
                answer.head
            );
        }
        raw.send(format!(
            "GET /hello HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n"
        ));
        let answer = raw.answer().unwrap();
        assert_eq!(answer.header("connection"), ["close"], "{}", answer.head);
        assert!(raw.closes_within(Duration::from_secs(2)));
        // Names of fields and the option are not case-sensitive.
        let mut raw = Raw::connect(listen);
        raw.send(
            "GET /hello HTTP/1.1\r\nhOST: app.localhost\r\ncONNECTION: Keep-Alive, CLOSE\r\n\r\n",
        );
        assert_eq!(raw.answer().unwrap().status, 200);
        assert!(raw.closes_within(Duration::from_secs(2)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order() {
    with(|listen| {
        let mut raw = Raw::connect(listen);
        let one = |path: &str| format!("GET {path} HTTP/1.1\r\n{HOST}\r\n");
        raw.send(
            [
                one("/sleep?300"),
                one("/hello"),
                one("/status?404"),
                one("/counter"),
            ]
            .concat(),
        );
        let texts: Vec<String> = (0..4).map(|_| raw.answer().unwrap().text()).collect();
        assert_eq!(texts, ["slept\n", "Hello!\n", "status\n", "1"]);
        // With bodies between them.
        let post = |body: &str| {
            format!(
                "POST /echo HTTP/1.1\r\n{HOST}Content-Length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        raw.send(
            [
                post("first"),
                post(""),
                post("GET / HTTP/1.1\r\n\r\n"),
                post("last"),
            ]
            .concat(),
        );
        let texts: Vec<String> = (0..4).map(|_| raw.answer().unwrap().text()).collect();
        assert_eq!(texts, ["first", "", "GET / HTTP/1.1\r\n\r\n", "last"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_may_come_byte_by_byte() {
    with(|listen| {
        let mut raw = Raw::connect(listen);
        let request = format!("POST /echo HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;ext=1\r\n!\r\n0\r\n\r\n");
        for byte in request.bytes() {
            raw.send([byte]);
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(raw.answer().unwrap().text(), "hello!");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn head_is_answered_as_get_without_the_body() {
    with(|listen| {
        let get = answer(listen, &format!("GET /length HTTP/1.1\r\n{HOST}\r\n"));
        assert_eq!(get.header("content-length"), ["7"]);
        let mut raw = Raw::connect(listen);
        for path in ["/length", "/hello", "/big?1", "/trailers"] {
            raw.send(format!(
                "HEAD {path} HTTP/1.1\r\n{HOST}\r\nGET /counter HTTP/1.1\r\n{HOST}\r\n"
            ));
            let head = raw.answer_to("HEAD").unwrap();
            assert_eq!(head.status, 200);
            if path == "/length" {
                assert_eq!(head.header("content-length"), ["7"]);
            }
            // What follows is the next answer, not a body.
            assert_eq!(raw.answer().unwrap().text(), "1", "after HEAD {path}");
        }
        // An error has no body either.
        raw.send(format!(
            "HEAD / HTTP/1.1\r\nHost: nobody.localhost\r\n\r\nGET /counter HTTP/1.1\r\n{HOST}\r\n"
        ));
        assert_eq!(raw.answer_to("HEAD").unwrap().status, 404);
        assert_eq!(raw.answer().unwrap().text(), "1");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn some_answers_have_no_body() {
    with(|listen| {
        let mut raw = Raw::connect(listen);
        for status in [204, 304] {
            // Even if the component writes one.
            for path in ["/no-body", "/status"] {
                raw.send(format!("GET {path}?{status} HTTP/1.1\r\n{HOST}\r\n"));
                let answer = raw.answer().unwrap();
                assert_eq!(answer.status, status);
                assert!(
                    answer.header("transfer-encoding").is_empty(),
                    "{}",
                    answer.head
                );
                if status == 204 {
                    assert!(
                        answer.header("content-length").is_empty(),
                        "{}",
                        answer.head
                    );
                }
                raw.send(format!("GET /counter HTTP/1.1\r\n{HOST}\r\n"));
                assert_eq!(raw.answer().unwrap().text(), "1", "after {path}?{status}");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_come_through() {
    with(|listen| {
        let mut raw = Raw::connect(listen);
        for status in [
            200, 201, 202, 206, 299, 300, 301, 302, 307, 308, 400, 401, 403, 404, 405, 418, 429,
            451, 499, 500, 501, 502, 503, 504, 599,
        ] {
            raw.send(format!("GET /status?{status} HTTP/1.1\r\n{HOST}\r\n"));
            let answer = raw.answer().unwrap();
            assert_eq!(
                (answer.status, answer.text().as_str()),
                (status, "status\n")
            );
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_and_codings_of_answers() {
    with(|listen| {
        let known = answer(listen, &format!("GET /length HTTP/1.1\r\n{HOST}\r\n"));
        assert_eq!(
            (known.header("content-length"), known.text()),
            (vec!["7".to_owned()], "Hello!\n".to_owned())
        );
        assert!(known.header("transfer-encoding").is_empty());
        let unknown = answer(listen, &format!("GET /drip?2 HTTP/1.1\r\n{HOST}\r\n"));
        assert_eq!(unknown.header("transfer-encoding"), ["chunked"]);
        assert!(!unknown.header("date").is_empty(), "{}", unknown.head);
        // HTTP/1.0 knows no chunks: the end of the connection is the end of the body.
        let mut raw = Raw::connect(listen);
        raw.send(format!("GET /drip?2 HTTP/1.0\r\n{HOST}\r\n"));
        let old = raw.answer().unwrap();
        assert!(old.header("transfer-encoding").is_empty(), "{}", old.head);
        assert_eq!(old.text(), "drip\ndrip\n");
        assert!(raw.closes_within(Duration::from_secs(2)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_decides() {
    with(|listen| {
        // The target in absolute form wins over the field.
        let absolute = seen(
            listen,
            "GET http://app.localhost/headers HTTP/1.1\r\nHost: nobody.localhost\r\n\r\n",
        );
        assert_eq!(absolute[0], "0 app.localhost");
        let port = seen(
            listen,
            &format!(
                "GET /headers HTTP/1.1\r\nHost: App.LocalHost:{}\r\n\r\n",
                listen.port()
            ),
        );
        assert!(
            port[0].to_lowercase().starts_with("0 app.localhost"),
            "{}",
            port[0]
        );
        let unknown = answer(listen, "GET / HTTP/1.1\r\nHost: nobody.localhost\r\n\r\n");
        assert_eq!(unknown.status, 404);
        assert_eq!(unknown.header("content-type"), ["application/problem+json"]);
        // HTTP/1.0 without a host names nobody.
        let old = answer(listen, "GET / HTTP/1.0\r\n\r\n");
        assert!(old.status == 404 || old.status == 400, "{}", old.status);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_reach_the_component() {
    with(|listen| {
        // Numbers of `wasi:http`'s methods.
        let methods = [
            ("GET", 0),
            ("POST", 2),
            ("PUT", 3),
            ("DELETE", 4),
            ("OPTIONS", 6),
            ("PATCH", 8),
            ("PURGE", 9),
            ("get", 9),
        ];
        for (method, number) in methods {
            let lines = seen(
                listen,
                &format!("{method} /headers HTTP/1.1\r\n{HOST}Content-Length: 0\r\n\r\n"),
            );
            assert_eq!(lines[0], format!("{number} app.localhost"), "{method}");
        }
        let connect = answer(
            listen,
            &format!("CONNECT app.localhost:80 HTTP/1.1\r\n{HOST}\r\n"),
        );
        assert!((400..=501).contains(&connect.status), "{}", connect.status);
        let star = answer(listen, &format!("OPTIONS * HTTP/1.1\r\n{HOST}\r\n"));
        assert!(star.status < 500, "{}", star.status);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_reach_the_component_as_they_are() {
    with(|listen| {
        for path in [
            "/a/../hello",
            "//hello",
            "/hello/",
            "/%68ello",
            "/hello;x",
            "/hello#x",
        ] {
            let answer = answer(listen, &format!("GET {path} HTTP/1.1\r\n{HOST}\r\n"));
            // Nothing is made of them on the way: none is `/hello` to the component.
            assert!(
                answer.status == 404 || answer.status == 400 || path.contains('#'),
                "{path}: {}",
                answer.text()
            );
        }
        let long = format!("/hello?{}", "9".repeat(6000));
        assert_eq!(
            answer(listen, &format!("GET {long} HTTP/1.1\r\n{HOST}\r\n")).status,
            200
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_of_the_connection_stay_on_it() {
    with(|listen| {
        let lines = seen(
            listen,
            &format!(
                "GET /headers HTTP/1.1\r\n{HOST}Connection: x-private, keep-alive\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\
                 TE: trailers, deflate\r\nUpgrade: websocket\r\nX-Kept: first\r\nx-kept: second\r\nX-Empty:\r\n\r\n"
            ),
        );
        let names: Vec<&str> = lines[1..].iter().map(|line| line.split(':').next().unwrap()).collect();
        for hop in ["connection", "x-private", "keep-alive", "proxy-connection", "upgrade", "transfer-encoding", "host"] {
            assert!(!names.contains(&hop), "{hop} came through: {lines:?}");
        }
        let te: Vec<_> = lines.iter().filter(|l| l.starts_with("te:")).collect();
        assert!(te.is_empty() || te == ["te: trailers"], "{te:?}");
        for kept in ["x-kept: first", "x-kept: second", "x-empty: "] {
            assert!(lines.iter().any(|l| l == kept), "no {kept:?}: {lines:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_is_said_by_the_node_alone() {
    with(|listen| {
        let lines = seen(
            listen,
            &format!(
                "GET /headers HTTP/1.1\r\n{HOST}X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: gopher\r\nX-Forwarded-Host: evil.example\r\nForwarded: for=6.6.6.6;host=evil\r\n\
                 X-Real-IP: 6.6.6.6\r\n\r\n"
            ),
        );
        let all = |name: &str| lines.iter().filter_map(|l| l.strip_prefix(&format!("{name}: "))).collect::<Vec<_>>();
        assert_eq!(all("x-forwarded-for"), ["127.0.0.1"], "{lines:?}");
        assert_eq!(all("x-forwarded-proto"), ["http"]);
        assert_eq!(all("x-forwarded-host"), ["app.localhost"]);
        let forwarded = all("forwarded");
        assert!(forwarded.iter().all(|value| !value.contains("6.6.6.6") && !value.contains("evil")), "{forwarded:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_has_an_id() {
    with(|listen| {
        let first = answer(listen, &format!("GET /headers HTTP/1.1\r\n{HOST}\r\n"));
        let second = answer(listen, &format!("GET /headers HTTP/1.1\r\n{HOST}\r\n"));
        let (id, other) = (first.header("x-request-id"), second.header("x-request-id"));
        assert_eq!(id.len(), 1, "{}", first.head);
        assert_ne!(id, other);
        assert!(
            first.text().contains(&format!("x-request-id: {}", id[0])),
            "the component has another: {}",
            first.text()
        );
        // Errors have one too, and say it.
        let error = answer(
            listen,
            &format!("GET /trap/unreachable HTTP/1.1\r\n{HOST}\r\n"),
        );
        assert!(
            error.text().contains(&error.header("x-request-id")[0]),
            "{}",
            error.text()
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expectations() {
    with(|listen| {
        // The component reads: go on.
        let mut raw = Raw::connect(listen);
        raw.send(format!(
            "POST /echo HTTP/1.1\r\n{HOST}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        ));
        assert_eq!(raw.head().unwrap().status, 100);
        raw.send("hello");
        let answer = raw.answer().unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
        // No body will be read: the final answer comes without waiting for it.
        for head in [
            "POST / HTTP/1.1\r\nHost: nobody.localhost\r\n".to_owned(),
            "POST /count HTTP/1.1\r\nHost: small.localhost\r\n".to_owned(),
        ] {
            let mut raw = Raw::connect(listen);
            raw.send(format!(
                "{head}Expect: 100-continue\r\nContent-Length: 2000000\r\n\r\n"
            ));
            let first = raw.head().unwrap();
            assert!(first.status == 404 || first.status == 413, "{}", first.head);
        }
        // A client that does not wait.
        let mut raw = Raw::connect(listen);
        raw.send(format!(
            "POST /echo HTTP/1.1\r\n{HOST}Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello"
        ));
        assert_eq!(raw.answer().unwrap().text(), "hello");
        // Another expectation may be refused or ignored, and nothing else.
        let odd = exchange(
            listen,
            format!("GET /hello HTTP/1.1\r\n{HOST}Expect: miracles\r\n\r\n"),
        )
        .unwrap();
        assert!([200, 417].contains(&odd.status), "{}", odd.status);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrades_do_not_happen() {
    with(|listen| {
        for upgrade in [
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
        ] {
            let mut raw = Raw::connect(listen);
            raw.send(format!("GET /hello HTTP/1.1\r\n{HOST}{upgrade}\r\n"));
            let first = raw.head().unwrap();
            assert_ne!(first.status, 101, "{}", first.head);
            assert!(first.status == 200 || first.status >= 400, "{}", first.head);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_both_ways() {
    with(|listen| {
        let answer_1 = answer(listen, &format!("GET /trailers HTTP/1.1\r\n{HOST}TE: trailers\r\n\r\n"));
        assert_eq!(answer_1.text(), "trailers follow\n");
        assert_eq!(answer_1.trailers.to_lowercase(), "x-check: 16 bytes\r\n");
        let without = answer(listen, &format!("GET /trailers HTTP/1.1\r\n{HOST}\r\n"));
        assert_eq!(without.text(), "trailers follow\n");
        let mut raw = Raw::connect(listen);
        raw.send(format!(
            "POST /echo HTTP/1.1\r\n{HOST}TE: trailers\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nx-sum: 42\r\n\r\n"
        ));
        assert_eq!(raw.answer().unwrap().text(), "body");
        // The connection is at the right place after them.
        raw.send(format!("GET /counter HTTP/1.1\r\n{HOST}\r\n"));
        assert_eq!(raw.answer().unwrap().text(), "1");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_app_says_so() {
    let listen = node().await.listen;
    // One runs, one waits, the third is refused.
    let lanes = (0..3).map(|_| async move {
        let mut raw = cloister_tests::client::Connection::h1(listen)
            .await
            .unwrap();
        raw.get("small.localhost", "/sleep?1500").await
    });
    let answers = futures_util::future::join_all(lanes).await;
    let served = answers.iter().filter(|a| a.status == 200).count();
    let refused: Vec<_> = answers.iter().filter(|a| a.status != 200).collect();
    assert_eq!((served, refused.len()), (2, 1), "{answers:?}");
    assert_eq!(
        (refused[0].status.as_u16(), refused[0].problem().as_str()),
        (503, "too-many-requests-in-flight")
    );
    assert!(!refused[0].header("retry-after").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_gone_is_not_served() {
    let listen = node().await.listen;
    // `one` runs one request at a time: if the first went on, the next would wait for it.
    for version in ["1.1", "1.0"] {
        tokio::task::spawn_blocking(move || {
            let mut raw = Raw::connect(listen);
            raw.send(format!(
                "GET /drip?200 HTTP/{version}\r\nHost: one.localhost\r\n\r\n"
            ));
            assert_eq!(raw.head().unwrap().status, 200);
        })
        .await
        .unwrap();
        let what = "the turn after a request whose client is gone";
        cloister_tests::wait::until(Duration::from_secs(4), what, || async {
            let answer = cloister_tests::client::get(listen, "one.localhost", "/counter")
                .await
                .unwrap();
            (answer.text() == "1").then_some(())
        })
        .await;
    }
}
