//! Secrets on a real node: the component sees them, and nothing else has them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use cloister_tests::Node;
use cloister_tests::client::{Answer, full};
use cloister_tests::fixture::probe;
use cloister_tests::node::Start;
use cloister_tests::process;
use cloister_tests::wait::{SOON, until};
use rustix::process::Signal;
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

/// Asks for a new key; the answer.
async fn rotate_key(node: &Node) -> Answer {
    let path = "/v1/secret-key/rotate";
    let call = node.admin.call("POST", path, "application/json", full(""));
    call.await
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
    let answer = rotate_key(&node).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let node = node.stop().await.node().await;
    assert!(seen(&node).await.contains(VALUE));
    assert_eq!(files_with(node.data(), VALUE), Vec::<String>::new());
}

/// Everything but the memory of guests where a value could be found.
struct Traces {
    /// What the API and the apps answered, and what commands printed.
    said: String,
}

impl Traces {
    async fn call(
        &mut self,
        node: &Node,
        method: &str,
        path: &str,
        kind: &str,
        body: String,
    ) -> u16 {
        let answer = node.admin.call(method, path, kind, full(body)).await;
        self.said += &format!("{method} {path}: {:?}\n{}\n", answer.headers, answer.text());
        answer.status.as_u16()
    }

    /// Runs a command with something on its standard input, and keeps what it prints.
    fn command(&mut self, node: &Node, line: &str, input: &str) {
        let mut child = Command::new(EXE)
            .args(line.split_whitespace())
            .env("CLOISTER_URL", format!("http://{}", node.admin.addr))
            .env("CLOISTER_TOKEN", &node.admin.token)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that refuses its arguments reads nothing.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        self.said += &format!("{line}: {output:?}\n");
    }

    /// Looks through all of it.
    fn check(&self, node: &Node, value: &str) {
        let at = self.said.find(value);
        assert_eq!(at.map(|at| &self.said[at.saturating_sub(200)..at]), None);
        assert_eq!(files_with(node.data(), value), Vec::<String>::new());
        let said = node.said();
        assert!(!said.contains(value), "{said}");
        let mut processes = vec![node.pid()];
        processes.extend(process::children(node.pid()));
        assert!(processes.len() > 1, "there are workers");
        for pid in processes {
            for file in ["cmdline", "environ"] {
                let content = std::fs::read(format!("/proc/{pid}/{file}"));
                // A process that has just ended has nothing.
                let content = content.unwrap_or_default();
                let found = content.windows(value.len()).any(|w| w == value.as_bytes());
                assert!(!found, "{file} of process {pid}");
            }
        }
    }
}

