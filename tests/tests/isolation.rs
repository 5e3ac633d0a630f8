//! What one request, app or tenant gets to know of another, of the host, and of the network: nothing.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::HashSet;

use cloister_tests::client::{self, Answer, Connection, empty};
use cloister_tests::fixture::{probe, saying};
use cloister_tests::wait::{SOON, until, within};
use cloister_tests::{Node, process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const EXE: &str = env!("CARGO_BIN_EXE_cloister-node");

/// Error codes of `wasi:http`, by their number.
const NOT_FOUND: u8 = 1;
const PROHIBITED: u8 = 4;
const DENIED: u8 = 15;

#[tokio::test(flavor = "multi_thread")]
async fn every_request_has_a_fresh_instance() {
    let node = Node::start(EXE).await;
    node.deploy("app", probe()).done().await;
    let mut connection = Connection::h1(node.listen).await.unwrap();
    for _ in 0..50 {
        assert_eq!(
            connection.get("app.localhost", "/counter").await.text(),
            "1"
        );
    }
    // Memory that a request wrote is not there for the next: `/allocate-and-touch` writes all it gets.
    node.get("app", "/allocate-and-touch").await;
    for _ in 0..4 {
        let answer = node.get("app", "/big?1").await;
        assert!(
            answer.body.iter().all(|byte| *byte == 0),
            "bytes of another request"
        );
        node.get("app", "/flood-stdout?1").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn randomness_never_repeats() {
    let node = Node::start(EXE).await;
    node.deploy("app", probe()).done().await;
    node.deploy("app", probe()).tenant("twin").done().await;
    let mut seen = HashSet::new();
    for round in 0..3 {
        for _ in 0..20 {
            for host in ["app.localhost", "app.twin.localhost"] {
                let number = client::get(node.listen, host, "/random")
                    .await
                    .unwrap()
                    .text();
                assert!(number.parse::<u64>().is_ok(), "{number}");
                assert!(seen.insert(number), "a random number came twice");
            }
        }
        // A VM that is made anew does not begin the same row.
        if round < 2 {
            let worker = node.admin.worker("default").await.unwrap();
            process::kill(worker);
            let what = "another worker";
            until(SOON, what, || async {
                node.admin
                    .worker("default")
                    .await
                    .filter(|pid| *pid != worker)
            })
            .await;
            node.served_again("app", SOON).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_is_what_the_deployment_says() {
    let node = Node::start(EXE).await;
    node.deploy("bare", probe()).done().await;
    node.deploy("full", probe())
        .env("A", "1")
        .env("B", "two = 2\n")
        .done()
        .await;
    assert_eq!(node.get("bare", "/env").await.text(), "");
    assert_eq!(node.get("full", "/env").await.text(), "A=1\nB=two = 2\n\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_has_no_privileges_to_pass_on() {
    let node = Node::start(EXE).await;
    node.deploy("app", &saying("x")).done().await;
    let worker = node.admin.worker("default").await.unwrap();
    let environment = std::fs::read(format!("/proc/{worker}/environ")).unwrap();
    assert!(
        environment.is_empty(),
        "{}",
        String::from_utf8_lossy(&environment)
    );
    let status = std::fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    let stat = std::fs::read_to_string(format!("/proc/{worker}/stat")).unwrap();
    let session = stat.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap();
    assert_eq!(session, worker.to_string(), "a session of its own");
    let data = node.data().to_str().unwrap();
    for descriptor in process::descriptors(worker) {
        let descriptor = descriptor.to_string_lossy().into_owned();
        let known = [
            "anon_inode:",
            "/dev/kvm",
            "/dev/null",
            "/memfd:",
            "socket:",
            "pipe:",
        ];
        // Templates are the tenant's own, and which of its pages were written only the kernel knows.
        let own = descriptor.starts_with(&format!("{data}/artifacts/"))
            || descriptor.starts_with(&format!("{data}/templates/"))
            || descriptor == format!("/proc/{worker}/pagemap");
        assert!(
            own || known.iter().any(|k| descriptor.starts_with(k)),
            "the worker has {descriptor}"
        );
    }
    // The address space of a worker has no token in it, which the daemon has.
    let memory = std::fs::read_to_string(format!("/proc/{worker}/cmdline")).unwrap();
    assert!(!memory.contains(&node.admin.token));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_logs_of_a_tenant_are_its_own() {
    let node = Node::start(EXE).await;
    node.deploy("app", probe()).done().await;
    node.deploy("app", probe()).tenant("twin").done().await;
    node.get("app", "/print").await;
    node.logged("app", "a line to stdout", 1).await;
    let path = "/v1/tenants/twin/apps/app/logs?tail=100";
    let answer = node
        .admin
        .call("GET", path, "application/json", empty())
        .await;
    assert!(
        !answer.text().contains("a line to stdout"),
        "{}",
        answer.text()
    );
}

/// An HTTP server that answers 204 to whatever comes, and counts.
async fn upstream() -> (u16, std::sync::Arc<std::sync::atomic::AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counter = std::sync::Arc::clone(&count);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer).await;
                let _ = stream
                    .write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
                    .await;
            });
        }
    });
    (port, count)
}

async fn fetch(node: &Node, app: &str, to: &str) -> Answer {
    let mut connection = Connection::h1(node.listen).await.unwrap();
    let mut request = connection.request("GET", &format!("{app}.localhost"), "/fetch", empty());
    request.headers_mut().insert("x-to", to.parse().unwrap());
    within(
        SOON,
        "the answer to an outgoing request",
        connection.call(request),
    )
    .await
    .unwrap()
}

fn refused(answer: &Answer) -> bool {
    let text = answer.text();
    [NOT_FOUND, PROHIBITED, DENIED]
        .iter()
        .any(|code| text == format!("refused {code}") || text == format!("error {code}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_out_unless_the_deployment_says_so() {
    let node = Node::start(EXE).await;
    let (port, count) = upstream().await;
    node.deploy("closed", probe()).done().await;
    node.deploy("other", probe())
        .allow_host("example.com")
        .done()
        .await;
    node.deploy("named", probe())
        .allow_host("localhost")
        .done()
        .await;
    node.deploy("wrong-port", probe())
        .allow_host("127.0.0.1:1")
        .done()
        .await;
    node.deploy("open", probe())
        .allow_host("127.0.0.1")
        .done()
        .await;
    node.deploy("port", probe())
        .allow_host(&format!("127.0.0.1:{port}"))
        .done()
        .await;
    let to = format!("127.0.0.1:{port}");
    // A name that leads to the loopback device opens it no more than no name does; only `localhost`, listed, is literal.
    for (app, to) in [
        ("closed", to.clone()),
        ("closed", format!("localhost:{port}")),
        ("other", to.clone()),
        ("named", to.clone()),
        ("wrong-port", to.clone()),
        ("open", format!("127.0.0.2:{port}")),
        ("open", format!("[::1]:{port}")),
        ("open", format!("[::ffff:127.0.0.1]:{port}")),
        ("open", format!("2130706433:{port}")),
        ("open", format!("0.0.0.0:{port}")),
        ("closed", "169.254.169.254".to_owned()),
        ("closed", "10.0.0.1".to_owned()),
        ("closed", node.admin.addr.to_string()),
        ("closed", node.listen.to_string()),
    ] {
        let answer = fetch(&node, app, &to).await;
        assert!(refused(&answer), "{app} to {to}: {}", answer.text());
    }
    assert_eq!(
        count.load(std::sync::atomic::Ordering::SeqCst),
        0,
        "something got through"
    );
    for app in ["open", "port"] {
        assert_eq!(fetch(&node, app, &to).await.text(), "status 204", "{app}");
    }
    let by_name = fetch(&node, "named", &format!("localhost:{port}")).await;
    assert_eq!(by_name.text(), "status 204");
    assert_eq!(count.load(std::sync::atomic::Ordering::SeqCst), 3);
    // Nobody listens there: an error for the component, no more.
    let answer = fetch(&node, "open", "127.0.0.1:1").await;
    assert!(answer.text().starts_with("error "), "{}", answer.text());
}
