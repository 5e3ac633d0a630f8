//! The control plane on a real node: while it hangs, or is flooded, the apps go on serving.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cloister_tests::client::{Answer, Connection, empty};
use cloister_tests::fixture::{probe, saying};
use cloister_tests::node::Start;
use cloister_tests::wait::{SOON, until, within};
use cloister_tests::{Node, process};
use http_body_util::BodyExt as _;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

const EXE: &str = env!("CARGO_BIN_EXE_cloister-node");

/// Changes that are asked for while the store hangs: more than a runtime has threads that may block.
const CHANGES: usize = 600;

/// Requests of a flood, over so many connections at a time.
const FLOOD: usize = 20_000;
const FLOODING: usize = 64;

/// Time that a request to an app may take, at the worst of a hundred, while the API is flooded: clients, node and guests share
/// the processors of a test machine, which may have two.
const TOLERABLE: Duration = Duration::from_millis(250);

/// Asks an app until it is told to stop, over two connections of HTTP/1.1 and two streams of HTTP/2.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<Duration>>>,
}

impl Load {
    async fn begin(addr: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let h2 = Connection::h2(addr).await.unwrap();
        let connections = [
            Connection::h1(addr).await.unwrap(),
            Connection::h1(addr).await.unwrap(),
            h2.another(),
            h2,
        ];
        let clients = connections.into_iter().map(|mut connection| {
            let stop = Arc::clone(&stop);
            tokio::spawn(async move {
                let mut times = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let answer = connection.get("shop.localhost", "/").await;
                    times.push(began.elapsed());
                    let told = (answer.status.as_u16(), answer.text());
                    assert_eq!(told, (200, "hello".to_owned()));
                }
                times
            })
        });
        Self {
            clients: clients.collect(),
            stop,
        }
    }

    /// Ends it; how long each request took, the shortest first. None has failed.
    async fn end(self) -> Vec<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        let mut times = Vec::new();
        for client in self.clients {
            times.append(&mut client.await.unwrap());
        }
        times.sort();
        times
    }
}

/// What so many percent of the times are below.
fn percentile(times: &[Duration], percent: usize) -> Duration {
    times[(times.len() - 1) * percent / 100]
}

/// Has the store wait for its disk without end: a pipe that nobody reads is in the place of the file that it writes next.
fn hang(data: &Path) -> std::path::PathBuf {
    let file = data.join("store/state.json.new");
    let mode = Mode::from_raw_mode(0o600);
    mknodat(CWD, &file, FileType::Fifo, mode, 0).unwrap();
    file
}

/// Asks for another tenant.
async fn change(node: &Node, number: usize) -> anyhow::Result<Answer> {
    let path = format!("/v1/tenants/t{number}");
    let (kind, body) = ("application/json", empty());
    node.admin.try_call("PUT", &path, kind, body).await
}

