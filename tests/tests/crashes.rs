//! Processes killed at the worst moment: what was acknowledged is served, the rest is gone, others never notice.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cloister_tests::client::{self, Connection};
use cloister_tests::fixture::{probe, saying};
use cloister_tests::node::Start;
use cloister_tests::wait::{SOON, until, within};
use cloister_tests::{Node, process};

const EXE: &str = env!("CARGO_BIN_EXE_cloister-node");

/// How long the apps of a worker that died may be without an answer.
const BACK: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_under_load_takes_only_its_own_requests_along() {
    let node = Arc::new(Node::start(EXE).await);
    node.deploy("app", probe()).tenant("victim").done().await;
    node.deploy("app", probe()).tenant("other").done().await;
    let stop = Arc::new(AtomicBool::new(false));
    let failed = Arc::new(AtomicU32::new(0));
    let served = Arc::new(AtomicU32::new(0));
    let mut clients = Vec::new();
    for _ in 0..4 {
        for (tenant, may_fail) in [("victim", true), ("other", false)] {
            let (node, stop) = (Arc::clone(&node), Arc::clone(&stop));
            let (failed, served) = (Arc::clone(&failed), Arc::clone(&served));
            clients.push(tokio::spawn(async move {
                let host = format!("app.{tenant}.localhost");
                let mut connection = Connection::h1(node.listen).await.unwrap();
                while !stop.load(Ordering::Relaxed) {
                    let request = connection.request("GET", &host, "/hello", client::empty());
                    let answer = within(
                        SOON,
                        "an answer while workers die",
                        connection.call(request),
                    )
                    .await;
                    // Even of the victim every request gets an answer.
                    let answer =
                        answer.unwrap_or_else(|e| panic!("{tenant}: the connection broke: {e}"));
                    if answer.status == 200 {
                        served.fetch_add(1, Ordering::Relaxed);
                    } else {
                        assert!(may_fail, "{tenant}: {}", answer.text());
                        assert!(
                            answer.status == 502 || answer.status == 503,
                            "{}",
                            answer.text()
                        );
                        let code = answer.problem();
                        assert!(
                            ["sandbox-lost", "sandbox-not-ready"].contains(&code.as_str()),
                            "{code}"
                        );
                        failed.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
            }));
        }
    }
    let mut times = Vec::new();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let worker = node.admin.worker("victim").await.unwrap();
        let neighbour = node.admin.worker("other").await.unwrap();
        process::kill(worker);
        let killed = Instant::now();
        until(SOON, "the victim to answer again", || async {
            let fresh = node
                .admin
                .worker("victim")
                .await
                .filter(|pid| *pid != worker);
            fresh?;
            let answer = client::get(node.listen, "app.victim.localhost", "/hello")
                .await
                .ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
        times.push(killed.elapsed());
        assert_eq!(
            node.admin.worker("other").await,
            Some(neighbour),
            "the neighbour's worker is another"
        );
    }
    // Machines that run tests stutter; not three times of five.
    times.sort();
    assert!(times[2] < BACK, "back after {times:?}");
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let status = node.admin.get("/v1/status").await;
    let worker = status["workers"]
        .as_array()
        .unwrap()
        .iter()
        .find(|w| w["tenant"] == "victim")
        .unwrap()
        .clone();
    assert!(worker["restarts"].as_u64().unwrap() >= 5, "{worker}");
    assert!(
        served.load(Ordering::Relaxed) > 100,
        "{served:?} requests, {failed:?} failed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_in_the_middle_of_a_body_cuts_the_body() {
    let node = Node::start(EXE).await;
    node.deploy("app", probe()).done().await;
    let mut connection = Connection::h1(node.listen).await.unwrap();
    let request = connection.request("GET", "app.localhost", "/drip?1000", client::empty());
    let response = connection.send(request).await.unwrap();
    process::kill(node.admin.worker("default").await.unwrap());
    let rest = within(
        SOON,
        "the end of a body whose VM is gone",
        client::Answer::of(response),
    )
    .await;
    assert!(rest.is_err(), "a cut body looks whole");
    node.served_again("app", SOON).await;
}

/// How often the daemon is killed in the test below; more with the environment variable `CLOISTER_CRASH_ROUNDS`.
fn rounds() -> u32 {
    std::env::var("CLOISTER_CRASH_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(10)
}

/// The number in the text that an app serves; `None` when there is no such app.
async fn served(node: &Node, app: &str) -> Option<u32> {
    let answer = node.get(app, "/").await;
    if answer.status == 404 {
        return None;
    }
    let text = answer.text();
    Some(
        text.strip_prefix("number ")
            .unwrap_or_else(|| panic!("{app}: {text}"))
            .parse()
            .unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_at_any_moment_of_a_deploy_keeps_its_word() {
    let mut start = Start::new(EXE);
    let mut acknowledged: Option<u32> = None;
    let mut number = 0;
    for round in 0..rounds() {
        let node = Arc::new(start.clone().node().await);
        let now = served(&node, "app").await;
        // What was acknowledged, or the one that was under way when the daemon died: it may have got there.
        let fair = now == acknowledged || (now == Some(number) && number > 0);
        assert!(
            fair,
            "round {round}: serves {now:?}; acknowledged {acknowledged:?}, last tried {number}"
        );
        // What is listed is served, and nothing else is.
        let apps = node.admin.list("/v1/apps").await;
        assert_eq!(
            apps.len(),
            usize::from(now.is_some()),
            "round {round}: {apps:?}"
        );
        let made = if now.is_some() {
            node.admin
                .list("/v1/tenants/default/apps/app/deployments")
                .await
        } else {
            Vec::new()
        };
        let active = made.iter().filter(|d| d["active"] == true).count();
        assert_eq!(
            active,
            usize::from(now.is_some()),
            "round {round}: {made:?}"
        );
        acknowledged = now;

        // One deploy after another until the daemon dies in the middle of one.
        let dies = Duration::from_millis(20 + u64::from(round) * 61 % 700);
        let killer = {
            let pid = node.pid();
            tokio::spawn(async move {
                tokio::time::sleep(dies).await;
                process::kill(pid);
            })
        };
        loop {
            number += 1;
            let component = saying(&format!("number {number}"));
            match node.deploy("app", &component).try_send().await {
                Ok(answer) if answer.status == 201 => acknowledged = Some(number),
                Ok(answer) => panic!("round {round}: {}", answer.text()),
                Err(_) => break,
            }
        }
        killer.await.unwrap();
        let node = Arc::into_inner(node).unwrap();
        start = node.kill();
    }
    // Nothing of the deploys that were cut is left: a clean folder has about as much.
    let node = start.node().await;
    let now = served(&node, "app").await;
    assert!(
        now == acknowledged || now == Some(number),
        "at the end {now:?}; acknowledged {acknowledged:?}"
    );
    node.deploy("app", &saying("number 1000000")).done().await;
    assert_eq!(served(&node, "app").await, Some(1_000_000));
    let leftovers: Vec<_> = std::fs::read_dir(node.data().join("components"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("upload-"))
        .collect();
    assert!(leftovers.is_empty(), "{leftovers:?}");
}
