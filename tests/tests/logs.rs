//! The log of an app: filters, requests in it, floods, disks that do not answer.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloister_tests::client::{Answer, Connection, empty};
use cloister_tests::fixture::{probe, saying};
use cloister_tests::node::Start;
use cloister_tests::wait::{SOON, until, within};
use cloister_tests::{Node, process};
use http::StatusCode;
use serde_json::Value;

const EXE: &str = env!("CARGO_BIN_EXE_cloister-node");

/// Lines of an app's log that a query gives.
async fn lines(node: &Node, app: &str, query: &str) -> Vec<Value> {
    let path = format!("/v1/tenants/default/apps/{app}/logs?{query}");
    let answer = node
        .admin
        .call("GET", &path, "application/json", empty())
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let text = answer.text();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn texts(lines: &[Value]) -> Vec<&str> {
    lines
        .iter()
        .map(|line| line["line"].as_str().unwrap())
        .collect()
}

/// `GET`s a path with an id of the client's own.
async fn get_as(node: &Node, id: &str, path: &str) -> Answer {
    let mut connection = Connection::h1(node.listen).await.unwrap();
    let mut request = connection.request("GET", "app.localhost", path, empty());
    request
        .headers_mut()
        .insert("x-request-id", id.parse().unwrap());
    connection.call(request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_is_found_by_its_id() {
    let node = Node::start(EXE).await;
    node.deploy("app", probe()).done().await;
    for id in ["r-1", "r-2", "r-3"] {
        assert_eq!(
            get_as(&node, id, "/print?7").await.header("x-request-id"),
            id
        );
    }
    assert_eq!(get_as(&node, "r-4", "/trap/unreachable").await.status, 500);
    let all = "stream=stdout,stderr,system,access";
    let of_two = until(SOON, "the lines of r-2", || async {
        let lines = lines(&node, "app", &format!("request=r-2&{all}")).await;
        (lines.len() == 3).then_some(lines)
    })
    .await;
    assert_eq!(
        texts(&of_two)[..2],
        ["a line to stdout", "a line to stderr"]
    );
    assert!(of_two.iter().all(|line| line["request"] == "r-2"));
    let access = &of_two[2]["access"];
    for (name, value) in [
        ("method", Value::from("GET")),
        ("path", "/print".into()),
        ("status", 200.into()),
        ("bytes_out", "printed\n".len().into()),
        ("client", "127.0.0.1".into()),
        ("complete", true.into()),
    ] {
        assert_eq!(access[name], value, "{access}");
    }
    // A component that traps says so in the log, under the request's id.
    let of_four = until(SOON, "the lines of r-4", || async {
        let lines = lines(&node, "app", &format!("request=r-4&{all}")).await;
        (lines.len() > 1).then_some(lines)
    })
    .await;
    assert!(
        texts(&of_four)
            .iter()
            .any(|line| line.contains("unreachable")),
        "{of_four:?}"
    );
    assert_eq!(of_four.last().unwrap()["access"]["status"], 500);

    // Other filters, alone and together.
    assert_eq!(
        texts(&lines(&node, "app", "grep=^a.*stdout$&tail=2").await).len(),
        2
    );
    assert_eq!(lines(&node, "app", "stream=access").await.len(), 4);
    assert!(lines(&node, "app", "deployment=2").await.is_empty());
    assert!(lines(&node, "app", "until=1h").await.is_empty());
    let third = lines(&node, "app", "request=r-3&stream=stdout").await[0]["time"].clone();
    let since = format!("stream=stdout&since={}", third.as_str().unwrap());
    assert_eq!(lines(&node, "app", &since).await.len(), 1);

    // The same by the command line, in the order in which it happened.
    let output = Command::new(EXE)
        .args(["logs", "app", "--request", "r-2", "--json", "--since", "1h"])
        .env("CLOISTER_URL", format!("http://{}", node.admin.addr))
        .env("CLOISTER_TOKEN", &node.admin.token)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let said: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(said, of_two);

    // And after a restart.
    let node = node.stop().await.node().await;
    assert_eq!(
        lines(&node, "app", &format!("request=r-2&{all}")).await,
        of_two
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_told_of_where_the_operator_wants_it() {
    let folder = tempfile::tempdir().unwrap();
    let stdout = folder.path().join("stdout");
    let start = Start::new(EXE)
        .args(&["--access-log", "stdout"])
        .stdout(&stdout);
    let node = start.node().await;
    node.deploy("app", &saying("hi")).done().await;
    get_as(&node, "r-1", "/some/where?secret=1").await;
    let line = until(SOON, "a line on standard output", || async {
        let text = std::fs::read_to_string(&stdout).unwrap();
        text.lines()
            .next()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
    })
    .await;
    for (name, value) in [
        ("tenant", Value::from("default")),
        ("app", "app".into()),
        ("deployment", 1.into()),
        ("request", "r-1".into()),
        ("path", "/some/where".into()),
        ("status", 200.into()),
    ] {
        assert_eq!(line[name], value, "{line}");
    }
    assert!(lines(&node, "app", "stream=access").await.is_empty());
}

/// Sizes of the files of an app's log.
fn sizes(data: &Path, app: &str) -> Vec<u64> {
    let folder = data.join("logs/default").join(app);
    let files = std::fs::read_dir(folder).unwrap();
    files
        .map(|file| file.unwrap().metadata().unwrap().len())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_harms_nobody_but_its_own_log() {
    let node = Arc::new(Node::start(EXE).await);
    node.deploy("loud", probe()).done().await;
    node.deploy("quiet", probe()).tenant("other").done().await;
    let floods: Vec<_> = (0..4)
        .map(|_| {
            let node = Arc::clone(&node);
            tokio::spawn(async move { node.get("loud", "/flood-stdout?64").await })
        })
        .collect();
    let mut printed = 0;
    let mut slowest = Duration::ZERO;
    while !floods.iter().all(tokio::task::JoinHandle::is_finished) {
        let begin = Instant::now();
        let mut connection = Connection::h1(node.listen).await.unwrap();
        let answer = connection.get("quiet.other.localhost", "/print").await;
        assert_eq!(answer.text(), "printed\n");
        printed += 1;
        slowest = slowest.max(begin.elapsed());
    }
    assert!(printed >= 3, "{printed} requests beside the flood");
    for flood in floods {
        assert_eq!(flood.await.unwrap().text(), "written\n");
    }
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");

    // The neighbour's lines are all there, those of the flood are not, and its log says so.
    let path = "/v1/tenants/other/apps/quiet/logs?stream=stdout,stderr";
    until(SOON, "all lines of the neighbour", || async {
        let answer = node
            .admin
            .call("GET", path, "application/json", empty())
            .await;
        (answer.text().lines().count() == 2 * printed).then_some(())
    })
    .await;
    let told = until(SOON, "the log to say what is missing", || async {
        let lines = lines(&node, "loud", "stream=system&grep=dropped").await;
        let bytes = lines.iter().map(|line| {
            let text = line["line"].as_str().unwrap();
            text.split(' ').next().unwrap().parse::<u64>().unwrap()
        });
        Some(bytes.sum::<u64>()).filter(|bytes| *bytes > 128 << 20)
    })
    .await;
    assert!(told < 256 << 20, "{told}");
    assert!(
        sizes(node.data(), "loud")
            .iter()
            .all(|size| *size <= 8 << 20)
    );
    let page = node.admin.call("GET", "/metrics", "", empty()).await.text();
    let dropped = page
        .lines()
        .find_map(|line| line.strip_prefix("cloister_log_dropped_bytes_total "));
    assert!(
        dropped.unwrap().parse::<u64>().unwrap() >= told,
        "{dropped:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_does_not_answer_holds_up_no_request() {
    let node = Node::start(EXE).await;
    node.deploy("app", probe()).done().await;
    // Opening a pipe that nobody reads takes for ever: so does then whoever writes the logs.
    let folder = node.data().join("logs/default/app");
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["current.ndjson", "access.ndjson"] {
        let pipe = folder.join(name);
        let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
    }
    let begin = Instant::now();
    for _ in 0..100 {
        assert_eq!(node.get("app", "/print").await.text(), "printed\n");
    }
    assert_eq!(
        node.get("app", "/flood-stdout?40").await.text(),
        "written\n"
    );
    assert!(
        begin.elapsed() < Duration::from_secs(20),
        "{:?}",
        begin.elapsed()
    );
    // What had no room was counted.
    let page = node.admin.call("GET", "/metrics", "", empty()).await.text();
    let dropped = page
        .lines()
        .find_map(|line| line.strip_prefix("cloister_log_dropped_bytes_total "));
    assert!(
        dropped.unwrap().parse::<u64>().unwrap() > 20 << 20,
        "{dropped:?}"
    );
    // A reader lets the thread go on, and the node can stop.
    for name in ["current.ndjson", "access.ndjson"] {
        let pipe = folder.join(name);
        std::thread::spawn(move || std::fs::read(pipe));
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_see_what_they_want_and_are_not_too_many() {
    let node = Node::start(EXE).await;
    node.deploy("app", probe()).done().await;
    let follow = |query: &'static str| {
        let admin = node.admin.clone();
        async move {
            let mut connection = Connection::h1(admin.addr).await.unwrap();
            let path = format!("/v1/tenants/default/apps/app/logs?follow=true&{query}");
            let request = http::Request::get(path)
                .header("host", "admin")
                .header("authorization", format!("Bearer {}", admin.token))
                .body(empty())
                .unwrap();
            let response = connection.send(request).await.unwrap();
            (connection, response)
        }
    };
    let (_connection, response) = follow("stream=stderr,access&request=r-2&tail=0").await;
    get_as(&node, "r-1", "/print").await;
    get_as(&node, "r-2", "/print").await;
    let mut body = response.into_body();
    let mut seen = String::new();
    within(SOON, "what was followed", async {
        use http_body_util::BodyExt;
        while seen.lines().count() < 2 {
            let frame = body.frame().await.unwrap().unwrap();
            seen.push_str(&String::from_utf8_lossy(frame.data_ref().unwrap()));
        }
    })
    .await;
    let lines: Vec<Value> = seen
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["line"], "a line to stderr");
    assert_eq!(lines[1]["access"]["path"], "/print");
    drop(body);

    let mut held = Vec::new();
    let refused = loop {
        assert!(held.len() < 100, "there is no end to followers");
        let (connection, response) = follow("tail=0").await;
        match response.status() {
            StatusCode::OK => held.push((connection, response)),
            _ => break Answer::of(response).await.unwrap(),
        }
    };
    assert_eq!(
        (refused.status, refused.problem().as_str()),
        (StatusCode::TOO_MANY_REQUESTS, "too-many-log-readers")
    );
    // Who goes makes room, also when nothing is written that would tell.
    held.clear();
    until(SOON, "room for another follower", || async {
        let (_, response) = follow("tail=0").await;
        response.status().is_success().then_some(())
    })
    .await;
    assert!(process::lives(node.pid()));
}