/// Sends a request to an app that has a worker of its own.
async fn ask(node: &Node, path: &str, to: &str) -> anyhow::Result<Answer> {
    let mut connection = Connection::h1(node.listen).await?;
    let mut request = connection.request("GET", "probe.acme.localhost", path, empty());
    request.headers_mut().insert("x-to", to.parse()?);
    Ok(connection.call(request).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn apps_are_served_while_the_control_plane_hangs() {
    let node = Arc::new(Start::new(EXE).args(&["--api-rate", "0"]).node().await);
    node.deploy("shop", &saying("hello")).done().await;
    let deploy = node.deploy("probe", probe()).tenant("acme");
    deploy.allow_host("localhost").done().await;
    let worker = node.admin.worker("acme").await.unwrap();
    let load = Load::begin(node.listen).await;
    let file = hang(node.data());

    // Nothing is answered any more that needs the store, neither what changes nor what reads.
    let changes = (0..CHANGES).map(|n| {
        let node = Arc::clone(&node);
        tokio::spawn(async move { change(&node, n).await })
    });
    let changes: Vec<_> = changes.collect();
    let blocked = || async {
        let read = node
            .admin
            .try_call("GET", "/v1/tenants", "application/json", empty());
        let read = tokio::time::timeout(Duration::from_secs(2), read).await;
        read.is_err().then_some(())
    };
    until(SOON, "the API to hang", blocked).await;
    assert!(changes.iter().all(|change| !change.is_finished()));

    // What the data plane may have to do works: look up a name, start a worker and its VM again.
    let to = format!("localhost:{}", node.listen.port());
    let fetched = within(SOON, "a request of the guest", ask(&node, "/fetch", &to)).await;
    assert_eq!(fetched.unwrap().text(), "status 404");
    process::kill(worker);
    until(SOON, "another worker of acme", || async {
        let answer = ask(&node, "/hello", &to).await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
    assert!(!process::lives(worker));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(changes.iter().all(|change| !change.is_finished()));
    let times = load.end().await;
    println!(
        "{} requests while the control plane hung, none failed",
        times.len()
    );
    assert!(times.len() > 100);

    // The disk is there again, and so is the API.
    let _reader = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&file)
        .unwrap();
    for change in changes {
        within(SOON, "an answer", change).await.unwrap().unwrap();
    }
    let answer = change(&node, CHANGES).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text());
    let path = format!("/v1/tenants/t{CHANGES}");
    assert_eq!(node.admin.get(&path).await["tenant"], format!("t{CHANGES}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_control_plane_hangs_can_be_stopped() {
    let mut node = Node::start(EXE).await;
    node.deploy("shop", &saying("hello")).done().await;
    hang(node.data());
    let hanging = tokio::time::timeout(Duration::from_secs(2), change(&node, 0)).await;
    assert!(hanging.is_err());
    let status = node.terminate().await;
    assert!(status.success(), "{status}: {}", node.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_the_api_does_not_keep_the_apps_from_answering() {
    // Without a limit for each token, which would answer most of the flood at once.
    let node = Arc::new(Start::new(EXE).args(&["--api-rate", "0"]).node().await);
    node.deploy("shop", &saying("hello")).done().await;
    let quiet = Load::begin(node.listen).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let quiet = quiet.end().await;

    let load = Load::begin(node.listen).await;
    let began = Instant::now();
    let flood = (0..FLOODING).map(|_| {
        let node = Arc::clone(&node);
        tokio::spawn(async move {
            let mut connection = Connection::h1(node.admin.addr).await.unwrap();
            let mut answers = 0;
            while answers < FLOOD / FLOODING {
                let mut request = connection.request("GET", "localhost", "/v1/apps", empty());
                let token = format!("Bearer {}", node.admin.token);
                request
                    .headers_mut()
                    .insert("authorization", token.parse().unwrap());
                connection.call(request).await.unwrap();
                answers += 1;
            }
        })
    });
    for client in flood.collect::<Vec<_>>() {
        within(SOON * 4, "the flood", client).await.unwrap();
    }
    let took = began.elapsed();
    let flooded = load.end().await;
    let [before, after] = [&quiet, &flooded].map(|times| percentile(times, 99));
    println!(
        "{FLOOD} requests of the API in {took:?}; of an app: p99 {before:?} without ({}), {after:?} with them ({})",
        quiet.len(),
        flooded.len()
    );
    assert!(
        after < TOLERABLE,
        "{before:?} without, {after:?} with a flood"
    );
}

/// Connections to the admin address that are held without a request, many times as many as the node takes at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_connections_keeps_neither_the_api_nor_the_apps_from_answering() {
    let args = ["--admin-connections", "16"];
    let node = Start::new(EXE).args(&args).node().await;
    node.deploy("shop", &saying("hello")).done().await;
    let load = Load::begin(node.listen).await;
    // Some follow a log: they are answered all the time, and keep their places.
    let mut following = Vec::new();
    for _ in 0..8 {
        let mut connection = Connection::h1(node.admin.addr).await.unwrap();
        let path = "/v1/tenants/default/apps/shop/logs?follow=true&stream=access";
        let mut request = connection.request("GET", "localhost", path, empty());
        let token = format!("Bearer {}", node.admin.token);
        let headers = request.headers_mut();
        headers.insert("authorization", token.parse().unwrap());
        let answer = within(SOON, "a log", connection.send(request)).await;
        following.push((answer.unwrap(), connection));
    }
    let before = process::descriptors(node.pid()).len();
    let mut held = Vec::new();
    for _ in 0..400 {
        held.push(TcpStream::connect(node.admin.addr).await.unwrap());
    }
    for _ in 0..20 {
        let answer = within(SOON, "an answer", node.admin.get("/v1/apps")).await;
        assert_eq!(answer["items"][0]["app"], "shop");
    }
    let open = process::descriptors(node.pid()).len();
    assert!(open < before + 32, "{open} descriptors after {before}");
    for (answer, _) in &mut following {
        let line = within(SOON, "a line of the log", answer.body_mut().frame()).await;
        assert!(line.unwrap().unwrap().is_data());
    }
    drop(held);
    within(SOON, "an answer", node.admin.get("/v1/apps")).await;
    let times = load.end().await;
    println!("{} requests of the app during it", times.len());
    assert!(times.len() > 100);
}
