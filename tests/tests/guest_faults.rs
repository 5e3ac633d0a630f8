//! What a component may do to itself: it ends with a clear error, and nobody else notices.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::time::{Duration, Instant};

use cloister_tests::Node;
use cloister_tests::client::{self, Connection};
use cloister_tests::fixture::{probe, saying};
use cloister_tests::wait::{SOON, until, within};
use serde_json::json;
use tokio::sync::OnceCell;

const EXE: &str = env!("CARGO_BIN_EXE_cloister-node");

/// The longest that anything without limits of its own may run.
const BY_ITSELF: Duration = Duration::from_secs(60);

/// A node with `probe` (but for processor time, default limits), `tight` and `brief` (short ones) and `other`, whom nothing may touch.
async fn node() -> &'static Node {
    static NODE: OnceCell<Node> = OnceCell::const_new();
    NODE.get_or_init(|| async {
        let node = Node::start(EXE).await;
        // Processor time is counted where it is spent: on a busy machine it takes several times as long.
        let limits = json!({ "cpu_ms": 2000 });
        node.deploy("probe", probe()).limits(limits).done().await;
        let limits = json!({ "head_timeout_ms": 2500, "wall_ms": 5000 });
        node.deploy("brief", probe()).limits(limits).done().await;
        let limits = json!({ "cpu_ms": 400, "post_return_ms": 1000, "concurrency": 8,
            "memory_bytes": 33_554_432, "vm_memory_bytes": 134_217_728 });
        node.deploy("tight", probe()).limits(limits).done().await;
        node.deploy("other", &saying("other"))
            .tenant("neighbour")
            .done()
            .await;
        node
    })
    .await
}

/// The neighbour answers, and in a reasonable time.
async fn neighbour_is_well() {
    let node = node().await;
    let begin = Instant::now();
    let answer = client::get(node.listen, "other.neighbour.localhost", "/")
        .await
        .unwrap();
    assert_eq!(answer.text(), "other");
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "the neighbour took {:?}",
        begin.elapsed()
    );
}