/// Requests that the API refuses, with the value somewhere in them.
async fn refusals(traces: &mut Traces, node: &Node, value: &str) {
    let (json_type, secret) = ("application/json", format!("{SECRETS}/PASSWORD"));
    let right = json!({"value": value}).to_string();
    let long = json!({"value": value.repeat(4_000)}).to_string();
    for (method, path, kind, body) in [
        (
            "PUT",
            secret.as_str(),
            json_type,
            format!("{{\"value\": \"{value}\""),
        ),
        (
            "PUT",
            &secret,
            json_type,
            json!({"value": [value]}).to_string(),
        ),
        (
            "PUT",
            &secret,
            json_type,
            json!({"value": {"a": value}}).to_string(),
        ),
        (
            "PUT",
            &secret,
            json_type,
            json!({"value": value, "deploy": value}).to_string(),
        ),
        ("PUT", &secret, json_type, json!(value).to_string()),
        ("PUT", &secret, json_type, long),
        (
            "PUT",
            &secret,
            json_type,
            json!({"value": format!("{value}\0")}).to_string(),
        ),
        ("PUT", &secret, "text/plain", right.clone()),
        ("POST", &secret, json_type, right.clone()),
        (
            "PUT",
            "/v1/tenants/default/apps/app/secrets/1BAD",
            json_type,
            right.clone(),
        ),
        (
            "PUT",
            "/v1/tenants/nobody/apps/app/secrets/PASSWORD",
            json_type,
            right,
        ),
    ] {
        let status = traces.call(node, method, path, kind, body).await;
        assert!((400..500).contains(&status), "{method} {path}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_value_is_found_anywhere_after_all_that_can_be_done_with_it() {
    const NEXT: &str = "qv33-another-value-of-the-same-secret-9021";
    let start = Start::new(EXE).env("CLOISTER_LOG", "trace");
    let node = start.args(&["--access-log", "both"]).node().await;
    let mut traces = Traces {
        said: String::new(),
    };
    node.deploy("app", probe()).done().await;
    traces.command(
        &node,
        "secret set app PASSWORD --json",
        &format!("{VALUE}\n"),
    );
    traces.command(&node, "secret set app OTHER --no-deploy", VALUE);
    assert!(seen(&node).await.contains(VALUE));

    // Used, and failing in the ways that write something.
    for path in [
        "/hello",
        "/print",
        "/trap/unreachable",
        "/trap-in-body",
        "/exit",
        "/status?500",
    ] {
        let answer = node.try_get("app", path).await;
        traces.said += &answer.map_or_else(|e| format!("{e:#}"), |answer| answer.text());
    }
    refusals(&mut traces, &node, VALUE).await;
    traces.command(&node, "secret set app 1BAD", VALUE);
    traces.command(&node, "secret rotate app NOBODY", VALUE);
    traces.command(&node, "secret rotate app PASSWORD", NEXT);
    assert!(seen(&node).await.contains(NEXT));
    traces.command(&node, "secret rotate-key --json", "");

    for line in [
        "secret list app --json",
        "config list app --json",
        "deployments app --json",
        "apps --json",
        "tenants --json",
        "status --json",
        "audit --json",
        "logs app --json",
        "logs app --stream system,access --json",
        "metrics --json",
    ] {
        traces.command(&node, line, "");
    }
    assert!(traces.said.contains("trap") && traces.said.contains("json-invalid"));
    assert!(
        traces.said.contains("secrets/PASSWORD"),
        "the audit log is there"
    );
    for value in [VALUE, NEXT] {
        traces.check(&node, value);
    }

    // Nor does what is left after a crash, and of a node that has read it all again.
    let node = node.kill().node().await;
    assert!(seen(&node).await.contains(NEXT));
    for value in [VALUE, NEXT] {
        traces.check(&node, value);
    }
    traces.command(&node, "secret unset app PASSWORD --json", "");
    traces.command(&node, "delete app --json", "");
    for value in [VALUE, NEXT] {
        traces.check(&node, value);
    }
}

/// A guest has to have its secrets in memory, and nothing else of its worker has: neither the process's own memory nor a core
/// file.
#[tokio::test(flavor = "multi_thread")]
async fn no_core_file_of_a_worker_has_a_value() {
    for isolation in ["instance", "vm"] {
        let node = Node::start(EXE).await;
        node.deploy("app", probe())
            .isolation(isolation)
            .done()
            .await;
        set(&node, "PASSWORD", VALUE).await;
        for _ in 0..3 {
            assert!(seen(&node).await.contains(VALUE));
        }
        let worker = node.admin.worker("default").await.unwrap();
        // As text, and as numbers in JSON.
        let numbers = VALUE.bytes().map(|byte| byte.to_string());
        let numbers = numbers.collect::<Vec<_>>().join(",");
        for text in [VALUE, &numbers] {
            match process::memory_with(worker, text.as_bytes()) {
                Ok(found) => {
                    let dumped: Vec<_> = found.iter().filter(|found| found.dumped).collect();
                    assert!(dumped.is_empty(), "{isolation}: {dumped:?}");
                    assert_eq!(!found.is_empty(), text == VALUE, "the guest has it");
                }
                // Only root may look at a worker.
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied),
            }
        }
        process::abort(worker);
        until(SOON, "the worker's end", || async {
            node.said().contains("worker ended").then_some(())
        })
        .await;
        // The signal's number, without the 128 that stands for a core file.
        let status = format!("unix_wait_status({})", Signal::ABORT.as_raw());
        assert!(node.said().contains(&status), "{}", node.said());
        node.served_again("app", SOON).await;
    }
}

/// The daemon has the values of what it serves in its memory; no core file of it is made.
#[tokio::test(flavor = "multi_thread")]
async fn no_core_file_of_the_node_is_made() {
    let mut node = Node::start(EXE).await;
    node.deploy("app", probe()).done().await;
    set(&node, "PASSWORD", VALUE).await;
    process::abort(node.pid());
    let status = node.ended(SOON).await;
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()));
    assert!(!status.core_dumped());
    assert_eq!(files_with(node.data(), VALUE), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_the_environment_is_replaced_by_starting_with_both() {
    let old = "11".repeat(32);
    let new = "22".repeat(32);
    let first = Start::new(EXE).env("CLOISTER_KEY", &old).node().await;
    first.deploy("app", probe()).done().await;
    set(&first, "PASSWORD", VALUE).await;
    let answer = rotate_key(&first).await;
    assert_eq!(answer.problem(), "key-from-environment");
    let start = first.stop().await;
    let both = start.clone().env("CLOISTER_KEY", &format!("{new},{old}"));
    let node = both.node().await;
    assert!(seen(&node).await.contains(VALUE));
    assert!(!node.said().contains(&old) && !node.said().contains(&new));
    assert_eq!(files_with(node.data(), &old), Vec::<String>::new());
    // From now on the new one is enough, and the old one is not.
    node.stop().await;
    let node = start.clone().env("CLOISTER_KEY", &new).node().await;
    assert!(seen(&node).await.contains(VALUE));
    node.stop().await;
    let ended = start.env("CLOISTER_KEY", &old).refused().await;
    assert_eq!(ended.status.code(), Some(5), "{}", ended.said);
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
