//! What operators do: deploy, deploy again, list, read logs, delete, restart, stop.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use cloister_tests::client::{self, Connection, empty};
use cloister_tests::fixture::{probe, saying};
use cloister_tests::wait::{SOON, until, within};
use cloister_tests::{Node, process};
use http::StatusCode;

const EXE: &str = env!("CARGO_BIN_EXE_cloister-node");

#[tokio::test(flavor = "multi_thread")]
async fn deploy_tells_what_it_made_and_the_app_answers() {
    let node = Node::start(EXE).await;
    let made = node.deploy("hello", &saying("first")).done().await;
    assert_eq!(made["app"], "hello");
    assert_eq!(made["tenant"], "default");
    assert_eq!(made["deployment"], 1);
    assert_eq!(made["active"], true);
    assert!(
        made["digest"].as_str().unwrap().starts_with("sha256:"),
        "{made}"
    );
    let url = format!("http://hello.localhost:{}/", node.listen.port());
    assert_eq!(made["url"], url.as_str());

    let answer = node.get("hello", "/").await;
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (StatusCode::OK, "first")
    );

    let apps = node.admin.list("/v1/apps").await;
    assert_eq!(apps.len(), 1, "{apps:?}");
    assert_eq!(apps[0]["app"], "hello");
    assert_eq!(apps[0]["url"], url.as_str());
    assert_eq!(apps[0]["digest"], made["digest"]);
    let status = node.admin.get("/v1/status").await;
    for member in ["version", "uptime_seconds", "wasmtime"] {
        assert!(!status[member].is_null(), "no {member}: {status}");
    }
    let vm = node.admin.vm("default", "hello").await.unwrap();
    assert_eq!(vm["deployment"], 1, "{vm}");
    assert_eq!(vm["requests"], 1, "{vm}");
    assert!(vm["resident_bytes"].as_u64().unwrap() > 100_000, "{vm}");
    for member in ["traps", "restores"] {
        assert_eq!(vm[member], 0, "{vm}");
    }
    assert!(vm["exits"].is_u64(), "{vm}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_deployment_takes_over_without_a_failed_request() {
    let node = Arc::new(Node::start(EXE).await);
    node.deploy("hello", &saying("text 0")).done().await;
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU32::new(0));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (node, stop, answered) =
                (Arc::clone(&node), Arc::clone(&stop), Arc::clone(&answered));
            tokio::spawn(async move {
                let mut connection = Connection::h1(node.listen).await.unwrap();
                let mut newest = 0;
                while !stop.load(Ordering::Relaxed) {
                    let answer = connection.get("hello.localhost", "/").await;
                    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
                    let number: u32 = answer
                        .text()
                        .strip_prefix("text ")
                        .unwrap()
                        .parse()
                        .unwrap();
                    assert!(number >= newest, "{number} after {newest}");
                    newest = number;
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for round in 1..=5 {
        let made = node
            .deploy("hello", &saying(&format!("text {round}")))
            .done()
            .await;
        assert_eq!(made["deployment"], round + 1);
        assert_eq!(node.get("hello", "/").await.text(), format!("text {round}"));
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    assert!(
        answered.load(Ordering::Relaxed) >= 20,
        "{answered:?} requests"
    );

    let made = node
        .admin
        .list("/v1/tenants/default/apps/hello/deployments")
        .await;
    assert_eq!(made.len(), 6, "{made:?}");
    let active: Vec<_> = made.iter().filter(|d| d["active"] == true).collect();
    assert_eq!(active.len(), 1, "{made:?}");
    assert_eq!(active[0]["deployment"], 6);
    let what = "the VMs of the earlier deployments to be gone";
    until(SOON, what, || async {
        let status = node.admin.get("/v1/status").await;
        let vms = status["vms"].as_array().unwrap();
        let live = vms.iter().filter(|vm| vm["state"] != "stopped");
        (live.count() == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_runs_during_a_deploy_ends_well() {
    let node = Arc::new(Node::start(EXE).await);
    node.deploy("app", probe()).done().await;
    let slow = {
        let node = Arc::clone(&node);
        tokio::spawn(async move { node.get("app", "/drip?20").await })
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    node.deploy("app", &saying("new")).done().await;
    assert_eq!(node.get("app", "/").await.text(), "new");
    let slow = slow.await.unwrap();
    assert_eq!(
        (slow.status, slow.text()),
        (StatusCode::OK, "drip\n".repeat(20))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_gives_up_its_vms_at_once_is_deployed_and_answers() {
    let node = Node::start(EXE).await;
    for round in 0..20 {
        // Deploys and requests fall on different moments between two looks at what is idle.
        let deploy = node.deploy("brief", probe());
        deploy.scale(serde_json::json!({"idle_ms": 0})).done().await;
        for request in 0..3 {
            tokio::time::sleep(Duration::from_millis((17 * round + 40 * request) % 100)).await;
            let answer = node.get("brief", "/hello").await;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_is_gone() {
    let node = Node::start(EXE).await;
    node.deploy("stays", &saying("stays")).done().await;
    node.deploy("goes", &saying("goes")).done().await;
    let answer = node.admin.delete("/v1/tenants/default/apps/goes").await;
    assert!(answer.status.is_success(), "{}", answer.text());
    let answer = node.get("goes", "/").await;
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (StatusCode::NOT_FOUND, "app-not-found")
    );
    assert_eq!(node.get("stays", "/").await.text(), "stays");
    let apps = node.admin.list("/v1/tenants/default/apps").await;
    assert_eq!(apps.len(), 1, "{apps:?}");
    let again = node.admin.delete("/v1/tenants/default/apps/goes").await;
    assert_eq!(
        (again.status, again.problem().as_str()),
        (StatusCode::NOT_FOUND, "app-not-found")
    );
    let what = "the VM of the deleted app to be gone";
    until(SOON, what, || async {
        node.admin
            .vm("default", "goes")
            .await
            .is_none()
            .then_some(())
    })
    .await;
    // The name is free again, and begins anew or goes on, but never answers with what was deleted.
    node.deploy("goes", &saying("came back")).done().await;
    assert_eq!(node.get("goes", "/").await.text(), "came back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_loses_nothing() {
    let node = Node::start(EXE).await;
    node.deploy("hello", &saying("first")).done().await;
    let made = node.deploy("hello", &saying("second")).done().await;
    node.deploy("env", probe())
        .env("COLOUR", "green and blue")
        .tenant("other")
        .done()
        .await;
    let token = node.admin.token.clone();
    let start = node.stop().await;

    let node = start.node().await;
    assert_eq!(node.admin.token, token, "the token changed");
    assert_eq!(node.get("hello", "/").await.text(), "second");
    let answer = client::get(node.listen, "env.other.localhost", "/env")
        .await
        .unwrap();
    assert_eq!(answer.text(), "COLOUR=green and blue\n");
    let apps = node.admin.list("/v1/apps").await;
    assert_eq!(apps.len(), 2, "{apps:?}");
    let hello = apps.iter().find(|app| app["app"] == "hello").unwrap();
    assert_eq!(hello["digest"], made["digest"]);
    let third = node.deploy("hello", &saying("third")).done().await;
    assert_eq!(third["deployment"], 3);
    assert_eq!(node.get("hello", "/").await.text(), "third");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_tenant_has_a_process_and_the_daemon_has_no_kvm() {
    let node = Node::start(EXE).await;
    node.deploy("app", &saying("of red"))
        .tenant("red")
        .done()
        .await;
    node.deploy("app", &saying("of blue"))
        .tenant("blue")
        .done()
        .await;
    node.deploy("two", &saying("two of blue"))
        .tenant("blue")
        .done()
        .await;
    for (host, text) in [
        ("app.red.localhost", "of red"),
        ("app.blue.localhost", "of blue"),
        ("two.blue.localhost", "two of blue"),
    ] {
        assert_eq!(
            client::get(node.listen, host, "/").await.unwrap().text(),
            text
        );
        assert!(
            !process::has_kvm(node.pid()),
            "{:?}",
            process::descriptors(node.pid())
        );
    }
    let red = node.admin.worker("red").await.unwrap();
    let blue = node.admin.worker("blue").await.unwrap();
    assert_ne!(red, blue);
    assert_ne!(red, node.pid());
    for worker in [red, blue] {
        assert!(
            process::has_kvm(worker),
            "{:?}",
            process::descriptors(worker)
        );
    }
    let children = process::children(node.pid());
    assert!(
        children.contains(&red) && children.contains(&blue),
        "{children:?}"
    );
    let status = node.admin.get("/v1/status").await;
    assert_eq!(status["workers"].as_array().unwrap().len(), 2, "{status}");
    // An app of one tenant is not reached through the other's name, nor through the default tenant's.
    for host in ["two.red.localhost", "app.localhost", "app.nobody.localhost"] {
        let answer = client::get(node.listen, host, "/").await.unwrap();
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (StatusCode::NOT_FOUND, "app-not-found"),
            "{host}"
        );
    }
    let start = node.kill();
    let what = "the workers to die with the daemon";
    until(SOON, what, || async {
        (!process::lives(red) && !process::lives(blue)).then_some(())
    })
    .await;
    drop(start);
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_are_made_listed_and_deleted_when_empty() {
    let node = Node::start(EXE).await;
    let put = |name: &'static str| {
        let admin = node.admin.clone();
        async move {
            admin
                .call(
                    "PUT",
                    &format!("/v1/tenants/{name}"),
                    "application/json",
                    empty(),
                )
                .await
        }
    };
    assert_eq!(put("red").await.status, StatusCode::CREATED);
    assert_eq!(put("red").await.status, StatusCode::OK);
    node.deploy("app", &saying("x")).tenant("red").done().await;
    let tenants = node.admin.list("/v1/tenants").await;
    let red = tenants.iter().find(|t| t["tenant"] == "red").unwrap();
    assert_eq!(red["apps"], 1);
    let refused = node.admin.delete("/v1/tenants/red").await;
    assert_eq!(
        (refused.status, refused.problem().as_str()),
        (StatusCode::CONFLICT, "tenant-not-empty")
    );
    assert!(
        node.admin
            .delete("/v1/tenants/red/apps/app")
            .await
            .status
            .is_success()
    );
    assert!(
        node.admin
            .delete("/v1/tenants/red")
            .await
            .status
            .is_success()
    );
    let tenants = node.admin.list("/v1/tenants").await;
    assert!(tenants.iter().all(|t| t["tenant"] != "red"), "{tenants:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn output_lands_in_the_log_with_its_stream_and_request() {
    let node = Node::start(EXE).await;
    node.deploy("app", probe()).done().await;
    let answer = node.get("app", "/print").await;
    let out = node.logged("app", "a line to stdout", 1).await;
    let err = node.logged("app", "a line to stderr", 1).await;
    assert_eq!(out[0]["stream"], "stdout");
    assert_eq!(err[0]["stream"], "stderr");
    assert_eq!(out[0]["line"], "a line to stdout");
    assert_eq!(out[0]["deployment"], 1);
    assert_eq!(out[0]["request"], answer.header("x-request-id").as_str());

    // Followed: what is printed later comes by itself.
    let mut connection = Connection::h1(node.admin.addr).await.unwrap();
    let request = http::Request::get("/v1/tenants/default/apps/app/logs?follow=true&tail=0")
        .header("host", "admin")
        .header("authorization", format!("Bearer {}", node.admin.token))
        .body(empty())
        .unwrap();
    let response = connection.send(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    node.get("app", "/print").await;
    let mut body = response.into_body();
    let mut seen = String::new();
    within(SOON, "a followed line", async {
        use http_body_util::BodyExt;
        while !seen.contains("a line to stdout") {
            let frame = body.frame().await.unwrap().unwrap();
            if let Some(data) = frame.data_ref() {
                seen.push_str(&String::from_utf8_lossy(data));
            }
        }
    })
    .await;
    assert!(
        seen.matches("a line to stdout").count() == 1,
        "tail=0 shows nothing older: {seen}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn work_after_the_response_is_done() {
    let node = Node::start(EXE).await;
    node.deploy("app", probe()).done().await;
    assert_eq!(node.get("app", "/after").await.text(), "early\n");
    node.logged("app", "a line after the response", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_api_wants_its_token() {
    let node = Node::start(EXE).await;
    let file = node.data().join("admin-token");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    let health = client::get(node.admin.addr, "admin", "/healthz")
        .await
        .unwrap();
    assert_eq!(health.status, StatusCode::OK);
    let health: serde_json::Value = serde_json::from_slice(&health.body).unwrap();
    assert_eq!(health["status"], "ok");

    let paths = [
        "/v1/status",
        "/v1/apps",
        "/v1/tenants",
        "/v1/tenants/default/apps/x/logs",
    ];
    for path in paths {
        let missing = client::get(node.admin.addr, "admin", path).await.unwrap();
        assert_eq!(
            (missing.status, missing.problem().as_str()),
            (StatusCode::UNAUTHORIZED, "token-missing")
        );
        assert!(
            missing.header("www-authenticate").starts_with("Bearer"),
            "{missing:?}"
        );
    }
    let mut admin = node.admin.clone();
    let right = admin.token.clone();
    let cut = right[..right.len() - 1].to_owned();
    for wrong in [
        "x".to_owned(),
        cut,
        format!("{right}x"),
        right.to_uppercase() + "x",
    ] {
        admin.token = wrong;
        let answer = admin
            .call("GET", "/v1/apps", "application/json", empty())
            .await;
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (StatusCode::UNAUTHORIZED, "token-wrong")
        );
    }
    // A refused deploy leaves nothing behind.
    let refused = admin.deploy("hello", &saying("x")).refused().await;
    assert_eq!(refused.code, "token-wrong");
    assert!(node.admin.list("/v1/apps").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_requests_end_and_takes_no_more() {
    let node = Node::start(EXE).await;
    node.deploy("app", probe()).done().await;
    let listen = node.listen;
    let slow = tokio::spawn(async move { client::get(listen, "app.localhost", "/drip?15").await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    process::terminate(node.pid());
    let what = "new connections to be refused";
    until(SOON, what, || async {
        tokio::net::TcpStream::connect(listen)
            .await
            .is_err()
            .then_some(())
    })
    .await;
    let slow = within(SOON, "the request in flight", slow)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(slow.text(), "drip\n".repeat(15));
    let mut node = node;
    let status = node.ended(SOON).await;
    assert!(status.success(), "{status}: {}", node.said());
}

/// A worker that is killed is told of as a warning, and so is each VM that it had; a node that stops ends them too, and warns of
/// nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_loss_is_warned_of_and_a_clean_stop_is_not() {
    let mut node = Node::start(EXE).await;
    for (app, isolation) in [("a", "instance"), ("b", "vm"), ("c", "reuse")] {
        let hello = saying("hello");
        let deploy = node.deploy(app, &hello).isolation(isolation);
        deploy.done().await;
        assert_eq!(node.get(app, "/").await.text(), "hello");
    }
    let warnings = |said: &str| {
        let lines = said.lines();
        let lines = lines.filter(|line| line.contains(" WARN ") || line.contains(" ERROR "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(warnings(&node.said()), Vec::<String>::new());

    process::kill(node.admin.worker("default").await.unwrap());
    until(SOON, "the loss of all three VMs in the log", || async {
        let warned = warnings(&node.said()).join("\n");
        let lost = warned.matches("VM is lost").count();
        (lost == 3 && warned.contains("worker ended")).then_some(())
    })
    .await;
    for app in ["a", "b", "c"] {
        node.served_again(app, SOON).await;
    }
    let before = warnings(&node.said());

    let status = node.terminate().await;
    assert!(status.success(), "{status}: {}", node.said());
    let said = until(SOON, "the last line of the log", || async {
        let said = node.said();
        said.contains(" stopped").then_some(said)
    })
    .await;
    assert_eq!(warnings(&said), before);
}
