//! What a request finds of those before it, in each mode of isolation, and after a request that was cut off anywhere.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::time::{Duration, Instant};

use cloister_tests::Node;
use cloister_tests::client::{Connection, empty};
use cloister_tests::fixture::{dirtying, dirtying_made_anew, probe};
use cloister_tests::wait::{SOON, until, within};
use futures_util::future::join_all;
use serde_json::json;

const EXE: &str = env!("CARGO_BIN_EXE_cloister-node");

/// What `n` requests after each other on one connection find.
async fn finds(node: &Node, app: &str, n: usize) -> Vec<String> {
    let mut connection = Connection::h1(node.listen).await.unwrap();
    let mut found = Vec::with_capacity(n);
    for _ in 0..n {
        let answer = connection.get(&format!("{app}.localhost"), "/").await;
        // A passive segment that was dropped shows in a trap.
        assert!([200, 500].contains(&answer.status.as_u16()), "{answer:?}");
        found.push(match answer.status.as_u16() {
            200 => answer.text(),
            _ => "trap".to_owned(),
        });
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_not_fresh_is_seen() {
    // Otherwise the tests below could not fail.
    let node = Node::start(EXE).await;
    let component = dirtying();
    let deploy = node.deploy("app", &component).isolation("reuse:3");
    deploy.done().await;
    let found = finds(&node, "app", 9).await;
    for (i, found) in found.iter().enumerate() {
        // The letters alone: pages and their bytes are numbers.
        let found: String = found.chars().filter(char::is_ascii_lowercase).collect();
        match i % 3 {
            0 => assert_eq!(found, "clean", "request {i}"),
            // Sizes, each memory and table, globals.
            1 => assert_eq!(found, "zmgwftoxlmgwftox", "request {i}"),
            _ => assert!(found.starts_with("zmgwftoxl"), "request {i}: {found}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_finds_nothing_of_others() {
    let node = Node::start(EXE).await;
    let components = [dirtying(), dirtying_made_anew()];
    for (mode, component) in ["instance", "vm", "vm:3"]
        .iter()
        .flat_map(|mode| components.iter().map(move |component| (*mode, component)))
    {
        node.deploy("app", component).isolation(mode).done().await;
        let rows = join_all((0..8).map(|_| finds(&node, "app", 25))).await;
        for found in rows.iter().flatten() {
            assert_eq!(found, "clean", "mode {mode}");
        }
        let vm = node.admin.vm("default", "app").await.unwrap();
        assert_eq!(vm["isolation"], mode, "{vm}");
        let resets = vm["resets"].as_u64().unwrap();
        match mode {
            "instance" => assert_eq!(resets, 0),
            // Resets are of one of several VMs.
            _ => assert!(resets > 0, "{vm}"),
        }
    }
}

/// Deploys an app until its VM is one that was told what the VMs before it wrote first: the first one of a template is asked,
/// the second one is told, the third one is given the pages too. The one before them boots, and makes the template.
async fn deploy_again(node: &Node, app: &str, component: &[u8], scale: &serde_json::Value) {
    for _ in 0..4 {
        let deploy = node.deploy(app, component).limits(json!({"cpu_ms": 250}));
        deploy.scale(scale.clone()).done().await;
        assert_eq!(finds(node, app, 1).await, ["clean"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_finds_nothing_in_pages_that_are_copied_ahead() {
    let node = Node::start(EXE).await;
    for component in [dirtying(), dirtying_made_anew()] {
        deploy_again(&node, "app", &component, &json!({})).await;
        let rows = join_all((0..8).map(|_| finds(&node, "app", 25))).await;
        for found in rows.iter().flatten() {
            assert_eq!(found, "clean");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_is_reset_after_each_request_or_each_few() {
    let node = Node::start(EXE).await;
    for (mode, each) in [("vm", 1), ("vm:4", 4)] {
        let deploy = node.deploy("app", probe()).isolation(mode);
        deploy.scale(json!({"max": 1})).done().await;
        for _ in 0..12 {
            assert_eq!(node.get("app", "/counter").await.text(), "1");
        }
        let what = "a reset after the last request";
        until(SOON, what, || async {
            let vm = node.admin.vm("default", "app").await?;
            (vm["resets"].as_u64()? == 12 / each).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_are_reused_are_so_for_as_long_as_was_said() {
    let node = Node::start(EXE).await;
    let deploy = node.deploy("app", probe()).isolation("reuse:4");
    deploy.done().await;
    let mut counts = Vec::new();
    let mut connection = Connection::h1(node.listen).await.unwrap();
    for _ in 0..8 {
        counts.push(connection.get("app.localhost", "/counter").await.text());
    }
    assert_eq!(counts, ["1", "2", "3", "4", "1", "2", "3", "4"]);

    let deploy = node.deploy("app", probe()).isolation("reuse:1000000,1s");
    deploy.done().await;
    let first = connection.get("app.localhost", "/counter").await.text();
    assert_eq!(first, "1");
    // The instance gets old whether it is asked or not.
    let began = Instant::now();
    until(Duration::from_secs(10), "a fresh instance", || async {
        let count = node.get("app", "/counter").await.text();
        (count == "1").then_some(())
    })
    .await;
    assert!(began.elapsed() >= Duration::from_millis(500));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_ends_an_instance_that_is_reused() {
    let node = Node::start(EXE).await;
    let deploy = node.deploy("app", probe()).isolation("reuse");
    deploy.done().await;
    assert_eq!(node.get("app", "/counter").await.text(), "1");
    assert_eq!(node.get("app", "/counter").await.text(), "2");
    assert_eq!(node.get("app", "/trap/unreachable").await.status, 500);
    assert_eq!(node.get("app", "/counter").await.text(), "1");
}

/// A request is cut off at any moment, by its client or by the limit of processor time; the next one is clean and right.
/// `CLOISTER_KICK_ROUNDS` says how often.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_cut_off_anywhere_leaves_nothing() {
    let rounds: u32 = std::env::var("CLOISTER_KICK_ROUNDS")
        .map_or(400, |rounds| rounds.parse().expect("a number of rounds"));
    let node = Node::start(EXE).await;
    for (app, component) in [("app", dirtying()), ("anew", dirtying_made_anew())] {
        deploy_again(&node, app, &component, &json!({"max": 1})).await;
    }
    let mut clean = Connection::h1(node.listen).await.unwrap();
    // A row of moments that is the same each time: a generator of Lehmer's.
    let mut moment: u64 = 1;
    for round in 0..rounds {
        moment = moment * 48_271 % 0x7fff_ffff;
        let app = ["app", "anew"][round as usize % 2];
        let host = format!("{app}.localhost");
        let mut cut = Connection::h1(node.listen).await.unwrap();
        let request = cut.request("POST", &host, "/", empty());
        let mut answer = tokio::spawn(async move { cut.call(request).await });
        // A few wait for the limit; the others' clients go away.
        if moment.is_multiple_of(100) {
            let answer = within(SOON, "the end by the limit", &mut answer).await;
            let answer = answer.unwrap();
            let cut = answer.as_ref().map_or(true, |answer| answer.status == 504);
            assert!(cut, "round {round}: {answer:?}");
        } else {
            tokio::time::sleep(Duration::from_micros(moment % 3000)).await;
            answer.abort();
        }
        let request = clean.request("GET", &host, "/", empty());
        let answer = within(SOON, "the answer", clean.call(request)).await;
        let answer = answer.map(|answer| (answer.status.as_u16(), answer.text()));
        if !matches!(&answer, Ok((200, text)) if text == "clean") {
            let logs = format!("/v1/tenants/default/apps/{app}/logs?tail=20");
            let logs = node.admin.call("GET", &logs, "text/plain", empty()).await;
            panic!("round {round}: {answer:?}\n{}", logs.text());
        }
    }
    let status = node.admin.get("/v1/status").await;
    let restores = status["vms"].as_array().unwrap().iter();
    let restores: u64 = restores.filter_map(|vm| vm["restores"].as_u64()).sum();
    assert_eq!(restores, 0, "no VM was lost: {status}");
}