/// The path is answered with this status and code, several times, and the app goes on.
async fn fails(app: &str, path: &str, status: u16, code: &str) {
    let node = node().await;
    for round in 0..3 {
        let answer = node.get(app, path).await;
        assert_eq!(
            (answer.status.as_u16(), answer.problem().as_str()),
            (status, code),
            "{path}, round {round}: {}",
            answer.text()
        );
        let again = node.get(app, "/counter").await;
        assert_eq!(again.text(), "1", "after {path}: {again:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn traps_are_a_500_and_cost_no_vm() {
    let node = node().await;
    let before = node.admin.vm("default", "probe").await.unwrap();
    let traps = [
        "unreachable",
        "out-of-bounds",
        "store-out-of-bounds",
        "fill-out-of-bounds",
        "divide-by-zero",
        "overflow",
        "conversion",
        "null-call",
        "signature",
        "table-bounds",
        "stack",
        "bad-handle",
    ];
    for trap in traps {
        fails("probe", &format!("/trap/{trap}"), 500, "component-trapped").await;
    }
    let after = node.admin.vm("default", "probe").await.unwrap();
    assert_eq!(
        before["restores"], after["restores"],
        "a trap costs the request only"
    );
    let count = |vm: &serde_json::Value| vm["traps"].as_u64().unwrap();
    assert!(
        count(&after) >= count(&before) + 36,
        "{before} then {after}"
    );
    neighbour_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn traps_among_good_requests_harm_none_of_them() {
    let node = node().await;
    let rounds = (0..8).map(|lane| async move {
        let mut connection = Connection::h1(node.listen).await.unwrap();
        for round in 0..15 {
            let path = match (lane + round) % 4 {
                0 => "/trap/unreachable",
                1 => "/trap/stack",
                _ => "/counter",
            };
            let answer = connection.get("probe.localhost", path).await;
            match path {
                "/counter" => assert_eq!(answer.text(), "1"),
                _ => assert_eq!(answer.status, 500, "{path}: {}", answer.text()),
            }
        }
    });
    futures_util::future::join_all(rounds).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_response_is_told_as_such() {
    fails("probe", "/no-response", 500, "no-response").await;
    fails("probe", "/drop-outparam", 500, "no-response").await;
    fails("probe", "/error-code", 500, "component-error").await;
    let answer = node().await.get("probe", "/exit").await;
    assert_eq!(answer.status, 500, "{}", answer.text());
    let _ = answer.problem();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_after_the_head_cuts_the_body() {
    let node = node().await;
    for path in [
        "/trap-after-head",
        "/trap-in-body",
        "/body-dropped",
        "/short-body",
    ] {
        let cut = within(BY_ITSELF, path, node.try_get("probe", path)).await;
        // The head may not have left yet: then there is room for an error.
        if let Ok(answer) = cut {
            assert_eq!(answer.status, 500, "{path} looks whole: {answer:?}");
        }
        // On HTTP/2 the stream is reset, and the connection lives.
        let mut h2 = Connection::h2(node.listen).await.unwrap();
        let request = h2.request("GET", "probe.localhost", path, client::empty());
        if let Ok(answer) = within(BY_ITSELF, path, h2.call(request)).await {
            assert_eq!(answer.status, 500, "{path} looks whole: {answer:?}");
        }
        assert_eq!(h2.get("probe.localhost", "/counter").await.text(), "1");
    }
    // What is longer than its length ends there, and is never seen as a second answer.
    let answer = node.get("probe", "/long-body").await;
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (200, "Hello!\n")
    );
    neighbour_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_loop_ends_by_itself_and_others_are_served_meanwhile() {
    let node = node().await;
    let begin = Instant::now();
    let spin = tokio::spawn(node.get("probe", "/spin"));
    tokio::time::sleep(Duration::from_millis(300)).await;
    for _ in 0..5 {
        neighbour_is_well().await;
        // The same app, the same VM.
        let answer = within(
            Duration::from_secs(10),
            "an answer beside an endless loop",
            node.get("probe", "/counter"),
        )
        .await;
        assert_eq!(answer.text(), "1");
    }
    assert!(!spin.is_finished(), "the loop ended at once");
    let answer = within(BY_ITSELF, "the end of an endless loop", spin)
        .await
        .unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.problem().as_str()),
        (504, "cpu-limit"),
        "{}",
        answer.text()
    );
    assert!(begin.elapsed() < BY_ITSELF, "{:?}", begin.elapsed());
    assert_eq!(node.get("probe", "/counter").await.text(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn processor_time_is_limited_wherever_it_is_spent() {
    for path in [
        "/spin",
        "/allocate-forever",
        "/work?100000",
        "/fill-forever",
        "/heads-forever",
    ] {
        let begin = Instant::now();
        fails("tight", path, 504, "cpu-limit").await;
        assert!(
            begin.elapsed() < Duration::from_secs(25),
            "{path}: {:?} for three times 0.4 s",
            begin.elapsed()
        );
    }
    // Through the runtime rather than in the component's own code: processor time or memory, whichever is first.
    let node = node().await;
    for path in [
        "/handles-forever",
        "/pollables-forever",
        "/fields-forever",
        "/flood-stdout?10240",
    ] {
        let answer = within(BY_ITSELF, path, node.get("tight", path)).await;
        assert!(answer.status.is_server_error(), "{path}: {answer:?}");
        let code = answer.problem();
        assert!(
            ["cpu-limit", "memory-limit", "component-trapped", "deadline"].contains(&code.as_str()),
            "{path}: {code}"
        );
        node.served_again("tight", SOON).await;
    }
    neighbour_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sleeping_costs_no_processor_time() {
    let node = node().await;
    let begin = Instant::now();
    let sleeps = (0..8).map(|_| node.get("tight", "/sleep?1500"));
    for answer in futures_util::future::join_all(sleeps).await {
        assert_eq!(answer.text(), "slept\n");
    }
    assert!(
        begin.elapsed() < Duration::from_secs(8),
        "eight sleeps of 1.5 s took {:?}",
        begin.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_has_an_end_too() {
    let begin = Instant::now();
    let node = node().await;
    let answer = node.get("brief", "/wait-forever").await;
    assert_eq!(
        (answer.status.as_u16(), answer.problem().as_str()),
        (504, "deadline"),
        "{}",
        answer.text()
    );
    assert!(
        answer.text().contains("head_timeout_ms"),
        "{}",
        answer.text()
    );
    assert!(
        begin.elapsed() > Duration::from_millis(2300) && begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
    // A body that does not end: cut at wall_ms.
    let begin = Instant::now();
    let cut = within(
        BY_ITSELF,
        "the end of an endless drip",
        node.try_get("brief", "/drip?100000"),
    )
    .await;
    assert!(cut.is_err(), "an endless body looks whole");
    assert!(
        begin.elapsed() > Duration::from_secs(4),
        "{:?}",
        begin.elapsed()
    );
    let cut = within(
        BY_ITSELF,
        "the end of a loop after the head",
        node.try_get("tight", "/spin-after-head"),
    )
    .await;
    assert!(cut.is_err(), "a body that a loop never ended looks whole");
    assert_eq!(node.get("tight", "/counter").await.text(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_after_the_response_is_ended() {
    let node = node().await;
    for _ in 0..20 {
        assert_eq!(
            node.get("tight", "/spin-after-body").await.text(),
            "Hello!\n"
        );
    }
    let what = "the loops to be ended, so that others get their turn";
    within(BY_ITSELF, what, node.get("tight", "/counter")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_limited() {
    let node = node().await;
    for app in ["tight", "probe"] {
        for path in ["/allocate", "/allocate-and-touch", "/grow-table"] {
            let answer = node.get(app, path).await;
            let told = answer.status == 507 && answer.text() == "refused\n";
            assert!(
                told || answer.status.is_server_error(),
                "{app} {path}: {answer:?}"
            );
            assert_eq!(node.get(app, "/counter").await.text(), "1");
        }
    }
    // Many at the same time do not get more than the VM has.
    let all = (0..8).map(|_| node.get("tight", "/allocate-and-touch"));
    for answer in futures_util::future::join_all(all).await {
        assert!(answer.status.is_server_error(), "{answer:?}");
    }
    let vm = node.admin.vm("default", "tight").await.unwrap();
    let resident = vm["resident_bytes"].as_u64().unwrap();
    assert!(
        resident <= 160 << 20,
        "a VM of 128 MiB has {} MiB",
        resident >> 20
    );
    node.served_again("tight", SOON).await;
    neighbour_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_is_as_deep_as_elsewhere() {
    // 512 KiB, in frames of a little more than 32 bytes.
    let node = node().await;
    assert_eq!(node.get("probe", "/deep?8000").await.text(), "deep\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_too_large_are_refused() {
    let node = node().await;
    for path in [
        "/many-headers?100000",
        "/huge-header?1024",
        "/huge-header?100",
    ] {
        let answer = node.get("probe", path).await;
        assert!(
            answer.status.is_server_error(),
            "{path}: {} with {} fields",
            answer.status,
            answer.headers.len()
        );
        let code = answer.problem();
        assert!(
            [
                "response-head-too-large",
                "component-trapped",
                "bad-response"
            ]
            .contains(&code.as_str()),
            "{path}: {code}"
        );
    }
    let answer = node.get("probe", "/many-headers?100").await;
    assert_eq!(answer.headers.get_all("x-many").iter().count(), 100);
    let answer = node.get("probe", "/huge-header?20").await;
    assert_eq!(answer.header("x-huge").len(), 20 << 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_are_not_the_components_are_refused() {
    let node = node().await;
    for (path, error) in [
        ("crlf", "1"),
        ("nul", "1"),
        ("name", "1"),
        ("connection", "2"),
        ("te", "2"),
        ("keep-alive", "2"),
        ("upgrade", "2"),
    ] {
        let answer = node.get("probe", &format!("/bad-field/{path}")).await;
        assert_eq!(answer.text(), error, "{path}");
        assert!(answer.headers.get("x-injected").is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn output_without_end_is_bounded() {
    let node = node().await;
    // By default it is the processor's time that ends it, or it gets through: 10 GB of lines.
    let limit = Duration::from_secs(100);
    let answer = within(
        limit,
        "the end of 10 GB of output",
        node.try_get("probe", "/flood-stdout?10240"),
    )
    .await;
    if let Ok(answer) = answer {
        assert!(
            answer.status == 200 || answer.status.is_server_error(),
            "{answer:?}"
        );
    }
    let logs = node.data().join("logs");
    let size = std::process::Command::new("du")
        .arg("-sm")
        .arg(&logs)
        .output()
        .unwrap();
    let size = String::from_utf8_lossy(&size.stdout).into_owned();
    let mib: u64 = size.split_whitespace().next().unwrap().parse().unwrap();
    assert!(mib < 200, "the log has {mib} MiB");
    let resident = cloister_tests::process::resident_bytes(node.pid()) >> 20;
    assert!(resident < 400, "the daemon has {resident} MiB");
    // What comes later is still logged.
    node.get("probe", "/print").await;
    node.logged("probe", "a line to stdout", 1).await;
    neighbour_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_body_ends_with_its_reader() {
    let node = Node::start(EXE).await;
    node.deploy("one", probe())
        .limits(json!({ "concurrency": 1 }))
        .done()
        .await;
    for _ in 0..5 {
        let mut connection = Connection::h1(node.listen).await.unwrap();
        let request = connection.request("GET", "one.localhost", "/endless", client::empty());
        let response = connection.send(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        let mut got = 0;
        while got < 1 << 20 {
            use http_body_util::BodyExt;
            got += body
                .frame()
                .await
                .unwrap()
                .unwrap()
                .into_data()
                .unwrap()
                .len();
        }
        drop(body);
        drop(connection);
        // The app runs one request at a time: this one's turn comes when the other was given up.
        let begin = Instant::now();
        let what = "the turn after an endless body whose reader is gone";
        until(Duration::from_secs(10), what, || async {
            let answer = node.try_get("one", "/counter").await.ok()?;
            (answer.text() == "1").then_some(())
        })
        .await;
        assert!(
            begin.elapsed() < Duration::from_secs(5),
            "{:?}",
            begin.elapsed()
        );
    }
}
