//! HTTP/1.1 requests that want to be misunderstood: each is refused, and what follows it is no request.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cloister_tests::Node;
use cloister_tests::fixture::probe;
use cloister_tests::raw::Raw;
use serde_json::json;
use tokio::sync::OnceCell;

const EXE: &str = env!("CARGO_BIN_EXE_cloister-node");
const HOST: &str = "Host: app.localhost\r\n";

/// What an attacker would like to be taken for a request of its own. `/print` would show in the log.
const SMUGGLED: &str = "GET /print HTTP/1.1\r\nHost: app.localhost\r\n\r\n";

async fn node() -> &'static Node {
    static NODE: OnceCell<Node> = OnceCell::const_new();
    NODE.get_or_init(|| async {
        let node = Node::start(EXE).await;
        node.deploy("app", probe()).done().await;
        node.deploy("small", probe())
            .limits(
                json!({ "request_body_bytes": 100_000, "head_bytes": 8192, "header_count": 50 }),
            )
            .done()
            .await;
        node
    })
    .await
}

async fn with(test: impl FnOnce(SocketAddr) + Send + 'static) {
    let listen = node().await.listen;
    tokio::task::spawn_blocking(move || test(listen))
        .await
        .unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()));
    assert_eq!(
        node().await.get("app", "/counter").await.text(),
        "1",
        "the node after it"
    );
}

