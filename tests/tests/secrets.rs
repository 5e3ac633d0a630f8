//! Secrets on a real node: the component sees them, and nothing else has them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::path::Path;

use cloister_tests::Node;
use cloister_tests::client::full;
use cloister_tests::fixture::probe;
use cloister_tests::node::Start;
use serde_json::{Value, json};

const EXE: &str = env!("CARGO_BIN_EXE_cloister-node");

const SECRETS: &str = "/v1/tenants/default/apps/app/secrets";

/// A value that nothing else has by chance.
const VALUE: &str = "zx81-correct-horse-battery-staple-4711";

async fn set(node: &Node, name: &str, value: &str) -> Value {
    let path = format!("{SECRETS}/{name}");
    let body = full(json!({"value": value}).to_string());
    let answer = node
        .admin
        .call("PUT", &path, "application/json", body)
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(!answer.text().contains(value));
    serde_json::from_slice(&answer.body).unwrap()
}

/// What the component of the app sees.
async fn seen(node: &Node) -> String {
    let answer = node.get("app", "/env").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

/// Files of a folder that have a text in them.
fn files_with(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else {
            let content = std::fs::read(&path).unwrap();
            if content.windows(text.len()).any(|w| w == text.as_bytes()) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn the_component_sees_a_secret_and_nothing_else_has_it() {
    let node = Node::start(EXE).await;
    node.deploy("app", probe()).env("PLAIN", "p").done().await;
    let changed = set(&node, "PASSWORD", VALUE).await;
    assert_eq!(changed["deployment"]["deployment"], 2);
    let seen_now = seen(&node).await;
    assert!(
        seen_now.contains(VALUE) && seen_now.contains("PLAIN"),
        "{seen_now}"
    );
    let mut answers = String::new();
    for path in [
        SECRETS,
        "/v1/tenants/default/apps/app/config",
        "/v1/tenants/default/apps/app/deployments",
        "/v1/tenants/default/apps/app/logs",
        "/v1/audit",
        "/v1/status",
    ] {
        let answer = node
            .admin
            .call("GET", path, "application/json", full(""))
            .await;
        answers += &answer.text();
    }
    assert!(!answers.contains(VALUE), "{answers}");
    assert_eq!(files_with(node.data(), VALUE), Vec::<String>::new());
    assert!(!node.said().contains(VALUE), "{}", node.said());

    // It is there after a crash, and after the key was rotated and the node restarted.
    let node = node.kill().node().await;
    assert!(seen(&node).await.contains(VALUE));
    let answer = node
        .admin
        .call(
            "POST",
            "/v1/secret-key/rotate",
            "application/json",
            full(""),
        )
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let node = node.stop().await.node().await;
    assert!(seen(&node).await.contains(VALUE));
    assert_eq!(files_with(node.data(), VALUE), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_its_key_says_so_and_makes_no_other() {
    let node = Node::start(EXE).await;
    node.deploy("app", probe()).done().await;
    set(&node, "PASSWORD", VALUE).await;
    let key = node.data().join("secret-key");
    let start = node.stop().await;
    let kept = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    let ended = start.clone().refused().await;
    assert_eq!(ended.status.code(), Some(5), "{}", ended.said);
    assert!(
        ended.said.contains("secret-key") && ended.said.contains("CLOISTER_KEY"),
        "{}",
        ended.said
    );
    assert!(!key.exists());
    // The same key by the environment.
    let text = String::from_utf8(kept).unwrap();
    let start = start.env("CLOISTER_KEY", text.trim());
    let node: Node = Start::node(start).await;
    assert!(seen(&node).await.contains(VALUE));
    assert!(!node.said().contains(text.trim()));
}
