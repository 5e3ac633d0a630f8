//! Bodies of any length, both ways, byte for byte, in bounded memory.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use bytes::Bytes;
use cloister_tests::client::{self, Body, Connection};
use cloister_tests::fixture::probe;
use cloister_tests::raw::Raw;
use cloister_tests::wait::within;
use cloister_tests::{Node, process};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

const EXE: &str = env!("CARGO_BIN_EXE_cloister-node");
const MIB: usize = 1 << 20;

/// How much more memory than idle a node may need for a stream.
const ROOM: u64 = 64 << 20;

async fn node() -> &'static Node {
    static NODE: OnceCell<Node> = OnceCell::const_new();
    NODE.get_or_init(|| async {
        let node = Node::start(EXE).await;
        node.deploy("app", probe()).done().await;
        node
    })
    .await
}

/// The block number `n` of a stream of which no two blocks are alike.
fn block(n: u64) -> Bytes {
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(64 << 10);
    while bytes.len() < 64 << 10 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.into()
}

/// A body of so many MiB, made as it is sent, and its digest.
fn body(mib: usize) -> (Body, String) {
    let blocks = mib as u64 * 16;
    let mut sum = Sha256::new();
    for n in 0..blocks {
        sum.update(block(n));
    }
    let frames = (0..blocks).map(|n| Ok::<_, std::io::Error>(Frame::data(block(n))));
    (
        StreamBody::new(futures_util::stream::iter(frames)).boxed(),
        hex(&sum.finalize()),
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Sends a body and gives length and digest of the one that comes back, while both are on their way.
async fn through(
    connection: &mut Connection,
    path: &str,
    mib: usize,
    length: bool,
) -> (usize, String, String) {
    let (sent, want) = body(mib);
    let mut request = connection.request("POST", "app.localhost", path, sent);
    if length {
        request
            .headers_mut()
            .insert("content-length", (mib * MIB).into());
    }
    let response = connection.send(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let (mut len, mut sum) = (0, Sha256::new());
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.unwrap().into_data() {
            len += data.len();
            sum.update(&data);
        }
    }
    (len, hex(&sum.finalize()), want)
}

async fn echoes(mib: usize, limit: Duration) {
    let node = node().await;
    let worker = node.admin.worker("default").await.unwrap();
    for path in ["/echo", "/splice"] {
        for (version, length) in [(1, true), (1, false), (2, true), (2, false)] {
            let mut connection = match version {
                1 => Connection::h1(node.listen).await.unwrap(),
                _ => Connection::h2(node.listen).await.unwrap(),
            };
            let idle = [node.pid(), worker].map(|pid| {
                process::reset_peak(pid);
                process::resident_bytes(pid)
            });
            let what = format!("{mib} MiB through {path} over HTTP/{version}, length {length}");
            let (len, got, want) =
                within(limit, &what, through(&mut connection, path, mib, length)).await;
            assert_eq!(len, mib * MIB, "{what}");
            assert_eq!(got, want, "{what}");
            for (pid, idle) in [node.pid(), worker].into_iter().zip(idle) {
                let more = process::peak_bytes(pid).saturating_sub(idle);
                assert!(
                    more < ROOM,
                    "{what}: process {pid} grew by {} MiB",
                    more >> 20
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_64_mib_come_back_the_same() {
    echoes(64, Duration::from_secs(120)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute or more; run with --ignored"]
async fn bodies_of_1_gib_come_back_the_same() {
    echoes(1024, Duration::from_secs(600)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_about_the_sizes_of_buffers() {
    let node = node().await;
    let mut connection = Connection::h1(node.listen).await.unwrap();
    let around = |n: usize| [n - 1, n, n + 1];
    let lengths = [4 << 10, 32 << 10, 64 << 10, 128 << 10, MIB]
        .map(around)
        .concat();
    for len in [0, 1, 2].into_iter().chain(lengths) {
        let sent: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        for path in ["/echo", "/splice"] {
            let request =
                connection.request("POST", "app.localhost", path, client::full(sent.clone()));
            let answer = within(Duration::from_secs(30), "an echo", connection.call(request))
                .await
                .unwrap();
            assert!(
                answer.body == sent,
                "{path} with {len} bytes: {} came back",
                answer.body.len()
            );
        }
        let request = connection.request("POST", "app.localhost", "/count", client::full(sent));
        let answer = within(Duration::from_secs(30), "a count", connection.call(request))
            .await
            .unwrap();
        assert_eq!(answer.text(), len.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ways_at_once() {
    let node = node().await;
    let listen = node.listen;
    tokio::task::spawn_blocking(move || {
        let mut raw = Raw::connect(listen);
        raw.send(
            "POST /echo HTTP/1.1\r\nHost: app.localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        let mut head = None;
        for round in 0..20 {
            let text = format!("round {round:02}\n");
            raw.send(format!("{:x}\r\n{text}\r\n", text.len()));
            // The head, then a chunk each round, before the next is sent.
            if head.is_none() {
                head = raw.head();
                assert_eq!(head.as_ref().unwrap().status, 200);
            }
            let came = raw.exactly(3 + text.len() + 2);
            assert_eq!(
                String::from_utf8_lossy(&came),
                format!("{:x}\r\n{text}\r\n", text.len())
            );
        }
        raw.send("0\r\n\r\n");
        assert_eq!(String::from_utf8_lossy(&raw.exactly(5)), "0\r\n\r\n");
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_come_as_they_are_written() {
    let node = node().await;
    let mut connection = Connection::h1(node.listen).await.unwrap();
    let request = connection.request("GET", "app.localhost", "/drip?10", client::empty());
    let mut body = connection.send(request).await.unwrap().into_body();
    let mut times = Vec::new();
    while let Some(frame) = within(Duration::from_secs(30), "a line", body.frame()).await {
        if frame.unwrap().is_data() {
            times.push(std::time::Instant::now());
        }
    }
    let spread = *times.last().unwrap() - times[0];
    assert!(
        times.len() >= 8 && spread > Duration::from_millis(700),
        "{} pieces within {spread:?}",
        times.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_holds_the_component_back() {
    let node = node().await;
    let worker = node.admin.worker("default").await.unwrap();
    let idle = [node.pid(), worker].map(|pid| {
        process::reset_peak(pid);
        process::resident_bytes(pid)
    });
    let mut readers = Vec::new();
    for _ in 0..4 {
        let mut connection = Connection::h1(node.listen).await.unwrap();
        let request = connection.request("GET", "app.localhost", "/big?512", client::empty());
        let mut body = connection.send(request).await.unwrap().into_body();
        let first = body.frame().await.unwrap().unwrap();
        assert!(first.is_data());
        readers.push((connection, body));
    }
    // Nobody reads; others are served.
    for _ in 0..20 {
        assert_eq!(node.get("app", "/counter").await.text(), "1");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for (pid, idle) in [node.pid(), worker].into_iter().zip(idle) {
        let more = process::peak_bytes(pid).saturating_sub(idle);
        assert!(
            more < ROOM,
            "process {pid} grew by {} MiB for four readers that do not read",
            more >> 20
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_at_once() {
    let node = node().await;
    let h2 = Connection::h2(node.listen).await.unwrap();
    let streams = (0..24).map(|n| {
        let mut connection = h2.another();
        async move {
            let path = if n % 2 == 0 { "/echo" } else { "/splice" };
            let (len, got, want) = through(&mut connection, path, 2, n % 3 == 0).await;
            assert_eq!((len, got), (2 * MIB, want), "stream {n}");
        }
    });
    within(
        Duration::from_secs(120),
        "24 streams of 2 MiB",
        futures_util::future::join_all(streams),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_nobody_reads_harms_nobody() {
    let node = node().await;
    for _ in 0..5 {
        let mut connection = Connection::h1(node.listen).await.unwrap();
        let (sent, _) = body(4);
        let request = connection.request("POST", "app.localhost", "/hello", sent);
        let answer = within(
            Duration::from_secs(30),
            "the answer to an unread body",
            connection.call(request),
        )
        .await;
        // The server may close on what is left of the body; an answer that came is the right one.
        if let Ok(answer) = answer {
            assert_eq!(answer.text(), "Hello!\n");
        }
    }
    assert_eq!(node.get("app", "/counter").await.text(), "1");
}
