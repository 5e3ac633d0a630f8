//! Who answers, under load: deploys, rollbacks and splits without a failed request, and canaries that are given up.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cloister_tests::client::{Answer, Connection, empty, full};
use cloister_tests::fixture::{probe, saying, saying_mostly};
use cloister_tests::wait::{SOON, until};
use cloister_tests::{Node, process};
use http::StatusCode;
use serde_json::{Value, json};

const EXE: &str = env!("CARGO_BIN_EXE_cloister-node");

/// The app, and where it is in the API.
const HOST: &str = "shop.localhost";
const APP: &str = "/v1/tenants/default/apps/shop";

/// Time that a canary has to be given up.
const GIVEN_UP: Duration = Duration::from_secs(10);

/// Changes under load; more with the environment variable `CLOISTER_RELEASE_ROUNDS`.
fn rounds() -> u64 {
    let rounds = std::env::var("CLOISTER_RELEASE_ROUNDS").ok();
    rounds.and_then(|n| n.parse().ok()).unwrap_or(40)
}

/// Calls the API, which has to do it.
async fn call(node: &Node, method: &str, path: &str, body: Value) -> Value {
    let path = format!("{APP}{path}");
    let body = match body {
        Value::Null => empty(),
        body => full(body.to_string()),
    };
    let answer = node
        .admin
        .call(method, &path, "application/json", body)
        .await;
    assert!(
        answer.status.is_success(),
        "{method} {path}: {}",
        answer.text()
    );
    serde_json::from_slice(&answer.body).unwrap_or(Value::Null)
}

/// Uploads a component; its digest.
async fn upload(node: &Node, component: &[u8]) -> String {
    let path = "/v1/tenants/default/components";
    let body = full(component.to_vec());
    let answer = node.admin.call("POST", path, "application/wasm", body);
    let answer: Value = serde_json::from_slice(&answer.await.body).unwrap();
    answer["digest"].as_str().unwrap().to_owned()
}

/// Which deployments may answer: a new set for each beginning and end of a change.
#[derive(Debug)]
struct Allowed(Mutex<Vec<BTreeSet<u64>>>);

impl Allowed {
    /// How many sets there were.
    fn now(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn set(&self, allowed: BTreeSet<u64>) {
        self.0.lock().unwrap().push(allowed);
    }

    /// Whether a deployment was allowed at any moment since there were so many sets.
    fn was(&self, number: u64, since: usize) -> bool {
        let sets = self.0.lock().unwrap();
        sets[since - 1..].iter().any(|set| set.contains(&number))
    }
}

/// Asks until it is told to stop, and looks at each answer. How many there were.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    /// Over three connections of HTTP/1.1 and over four streams of one of HTTP/2.
    async fn begin(
        addr: SocketAddr,
        path: &'static str,
        look: impl Fn(Answer, usize) + Clone + Send + 'static,
        now: impl Fn() -> usize + Clone + Send + 'static,
    ) -> Self {
        let (stop, answered) = (Arc::default(), Arc::default());
        let mut connections = Vec::new();
        for _ in 0..3 {
            connections.push(Connection::h1(addr).await.unwrap());
        }
        let h2 = Connection::h2(addr).await.unwrap();
        connections.extend((0..3).map(|_| h2.another()));
        connections.push(h2);
        let clients = connections.into_iter().map(|mut connection| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            let (look, now) = (look.clone(), now.clone());
            tokio::spawn(async move {
                while !AtomicBool::load(&stop, Ordering::Relaxed) {
                    let since = now();
                    let answer = connection.get(HOST, path).await;
                    look(answer, since);
                    AtomicU64::fetch_add(&answered, 1, Ordering::Relaxed);
                }
            })
        });
        let clients = clients.collect();
        Self {
            stop,
            answered,
            clients,
        }
    }

    /// Ends it; how many answers there were.
    async fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
        self.answered.load(Ordering::Relaxed)
    }
}

