//! What cannot be deployed or asked for: each gets an error that says why, and changes nothing.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use cloister_tests::Node;
use cloister_tests::client::{self, Body, Connection, empty, full};
use cloister_tests::fixture::{self, probe, saying};
use cloister_tests::wait::within;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::sync::OnceCell;

const EXE: &str = env!("CARGO_BIN_EXE_cloister-node");

/// A node with the app `well`, which must answer whatever else happens.
async fn node() -> &'static Node {
    static NODE: OnceCell<Node> = OnceCell::const_new();
    NODE.get_or_init(|| async {
        let node = Node::start(EXE).await;
        node.deploy("well", &saying("well")).done().await;
        node
    })
    .await
}

/// Deploys what must be refused with 422 and this code, and a text with all these words.
async fn refused(app: &str, component: &[u8], code: &str, words: &[&str]) {
    let node = node().await;
    let refusal = node.deploy(app, component).refused().await;
    assert_eq!(
        (refusal.status, refusal.code.as_str()),
        (422, code),
        "{refusal:?}"
    );
    for word in words {
        assert!(
            refusal.detail.contains(word),
            "no {word:?} in: {}",
            refusal.detail
        );
    }
    assert!(
        !refusal.detail.contains(node.data().to_str().unwrap()),
        "a path shows: {}",
        refusal.detail
    );
    let apps = node.admin.list("/v1/apps").await;
    assert!(
        apps.iter().all(|a| a["app"] != app),
        "{app} is there: {apps:?}"
    );
    assert_eq!(node.get(app, "/").await.status, StatusCode::NOT_FOUND);
    assert_eq!(node.get("well", "/").await.text(), "well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_core_module() {
    refused(
        "core",
        &fixture::core_module(),
        "component-is-core-module",
        &["core module", "component"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text() {
    refused("text", b"(component)", "component-is-text", &["text"]).await;
    refused(
        "text",
        b"  ;; a comment\n(module)\n",
        "component-is-text",
        &["text"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_elf_file() {
    let program = std::fs::read(EXE).unwrap();
    refused("elf", &program[..1 << 20], "component-is-elf", &["ELF"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_file() {
    refused("empty", b"", "component-empty", &["empty"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_file() {
    let whole = probe();
    for len in [9, 100, whole.len() / 2, whole.len() - 1] {
        refused("cut", &whole[..len], "component-truncated", &["ends"]).await;
    }
    for len in [1, 4, 7] {
        let refusal = node().await.deploy("cut", &whole[..len]).refused().await;
        assert_eq!(refusal.status, 422, "{len} bytes: {refusal:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn noise() {
    refused(
        "noise",
        b"\x7f\x00 no such thing",
        "component-not-wasm",
        &["not WebAssembly"],
    )
    .await;
    // Every byte of the first few, and some later ones, flipped: never more than a refusal.
    let whole = saying("x");
    let node = node().await;
    for at in (8..40).chain((40..whole.len()).step_by(whole.len() / 12)) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        let answer = node.deploy("noise", &bytes).send().await;
        let status = answer.status;
        assert!(
            status == StatusCode::CREATED || status == StatusCode::UNPROCESSABLE_ENTITY,
            "byte {at}: {status} {}",
            answer.text()
        );
    }
    node.admin.delete("/v1/tenants/default/apps/noise").await;
    assert_eq!(node.get("well", "/").await.text(), "well");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_handler() {
    refused(
        "handlerless",
        &fixture::without_handler(),
        "component-no-handler",
        &["wasi:http/incoming-handler", "run"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_an_unknown_import() {
    refused(
        "import",
        &fixture::with_unknown_import(),
        "component-unknown-import",
        &["nowhere:else/door"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_5000_memories() {
    let spread = fixture::with_memories(50, 100);
    refused(
        "memories",
        &spread,
        "component-too-many-memories",
        &["linear memories or more", "100"],
    )
    .await;
    // The validator has limits of its own on the way there.
    for (instances, memories) in [(5000, 1), (1, 5000)] {
        let component = fixture::with_memories(instances, memories);
        let refusal = node().await.deploy("memories", &component).refused().await;
        let codes = ["component-invalid", "component-too-many-memories"];
        assert_eq!(refusal.status, 422, "{refusal:?}");
        assert!(codes.contains(&refusal.code.as_str()), "{refusal:?}");
        let detail = &refusal.detail;
        assert!(
            detail.contains("limit") || detail.contains("at most"),
            "{refusal:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_300_mb() {
    let node = node().await;
    let upload = |length: Option<u64>| async move {
        let mut connection = Connection::h1(node.admin.addr).await.unwrap();
        let mut request = Request::post("/v1/tenants/default/components")
            .header("host", "admin")
            .header("content-type", "application/wasm")
            .header("authorization", format!("Bearer {}", node.admin.token));
        if let Some(length) = length {
            request = request.header("content-length", length);
        }
        // Zeros made as they are sent: nobody holds 300 MB.
        let block = bytes::Bytes::from(vec![0; 1 << 20]);
        let frames =
            (0..300).map(move |_| Ok::<_, std::io::Error>(hyper::body::Frame::data(block.clone())));
        let body: Body = StreamBody::new(futures_util::stream::iter(frames)).boxed();
        let answer = connection.call(request.body(body).unwrap()).await;
        answer.map(|answer| (answer.status, answer.problem()))
    };
    for length in [Some(300 << 20), None] {
        let answer = within(
            Duration::from_secs(60),
            "the refusal of 300 MB",
            upload(length),
        )
        .await;
        // The server may close before all is sent; then the answer may be lost to the client.
        if let Ok((status, code)) = answer {
            assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{code}");
        }
    }
    let left = std::process::Command::new("du")
        .arg("-sm")
        .arg(node.data())
        .output()
        .unwrap();
    let left = String::from_utf8_lossy(&left.stdout).into_owned();
    let mib: u64 = left.split_whitespace().next().unwrap().parse().unwrap();
    assert!(mib < 150, "the upload stays on the disk: {left}");
    assert_eq!(node.get("well", "/").await.text(), "well");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_no_names() {
    let node = node().await;
    let long = "a".repeat(300);
    let names = [
        "..%2f..%2fetc",
        "..%2fx",
        "%2e%2e",
        "a%2fb",
        "a%00b",
        "%C3%BC",
        "%F0%9F%A6%80",
        "UPPER",
        "a.b",
        "a_b",
        "-a",
        "a-",
        "a%20b",
        "%ff",
        long.as_str(),
        "%0d%0ax",
    ];
    let body =
        r#"{"digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000"}"#;
    for name in names {
        for path in [
            format!("/v1/tenants/default/apps/{name}/deployments"),
            format!("/v1/tenants/{name}/apps/app/deployments"),
        ] {
            let answer = node
                .admin
                .call("POST", &path, "application/json", full(body))
                .await;
            assert_eq!(
                (answer.status, answer.problem().as_str()),
                (StatusCode::BAD_REQUEST, "name-invalid"),
                "{path}"
            );
        }
        let upload = node
            .admin
            .call(
                "POST",
                &format!("/v1/tenants/{name}/components"),
                "application/wasm",
                full(saying("x")),
            )
            .await;
        assert!(upload.status.is_client_error(), "{name}: {}", upload.status);
        for path in [
            format!("/v1/tenants/default/apps/{name}"),
            format!("/v1/tenants/default/apps/{name}/logs"),
        ] {
            let answer = node
                .admin
                .call("GET", &path, "application/json", empty())
                .await;
            assert!(answer.status.is_client_error(), "{path}: {}", answer.status);
        }
    }
    // Without the encoding it is another path, and no file of the machine.
    let answer = node
        .admin
        .call(
            "GET",
            "/v1/tenants/../../../../etc/passwd",
            "application/json",
            empty(),
        )
        .await;
    assert!(answer.status.is_client_error(), "{}", answer.status);
    let answer = node
        .admin
        .call(
            "POST",
            "/v1/tenants/default/apps//deployments",
            "application/json",
            full(body),
        )
        .await;
    assert!(answer.status.is_client_error(), "{}", answer.status);
    assert_eq!(node.get("well", "/").await.text(), "well");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_make_no_sense() {
    let node = node().await;
    let path = "/v1/tenants/default/apps/app/deployments";
    let digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (body, status) in [
        ("", 400),
        ("{", 400),
        ("[]", 400),
        (deep.as_str(), 400),
        (r#"{"digest":5}"#, 400),
        (r#"{"digest":"sha256:zz"}"#, 400),
        (r#"{"digest":"../../etc/passwd"}"#, 400),
        (&format!(r#"{{"digest":"{digest}","colour":1}}"#), 400),
        (&format!(r#"{{"digest":"{digest}"}}"#), 404),
        (
            &format!(r#"{{"digest":"{digest}","env":{{"A=B":"c"}}}}"#),
            422,
        ),
        (&format!(r#"{{"digest":"{digest}","env":{{"":"c"}}}}"#), 422),
        (
            &format!(r#"{{"digest":"{digest}","limits":{{"cpu_ms":0}}}}"#),
            422,
        ),
        (
            &format!(r#"{{"digest":"{digest}","limits":{{"vm_memory_bytes":99999999999999}}}}"#),
            422,
        ),
    ] {
        let answer = node
            .admin
            .call("POST", path, "application/json", full(body.to_owned()))
            .await;
        let short = &body[..body.len().min(100)];
        assert_eq!(answer.status.as_u16(), status, "{short}: {}", answer.text());
        let _ = answer.problem();
    }
    let refused = node
        .deploy("app", &saying("x"))
        .allow_host("not a host")
        .send()
        .await;
    assert!(refused.status.is_client_error(), "{}", refused.text());
    let _ = refused.problem();
    for (method, path) in [
        ("PATCH", "/v1/apps"),
        ("GET", "/v1/nothing"),
        ("GET", "/v2/apps"),
        ("DELETE", "/v1/status"),
    ] {
        let answer = node
            .admin
            .call(method, path, "application/json", empty())
            .await;
        assert!(
            answer.status == 404 || answer.status == 405,
            "{method} {path}: {}",
            answer.status
        );
        let _ = answer.problem();
    }
    let huge = Full::new(vec![b' '; 64 << 20].into())
        .map_err(|never| match never {})
        .boxed();
    if let Ok(answer) = node
        .admin
        .try_call("POST", path, "application/json", huge)
        .await
    {
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_nobody_has() {
    let node = node().await;
    let long = format!("{}.localhost", "a".repeat(2000));
    let hosts = [
        "nobody.localhost",
        "localhost",
        "127.0.0.1",
        "example.com",
        "well.default.default.localhost",
        "..",
        "[::1]",
        long.as_str(),
    ];
    for host in hosts {
        let answer = client::get(node.listen, host, "/").await.unwrap();
        assert!(
            answer.status == 404 || answer.status == 400,
            "{host}: {}",
            answer.status
        );
        let _ = answer.problem();
    }
    for host in ["well.localhost", "WELL.localhost", "well.LocalHost:80"] {
        let answer = client::get(node.listen, host, "/").await.unwrap();
        assert_eq!(answer.text(), "well", "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_cut_leaves_nothing() {
    use cloister_tests::raw::Raw;
    let node = node().await;
    let (addr, token) = (node.admin.addr, node.admin.token.clone());
    tokio::task::spawn_blocking(move || {
        let mut raw = Raw::connect(addr);
        raw.send(format!(
            "POST /v1/tenants/default/components HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nContent-Type: application/wasm\r\nContent-Length: 1000000\r\n\r\n"
        ));
        raw.send(&probe()[..2000]);
    })
    .await
    .unwrap();
    assert_eq!(node.get("well", "/").await.text(), "well");
    node.deploy("cut-then-whole", &saying("whole")).done().await;
    assert_eq!(node.get("cut-then-whole", "/").await.text(), "whole");
}