/// The request is answered with one of these statuses, the connection then closed, and nothing after it answered.
fn refused(listen: SocketAddr, request: &str, statuses: &[u16]) {
    let mut raw = Raw::connect(listen);
    raw.send(request);
    let short: String = request.chars().take(200).collect();
    // Closed without a word is as good.
    if let Some(answer) = raw.answer() {
        assert!(
            statuses.contains(&answer.status),
            "{short:?}: {}{}",
            answer.head,
            answer.text()
        );
        if let Some(second) = raw.head() {
            panic!("{short:?}: a second answer: {}", second.head);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_lengths_smuggle_nothing() {
    with(|listen| {
        let chunked_then_more = format!("0\r\n\r\n{SMUGGLED}");
        let len = chunked_then_more.len();
        for fields in [
            format!("Content-Length: {len}\r\nTransfer-Encoding: chunked\r\n"),
            format!("Transfer-Encoding: chunked\r\nContent-Length: {len}\r\n"),
            format!("Content-Length: {len}\r\nTransfer-Encoding: xchunked\r\n"),
            format!("Content-Length: {len}\r\nTransfer-Encoding : chunked\r\n"),
            format!("Content-Length: {len}\r\nTransfer-Encoding:\tchunked\r\n"),
            format!("Content-Length: {len}\r\nTransfer-Encoding: \x0bchunked\r\n"),
            format!("Content-Length: {len}\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
            format!("Content-Length: {len}\r\n Transfer-Encoding: chunked\r\n"),
            format!("Content-Length: {len}\r\nX: x\nTransfer-Encoding: chunked\r\n"),
        ] {
            let mut raw = Raw::connect(listen);
            raw.send(format!("POST /echo HTTP/1.1\r\n{HOST}{fields}\r\n{chunked_then_more}"));
            match raw.answer() {
                // Refused is best. If the coding is believed the length must be forgotten and the
                // connection ended (RFC 9112, 6.1): then the rest is never read.
                Some(answer) if answer.status == 200 => {
                    assert!(answer.body.is_empty(), "{fields:?}: the length was believed");
                    assert!(raw.head().is_none(), "{fields:?}: the rest was answered");
                }
                Some(answer) => {
                    assert!([400, 501].contains(&answer.status), "{fields:?}: {}", answer.head);
                    assert!(raw.head().is_none(), "{fields:?}: the rest was answered");
                }
                None => {}
            }
        }
    })
    .await;
    let node = node().await;
    let log = node
        .admin
        .call(
            "GET",
            "/v1/tenants/default/apps/app/logs?tail=100",
            "application/json",
            cloister_tests::client::empty(),
        )
        .await;
    assert!(
        !log.text().contains("a line to stdout"),
        "a smuggled request ran"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_that_are_no_lengths() {
    with(|listen| {
        for length in [
            "-1",
            "+5",
            "0x5",
            "5 5",
            "5, 6",
            "5;5",
            "",
            " ",
            "five",
            "5.0",
            "1e1",
            "18446744073709551616",
            "99999999999999999999999999",
            "5\r\nContent-Length: 6",
            "٥",
        ] {
            refused(
                listen,
                &format!(
                    "POST /echo HTTP/1.1\r\n{HOST}Content-Length: {length}\r\n\r\nhello{SMUGGLED}"
                ),
                &[400, 413],
            );
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn codings_that_are_no_codings() {
    with(|listen| {
        for coding in ["identity", "gzip", "gzip, chunked", "chunked, gzip", "chunked, chunked", "chunked;x=1", "\"chunked\"", "chunke", "chunked\r\nTransfer-Encoding: chunked", ""] {
            refused(listen, &format!("POST /count HTTP/1.1\r\n{HOST}Transfer-Encoding: {coding}\r\n\r\n0\r\n\r\n{SMUGGLED}"), &[400, 501]);
        }
        // HTTP/1.0 has no chunks (RFC 9112, 6.1: treat the framing as faulty and close).
        let mut raw = Raw::connect(listen);
        raw.send(format!("POST /count HTTP/1.0\r\n{HOST}Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n{SMUGGLED}"));
        let _ = raw.answer();
        assert!(raw.head().is_none(), "the rest was answered");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_are_no_chunks() {
    with(|listen| {
        for body in [
            "zz\r\nhello\r\n0\r\n\r\n",
            "-5\r\nhello\r\n0\r\n\r\n",
            "+5\r\nhello\r\n0\r\n\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            "5 5\r\nhello\r\n0\r\n\r\n",
            "\r\nhello\r\n0\r\n\r\n",
            "5\r\nhelloX\r\n0\r\n\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\rhello\r\n0\r\n\r\n",
            "10000000000000005\r\nhello\r\n0\r\n\r\n",
            "FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
            "fffffffffffffffe\r\nhello\r\n0\r\n\r\n",
            "5;\0\r\nhello\r\n0\r\n\r\n",
        ] {
            let mut raw = Raw::connect(listen);
            raw.patience(Duration::from_secs(20));
            raw.send(format!(
                "POST /count HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{body}{SMUGGLED}"
            ));
            // No more comes: a size that cannot be met must not be waited for, nor the rest be answered.
            raw.finish();
            if let Some(answer) = raw.answer() {
                assert!(
                    [400, 413, 502].contains(&answer.status),
                    "{body:?}: {}{}",
                    answer.head,
                    answer.text()
                );
                assert!(raw.head().is_none(), "{body:?}: the rest was answered");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_chunk_extensions_and_trailers_end() {
    with(|listen| {
        for endless in [
            ("5;x=", "y".repeat(1024)),
            ("0\r\n", format!("x-trailer: {}\r\n", "y".repeat(1000))),
        ] {
            let mut raw = Raw::connect(listen);
            raw.send(format!(
                "POST /count HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{}",
                endless.0
            ));
            let mut sent = 0;
            while sent < 32 << 20 && raw.try_send(&endless.1) {
                sent += endless.1.len();
            }
            assert!(sent < 32 << 20, "{:?}: 32 MiB were taken", endless.0);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_are_no_lines() {
    with(|listen| {
        for head in [
            format!("GET /hello HTTP/1.1\r\n{HOST}X-A: 1\r\n folded\r\n\r\n"),
            format!("GET /hello HTTP/1.1\r\n{HOST}X-A: 1\r\n\tfolded\r\n\r\n"),
            format!("GET /hello HTTP/1.1\r\n first: x\r\n{HOST}\r\n"),
            format!("GET /hello HTTP/1.1\r\n{HOST}X-A : 1\r\n\r\n"),
            format!("GET /hello HTTP/1.1\r\n{HOST}X A: 1\r\n\r\n"),
            format!("GET /hello HTTP/1.1\r\n{HOST}no colon\r\n\r\n"),
            format!("GET /hello HTTP/1.1\r\n{HOST}: no name\r\n\r\n"),
            format!("GET /hello HTTP/1.1\r\n{HOST}X-A: a\0b\r\n\r\n"),
            format!("GET /hello HTTP/1.1\r\n{HOST}X-A: a\rb\r\n\r\n"),
            format!("GET /hello HTTP/1.1\r\n{HOST}X-\u{e4}: a\r\n\r\n"),
            format!("GET /hello\r\n{HOST}\r\n"),
            format!("GET  /hello HTTP/1.1\r\n{HOST}\r\n"),
            format!("GET /hello  HTTP/1.1\r\n{HOST}\r\n"),
            format!("GET /hel lo HTTP/1.1\r\n{HOST}\r\n"),
            format!("GET hello HTTP/1.1\r\n{HOST}\r\n"),
            format!("GET /he\0llo HTTP/1.1\r\n{HOST}\r\n"),
            format!("G\u{e4}T /hello HTTP/1.1\r\n{HOST}\r\n"),
            format!("GET /hello HTTP/1.2.3\r\n{HOST}\r\n"),
            format!("GET /hello HTTP/9.9\r\n{HOST}\r\n"),
            format!("GET /hello HTTPS/1.1\r\n{HOST}\r\n"),
            format!("GET /hello HTTP/2.0\r\n{HOST}\r\n"),
            format!("\0\0\0 /hello HTTP/1.1\r\n{HOST}\r\n"),
            "\x16\x03\x01\x02\x00\x01\x00\x01\x03\x03\r\n\r\n".to_owned(),
        ] {
            refused(listen, &format!("{head}{SMUGGLED}"), &[400, 404, 501, 505]);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_are_no_hosts() {
    with(|listen| {
        let one = |head: &str| {
            let mut raw = Raw::connect(listen);
            raw.send(head);
            raw.answer().map(|answer| answer.status)
        };
        // RFC 9112, 3.2: none, more than one, or an invalid one is a 400.
        assert_eq!(one("GET /hello HTTP/1.1\r\n\r\n"), Some(400));
        assert_eq!(
            one(&format!("GET /hello HTTP/1.1\r\n{HOST}{HOST}\r\n")),
            Some(400)
        );
        assert_eq!(
            one(&format!(
                "GET /hello HTTP/1.1\r\n{HOST}Host: small.localhost\r\n\r\n"
            )),
            Some(400)
        );
        for host in [
            "",
            "app.localhost, small.localhost",
            "app.localhost/x",
            "user@app.localhost",
            "app.localhost:port",
            "app .localhost",
            "app.localhost:99999999",
            "[app.localhost]",
        ] {
            let status = one(&format!("GET /hello HTTP/1.1\r\nHost: {host}\r\n\r\n")).unwrap();
            assert!([400, 404].contains(&status), "{host:?}: {status}");
        }
        // Nor can the target's host differ unnoticed: the target counts.
        assert_eq!(
            one("GET http://nobody.localhost/hello HTTP/1.1\r\nHost: app.localhost\r\n\r\n"),
            Some(404)
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_too_large() {
    with(|listen| {
        let value = "y".repeat(9000);
        for (head, statuses) in [
            (
                format!("GET /hello HTTP/1.1\r\nHost: small.localhost\r\nX-Long: {value}\r\n\r\n"),
                &[431][..],
            ),
            (
                format!(
                    "GET /hello HTTP/1.1\r\nHost: small.localhost\r\n{}\r\n",
                    "X-Many: 1\r\n".repeat(60)
                ),
                &[431],
            ),
            (
                format!("GET /hello?{value} HTTP/1.1\r\nHost: small.localhost\r\n\r\n"),
                &[414, 431],
            ),
            (
                format!(
                    "GET /hello HTTP/1.1\r\n{HOST}X-Long: {}\r\n\r\n",
                    "y".repeat(300 << 10)
                ),
                &[431, 400],
            ),
            (
                format!(
                    "GET /hello HTTP/1.1\r\n{HOST}{}\r\n",
                    "X-Many: 1\r\n".repeat(2000)
                ),
                &[431, 400],
            ),
            (
                format!(
                    "GET /hello?{} HTTP/1.1\r\n{HOST}\r\n",
                    "y".repeat(300 << 10)
                ),
                &[414, 431, 400],
            ),
        ] {
            let mut raw = Raw::connect(listen);
            raw.send(&head);
            let answer = raw.answer();
            let short: String = head.chars().take(60).collect();
            assert!(
                answer
                    .as_ref()
                    .is_some_and(|a| statuses.contains(&a.status)),
                "{short:?}: {answer:?}"
            );
        }
        // Within the limits it is well.
        let mut raw = Raw::connect(listen);
        raw.send(format!(
            "GET /hello HTTP/1.1\r\nHost: small.localhost\r\nX-Long: {}\r\n\r\n",
            "y".repeat(7000)
        ));
        assert_eq!(raw.answer().unwrap().status, 200);
        // A head without an end is not gathered for ever.
        let mut raw = Raw::connect(listen);
        raw.send(format!("GET /hello HTTP/1.1\r\n{HOST}X-Long: "));
        let mut sent = 0;
        let piece = "y".repeat(16 << 10);
        while sent < 32 << 20 && raw.try_send(&piece) {
            sent += piece.len();
        }
        assert!(sent < 32 << 20, "32 MiB of one field were taken");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_too_long() {
    with(|listen| {
        let mut raw = Raw::connect(listen);
        raw.send("POST /count HTTP/1.1\r\nHost: small.localhost\r\nContent-Length: 100001\r\n\r\n");
        let answer = raw.answer().unwrap();
        assert_eq!(answer.status, 413, "{}", answer.head);
        assert!(
            answer.text().contains("request_body_bytes"),
            "{}",
            answer.text()
        );
        // In chunks it shows only later.
        let mut raw = Raw::connect(listen);
        raw.send(
            "POST /count HTTP/1.1\r\nHost: small.localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        let chunk = format!("2710\r\n{}\r\n", "x".repeat(10_000));
        for _ in 0..11 {
            raw.send(&chunk);
        }
        if let Some(answer) = raw.answer() {
            assert_eq!(answer.status, 413, "{}", answer.head);
        }
        // As long as may be.
        let mut raw = Raw::connect(listen);
        raw.send(format!(
            "POST /count HTTP/1.1\r\nHost: small.localhost\r\nContent-Length: 100000\r\n\r\n{}",
            "x".repeat(100_000)
        ));
        assert_eq!(raw.answer().unwrap().text(), "100000");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_early_is_no_body() {
    with(|listen| {
        for body in [
            "Content-Length: 100\r\n\r\nhalf",
            "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            "Transfer-Encoding: chunked\r\n\r\n64\r\nhalf",
        ] {
            let mut raw = Raw::connect(listen);
            raw.send(format!("POST /count HTTP/1.1\r\n{HOST}{body}"));
            raw.finish();
            // To the component the body failed; `/count` then answers what it had. The client, if it
            // still listens, may see that or an error: never a hang.
            let begin = Instant::now();
            let _ = raw.answer();
            assert!(
                begin.elapsed() < Duration::from_secs(10),
                "{body:?}: {:?}",
                begin.elapsed()
            );
        }
        // Gone altogether.
        for _ in 0..20 {
            let mut raw = Raw::connect(listen);
            raw.send(format!(
                "POST /echo HTTP/1.1\r\n{HOST}Content-Length: 1000000\r\n\r\nhalf"
            ));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_dawdles_is_let_go() {
    with(|listen| {
        // A head that never ends, and a connection that says nothing at all.
        let mut slow = Raw::connect(listen);
        slow.send("GET /hello HTTP/1.1\r\n");
        let mut others: Vec<Raw> = (0..50).map(|_| Raw::connect(listen)).collect();
        for other in &mut others {
            other.send("GET /hello HTTP/1.1\r\nHost: app");
        }
        let begin = Instant::now();
        let mut closed = false;
        while begin.elapsed() < Duration::from_secs(75) && !closed {
            slow.send("X-Slow: 1\r\n");
            closed = slow.closes_within(Duration::from_secs(1));
        }
        assert!(
            closed,
            "a head that never ended was waited for for {:?}",
            begin.elapsed()
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_lines_before_a_request_are_forgiven() {
    with(|listen| {
        // RFC 9112, 2.2: a server should ignore at least one.
        let mut raw = Raw::connect(listen);
        raw.send(format!("\r\nGET /hello HTTP/1.1\r\n{HOST}\r\n"));
        assert_eq!(raw.answer().unwrap().text(), "Hello!\n");
        raw.send(format!("\r\n\r\nGET /hello HTTP/1.1\r\n{HOST}\r\n"));
        assert_eq!(raw.answer().unwrap().text(), "Hello!\n");
    })
    .await;
}