/// Deployments and their traffic, as the test changes them.
struct Changes<'a> {
    node: &'a Node,
    digest: String,
    allowed: Arc<Allowed>,
    answering: BTreeSet<u64>,
    last: u64,
    rolled: u64,
}

impl Changes<'_> {
    /// Makes a change after which just these answer.
    async fn change(&mut self, after: BTreeSet<u64>, method: &str, path: &str, body: Value) {
        let both = self.answering.union(&after).copied().collect();
        self.allowed.set(both);
        call(self.node, method, path, body).await;
        self.allowed.set(after.clone());
        self.answering = after;
    }

    async fn deploy(&mut self) {
        self.last += 1;
        let number = self.last;
        let body =
            json!({"digest": self.digest, "env": {"NUMBER": number.to_string()}, "health": "/env"});
        let after = BTreeSet::from([number]);
        self.change(after, "POST", "/deployments", body).await;
    }

    /// Changes who answers, in one of the ways in turn.
    async fn round(&mut self, round: u64) {
        let older = |back: u64| self.last.saturating_sub(back).max(1);
        match round % 5 {
            0 | 2 => self.deploy().await,
            1 => {
                let to = older(1 + round % 7);
                let after = BTreeSet::from([to]);
                let body = json!({"to": to});
                self.change(after, "POST", "/rollback", body).await;
                self.rolled += 1;
            }
            3 => {
                let (a, b) = (older(0), older(1 + round % 3));
                let shares =
                    json!([{"deployment": a, "weight": 70}, {"deployment": b, "weight": 30}]);
                let after = BTreeSet::from([a, b]);
                self.change(after, "PUT", "/traffic", json!({"shares": shares}))
                    .await;
            }
            _ => {
                let to = older(0);
                let after = BTreeSet::from([to]);
                let body = json!({"deployment": to});
                self.change(after, "POST", "/promote", body).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_who_answers_fail_no_request_and_drained_deployments_never_answer() {
    let node = Node::start(EXE).await;
    let digest = upload(&node, probe()).await;
    let allowed = Arc::new(Allowed(Mutex::new(vec![BTreeSet::from([1])])));
    let mut changes = Changes {
        node: &node,
        digest,
        allowed: Arc::clone(&allowed),
        answering: BTreeSet::from([1]),
        last: 0,
        rolled: 0,
    };
    changes.deploy().await;
    let look = {
        let allowed = Arc::clone(&allowed);
        move |answer: Answer, since: usize| {
            let text = answer.text();
            assert_eq!(answer.status, StatusCode::OK, "{text}");
            let number = text.trim().strip_prefix("NUMBER=").unwrap();
            let number = number.parse().unwrap();
            assert!(allowed.was(number, since), "{number} answered");
        }
    };
    let now = {
        let allowed = Arc::clone(&allowed);
        move || allowed.now()
    };
    let load = Load::begin(node.listen, "/env", look, now).await;
    let began = Instant::now();
    for round in 0..rounds() {
        changes.round(round).await;
    }
    let took = began.elapsed();
    let (last, rolled) = (changes.last, changes.rolled);
    let answering = changes.answering.len();
    let answered = load.end().await;
    println!(
        "{} changes ({last} deploys, {rolled} rollbacks) in {took:?}: {answered} answers, 0 of them failed",
        rounds()
    );
    assert!(answered >= 10 * rounds(), "{answered} answers");
    let history = node.admin.list(&format!("{APP}/history?limit=1000")).await;
    assert_eq!(history.len() as u64, rounds() + 1);
    until(
        SOON,
        "the VMs of drained deployments to be gone",
        || async {
            let status = node.admin.get("/v1/status").await;
            let vms = status["vms"].as_array().unwrap().clone();
            let live = vms.into_iter().filter(|vm| vm["state"] != "stopped");
            let live: BTreeSet<_> = live.map(|vm| vm["deployment"].as_u64()).collect();
            (live.len() <= answering).then_some(())
        },
    )
    .await;
}

/// Deploys a canary of which 5 % trap; a node with it.
async fn with_bad_canary() -> Node {
    let node = Node::start(EXE).await;
    node.deploy("shop", &saying("good")).done().await;
    let digest = upload(&node, &saying_mostly("new", 5)).await;
    let canary = json!({"steps": [10, 50], "step_seconds": 300, "abort_if": "error-rate>2%"});
    let body = json!({"digest": digest, "canary": canary, "approve": true});
    let made = call(&node, "POST", "/deployments", body).await;
    assert_eq!(
        (&made["weight"], &made["active"]),
        (&json!(10), &json!(false))
    );
    node
}

/// Waits under load until the canary was given up: how long that took, and what the history says.
async fn given_up(node: &Node) -> (Duration, Value, u64) {
    let look = |answer: Answer, _| {
        let text = answer.text();
        match answer.status {
            StatusCode::OK => assert!(["good", "new"].contains(&text.as_str()), "{text}"),
            status => assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{text}"),
        }
    };
    let load = Load::begin(node.listen, "/", look, || 1).await;
    let began = Instant::now();
    let line = until(SOON, "the canary to be given up", || async {
        let history = node.admin.list(&format!("{APP}/history?limit=1")).await;
        let line = history[0].clone();
        (line["action"] == "canary-aborted").then_some(line)
    })
    .await;
    let took = began.elapsed();
    let answered = load.end().await;
    (took, line, answered)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_of_which_a_twentieth_traps_is_given_up_within_ten_seconds() {
    let node = with_bad_canary().await;
    let (took, line, answered) = given_up(&node).await;
    println!(
        "given up after {took:?} and {answered} answers: {}",
        line["why"]
    );
    assert!(took < GIVEN_UP, "{took:?}: {line}");
    assert_eq!(line["who"], "node");
    let why = line["why"].as_str().unwrap();
    assert!(
        why.contains("% of its requests failed") && why.ends_with("error-rate>2%"),
        "{why}"
    );
    assert_eq!(
        line["traffic"]["shares"],
        json!([{"deployment": 1, "weight": 100}])
    );
    // What is in the history is served a moment later.
    until(SOON, "a hundred answers of the other one", || async {
        for _ in 0..100 {
            let answer = node.get("shop", "/").await;
            if answer.status != StatusCode::OK || answer.text() != "good" {
                return None;
            }
        }
        Some(())
    })
    .await;
    let path = format!("{APP}/canary");
    let none = node.admin.call("GET", &path, "application/json", empty());
    assert_eq!(none.await.problem(), "canary-not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_is_looked_after_by_the_daemon_that_comes_after_the_one_that_was_killed() {
    let node = with_bad_canary().await;
    process::kill(node.pid());
    let node = node.kill().node().await;
    let canary = node.admin.get(&format!("{APP}/canary")).await;
    assert_eq!(
        (&canary["deployment"], &canary["weight"]),
        (&json!(2), &json!(10))
    );
    let (took, line, _) = given_up(&node).await;
    assert!(took < GIVEN_UP, "{took:?}: {line}");
    assert_eq!(node.get("shop", "/").await.text(), "good");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_stays_with_its_side_where_that_is_asked_for() {
    let node = Node::start(EXE).await;
    node.deploy("shop", &saying("one")).done().await;
    node.deploy("shop", &saying("two")).done().await;
    let shares = json!([{"deployment": 1, "weight": 50}, {"deployment": 2, "weight": 50}]);
    let body = json!({"shares": shares, "sticky": "header:x-user"});
    call(&node, "PUT", "/traffic", body).await;
    let mut connection = Connection::h1(node.listen).await.unwrap();
    let mut sides = BTreeSet::new();
    for user in 0..40 {
        let mut first = None;
        for _ in 0..5 {
            let mut request = connection.request("GET", HOST, "/", empty());
            let name = format!("user-{user}").parse().unwrap();
            request.headers_mut().insert("x-user", name);
            let side = connection.call(request).await.unwrap().text();
            assert_eq!(first.get_or_insert_with(|| side.clone()), &side, "{user}");
            sides.insert(side);
        }
    }
    assert_eq!(sides.len(), 2, "{sides:?}");
}
