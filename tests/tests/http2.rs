//! HTTP/2 without TLS: what a client library sends, and frames that none would.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::net::SocketAddr;
use std::time::Duration;

use cloister_tests::Node;
use cloister_tests::client::{Connection, empty, full};
use cloister_tests::fixture::probe;
use cloister_tests::frames::{END_HEADERS, END_STREAM, Frames, Refused, block, get, kind};
use cloister_tests::wait::within;
use http::HeaderValue;
use serde_json::json;
use tokio::sync::OnceCell;

const EXE: &str = env!("CARGO_BIN_EXE_cloister-node");
const HOST: &str = "app.localhost";

/// Error codes of RFC 9113, 7.
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;

async fn node() -> &'static Node {
    static NODE: OnceCell<Node> = OnceCell::const_new();
    NODE.get_or_init(|| async {
        let node = Node::start(EXE).await;
        node.deploy("app", probe()).done().await;
        node.deploy("one", probe())
            .limits(json!({ "concurrency": 1 }))
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

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_bodies() {
    let mut h2 = Connection::h2(node().await.listen).await.unwrap();
    let answer = h2.get(HOST, "/hello").await;
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (200, "Hello!\n")
    );
    assert!(!answer.header("x-request-id").is_empty());
    for hop in ["connection", "transfer-encoding", "keep-alive"] {
        assert!(answer.headers.get(hop).is_none(), "{hop}: {answer:?}");
    }
    let request = h2.request("POST", HOST, "/echo", full("a body"));
    assert_eq!(h2.call(request).await.unwrap().text(), "a body");
    let mut request = h2.request("GET", HOST, "/headers", empty());
    request
        .headers_mut()
        .append("x-two", HeaderValue::from_static("a"));
    request
        .headers_mut()
        .append("x-two", HeaderValue::from_static("b"));
    request
        .headers_mut()
        .insert("x-forwarded-for", HeaderValue::from_static("6.6.6.6"));
    let text = h2.call(request).await.unwrap().text();
    assert!(text.starts_with("0 app.localhost\n"), "{text}");
    assert!(text.contains("x-two: a\nx-two: b\n"), "{text}");
    assert!(
        text.contains("x-forwarded-for: 127.0.0.1\n") && !text.contains("6.6.6.6"),
        "{text}"
    );
    for (path, status) in [
        ("/status?204", 204),
        ("/status?304", 304),
        ("/status?418", 418),
        ("/trap/unreachable", 500),
    ] {
        assert_eq!(h2.get(HOST, path).await.status, status, "{path}");
    }
    assert_eq!(
        h2.get("nobody.localhost", "/").await.problem(),
        "app-not-found"
    );
    let request = h2.request("HEAD", HOST, "/length", empty());
    let head = h2.call(request).await.unwrap();
    assert_eq!(
        (head.header("content-length").as_str(), head.body.len()),
        ("7", 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers() {
    let mut h2 = Connection::h2(node().await.listen).await.unwrap();
    let mut request = h2.request("GET", HOST, "/trailers", empty());
    request
        .headers_mut()
        .insert("te", HeaderValue::from_static("trailers"));
    let answer = h2.call(request).await.unwrap();
    assert_eq!(answer.text(), "trailers follow\n");
    assert_eq!(answer.trailers.unwrap()["x-check"], "16 bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_do_not_wait_for_each_other() {
    let h2 = Connection::h2(node().await.listen).await.unwrap();
    let slow = (0..10).map(|_| {
        let mut stream = h2.another();
        tokio::spawn(async move { stream.get(HOST, "/sleep?4000").await.text() })
    });
    let slow: Vec<_> = slow.collect();
    let quick = (0..60).map(|_| {
        let mut stream = h2.another();
        async move { stream.get(HOST, "/counter").await.text() }
    });
    for text in futures_util::future::join_all(quick).await {
        assert_eq!(text, "1");
    }
    assert!(slow.iter().all(|stream| !stream.is_finished()));
    for stream in slow {
        assert_eq!(stream.await.unwrap(), "slept\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_reset_is_given_up() {
    let listen = node().await.listen;
    let mut h2 = Connection::h2(listen).await.unwrap();
    for _ in 0..3 {
        let mut stream = h2.another();
        let request = stream.request("GET", "one.localhost", "/endless", empty());
        let response = stream.send(request).await.unwrap();
        drop(response);
        // `one` runs one request at a time.
        let answer = within(
            Duration::from_secs(5),
            "the turn after a reset stream",
            h2.get("one.localhost", "/counter"),
        )
        .await;
        assert_eq!(answer.text(), "1");
    }
}

/// Field sections that RFC 9113, 8 calls malformed: a stream error of the type PROTOCOL_ERROR.
#[tokio::test(flavor = "multi_thread")]
async fn malformed_heads() {
    with(|listen| {
        let more = |name: &'static str, value: &'static str| {
            let mut fields = get(HOST, "/hello");
            fields.push((name, value));
            fields
        };
        let without = |name: &str| {
            get(HOST, "/hello")
                .into_iter()
                .filter(|f| f.0 != name)
                .collect::<Vec<_>>()
        };
        for fields in [
            more("connection", "close"),
            more("keep-alive", "timeout=5"),
            more("proxy-connection", "close"),
            more("transfer-encoding", "chunked"),
            more("upgrade", "websocket"),
            more("te", "gzip"),
            more("X-Upper", "1"),
            more("x-crlf", "a\r\nx-injected: 1"),
            more("x-nul", "a\0b"),
            more("x name", "1"),
            more("", "1"),
            more(":unknown", "1"),
            more(":status", "200"),
            more(":path", "/again"),
            more("host", "nobody.localhost"),
            without(":method"),
            without(":scheme"),
            without(":path"),
            vec![
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", HOST),
                (":path", ""),
            ],
            vec![
                (":method", "GET"),
                (":scheme", "http"),
                ("x-a", "1"),
                (":authority", HOST),
                (":path", "/hello"),
            ],
            vec![
                (":method", "G T"),
                (":scheme", "http"),
                (":authority", HOST),
                (":path", "/hello"),
            ],
        ] {
            let mut h2 = Frames::connect(listen);
            h2.request(1, &fields, true);
            let refused = h2.refusal(1);
            let fair = matches!(
                refused,
                Refused::Stream(PROTOCOL_ERROR)
                    | Refused::Connection(PROTOCOL_ERROR)
                    | Refused::Answered
            );
            assert!(fair, "{fields:?}: {refused:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_must_be_true() {
    with(|listen| {
        for (length, sent) in [
            ("5", "hello!"),
            ("5", "hell"),
            ("x", "hello"),
            ("-1", ""),
            ("5, 6", "hello"),
        ] {
            let mut h2 = Frames::connect(listen);
            let mut fields = vec![
                (":method", "POST"),
                (":scheme", "http"),
                (":authority", HOST),
                (":path", "/count"),
            ];
            fields.push(("content-length", length));
            h2.request(1, &fields, false);
            h2.send(kind::DATA, END_STREAM, 1, sent.as_bytes());
            let refused = h2.refusal(1);
            assert!(
                matches!(refused, Refused::Stream(PROTOCOL_ERROR) | Refused::Answered),
                "{length}: {refused:?}"
            );
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_where_none_may_be() {
    with(|listen| {
        let connection_error = |what: &str, code: &[u32], send: &dyn Fn(&mut Frames)| {
            let mut h2 = Frames::connect(listen);
            send(&mut h2);
            match h2.refusal(1) {
                Refused::Connection(got) => assert!(code.contains(&got), "{what}: code {got}"),
                Refused::Closed => {}
                other => panic!("{what}: {other:?}"),
            }
        };
        let p = &[PROTOCOL_ERROR][..];
        // The library beneath names a length that cannot be either way; the connection ends in both.
        let size = &[FRAME_SIZE_ERROR, PROTOCOL_ERROR][..];
        connection_error("DATA on stream 0", p, &|h| {
            _ = h.send(kind::DATA, 0, 0, b"x")
        });
        connection_error("HEADERS on stream 0", p, &|h| {
            _ = h.request(0, &get(HOST, "/hello"), true)
        });
        connection_error("DATA on an idle stream", p, &|h| {
            _ = h.send(kind::DATA, 0, 5, b"x")
        });
        connection_error("an even stream", p, &|h| {
            _ = h.request(2, &get(HOST, "/hello"), true)
        });
        connection_error("SETTINGS on a stream", p, &|h| {
            _ = h.send(kind::SETTINGS, 0, 1, &[])
        });
        connection_error("SETTINGS of 5 bytes", size, &|h| {
            _ = h.send(kind::SETTINGS, 0, 0, &[0; 5])
        });
        connection_error("PING of 7 bytes", size, &|h| {
            _ = h.send(kind::PING, 0, 0, &[0; 7])
        });
        connection_error("PING on a stream", p, &|h| {
            _ = h.send(kind::PING, 0, 1, &[0; 8])
        });
        connection_error("GOAWAY on a stream", p, &|h| {
            _ = h.send(kind::GOAWAY, 0, 1, &[0; 8])
        });
        connection_error("PUSH_PROMISE of a client", p, &|h| {
            _ = h.send(kind::PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])
        });
        connection_error("CONTINUATION out of the blue", p, &|h| {
            _ = h.send(kind::CONTINUATION, END_HEADERS, 1, &[])
        });
        connection_error("a window of 0 on the connection", p, &|h| {
            _ = h.send(kind::WINDOW_UPDATE, 0, 0, &[0; 4])
        });
        connection_error("a window above its limit", &[FLOW_CONTROL_ERROR], &|h| {
            for _ in 0..2 {
                h.send(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]);
            }
        });
        let compression = &[COMPRESSION_ERROR, PROTOCOL_ERROR][..];
        connection_error("a header block that is none", compression, &|h| {
            _ = h.send(kind::HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 20])
        });
        connection_error("a frame of 1 MiB", size, &|h| {
            _ = h.send(kind::DATA, 0, 1, &vec![0; 1 << 20])
        });
        connection_error("a stream id that goes back", &[PROTOCOL_ERROR, 5], &|h| {
            h.request(5, &get(HOST, "/hello"), true);
            h.request(3, &get(HOST, "/hello"), true);
        });
        connection_error("another frame between HEADERS and CONTINUATION", p, &|h| {
            h.send(kind::HEADERS, 0, 1, &block(&get(HOST, "/hello")));
            h.send(kind::PING, 0, 0, &[0; 8]);
        });
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_must_answer() {
    with(|listen| {
        let mut h2 = Frames::connect(listen);
        h2.send(kind::PING, 0, 0, b"12345678");
        let pong = h2.wait_for(kind::PING).unwrap();
        assert_eq!(
            (pong.flags, pong.payload.as_slice()),
            (END_STREAM, &b"12345678"[..])
        );
        // An unknown type of frame and unknown settings are ignored.
        h2.send(0x77, 0, 0, b"what");
        h2.send(kind::SETTINGS, 0, 0, &[0x77, 0x77, 0, 0, 0, 1]);
        h2.request(1, &get(HOST, "/hello"), true);
        assert!(h2.is_ok(1));
        // A header block in several frames.
        let block = block(&get(HOST, "/hello"));
        h2.send(kind::HEADERS, END_STREAM, 3, &block[..10]);
        h2.send(kind::CONTINUATION, 0, 3, &block[10..20]);
        h2.send(kind::CONTINUATION, END_HEADERS, 3, &block[20..]);
        assert!(h2.is_ok(3));
        // The host may come as a field.
        h2.request(
            5,
            &[
                (":method", "GET"),
                (":scheme", "http"),
                (":path", "/hello"),
                ("host", HOST),
            ],
            true,
        );
        assert!(h2.is_ok(5));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_large() {
    with(|listen| {
        let mut h2 = Frames::connect(listen);
        let value = "y".repeat(15_000);
        let mut fields = get(HOST, "/hello");
        fields.extend((0..8).map(|_| ("x-long", value.as_str())));
        let block = block(&fields);
        let pieces: Vec<&[u8]> = block.chunks(16_000).collect();
        h2.send(kind::HEADERS, END_STREAM, 1, pieces[0]);
        for (i, piece) in pieces[1..].iter().enumerate() {
            let last = i + 2 == pieces.len();
            h2.send(
                kind::CONTINUATION,
                if last { END_HEADERS } else { 0 },
                1,
                piece,
            );
        }
        let refused = h2.refusal(1);
        assert!(!matches!(refused, Refused::Closed), "{refused:?}");
        // Without an end it is not gathered.
        let mut h2 = Frames::connect(listen);
        h2.send(kind::HEADERS, END_STREAM, 1, &block[..100]);
        let filler = cloister_tests::frames::block(&[("x-long", &value)]);
        let sent = (0..3000)
            .take_while(|_| h2.send(kind::CONTINUATION, 0, 1, &filler))
            .count();
        assert!(sent < 3000, "45 MB of one head were taken");
        // Nor as empty frames.
        let mut h2 = Frames::connect(listen);
        h2.send(kind::HEADERS, END_STREAM, 1, &block[..100]);
        let sent = (0..2_000_000)
            .take_while(|_| h2.send(kind::CONTINUATION, 0, 1, &[]))
            .count();
        assert!(sent < 2_000_000, "2,000,000 empty frames were taken");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_opened_and_reset_at_once() {
    let node = node().await;
    let listen = node.listen;
    let flood = tokio::task::spawn_blocking(move || {
        for _ in 0..3 {
            let mut h2 = Frames::connect(listen);
            for n in 0..4000 {
                let stream = 2 * n + 1;
                let fine = h2.request(stream, &get(HOST, "/work?20"), true)
                    && h2.send(kind::RST_STREAM, 0, stream, &[0, 0, 0, 8]);
                if !fine {
                    break;
                }
            }
        }
    });
    for _ in 0..10 {
        let answer = within(
            Duration::from_secs(20),
            "an answer beside a flood of resets",
            node.get("app", "/counter"),
        )
        .await;
        assert!(answer.text() == "1" || answer.status == 503, "{answer:?}");
    }
    flood.await.unwrap();
    node.served_again("app", Duration::from_secs(20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_of_zero_holds_back_and_no_more() {
    let node = node().await;
    let listen = node.listen;
    let flood = tokio::task::spawn_blocking(move || {
        // A client that takes nothing, on many streams.
        let mut h2 = Frames::connect(listen);
        h2.send(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
        for n in 0..50 {
            h2.request(2 * n + 1, &get(HOST, "/big?64"), true);
        }
        std::thread::sleep(Duration::from_secs(2));
    });
    for _ in 0..10 {
        assert_eq!(node.get("app", "/counter").await.text(), "1");
    }
    flood.await.unwrap();
    let resident = cloister_tests::process::resident_bytes(node.pid()) >> 20;
    assert!(resident < 400, "the daemon has {resident} MiB");
    node.served_again("app", Duration::from_secs(10)).await;
}
