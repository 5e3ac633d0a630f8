//! The API as clients see it: statuses, codes, bodies.

use axum::body::Body;
use axum::response::Response;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use platform_data::{LogRecord, LogSink as _};
use platform_model::{DeploymentId, LogStream};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::fake::Node;

mod access;
mod audit;
mod describe;
mod fuzz;
mod hosts;
mod once;
mod pages;
mod quotas;
mod settings;
mod tokens;

const TOKEN: &str = "0123456789abcdef";

/// A node's API on a fresh folder.
struct Client {
    _folder: Option<tempfile::TempDir>,
    node: Node,
    api: Api,
    router: Router,
    stop: CancellationToken,
}

impl Client {
    async fn new() -> Self {
        Self::limited(0).await
    }

    /// With so many requests in a second for each token.
    async fn limited(requests_per_second: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let client = Self::of(folder.path(), requests_per_second).await;
        Self {
            _folder: Some(folder),
            ..client
        }
    }

    /// On this folder.
    async fn on(folder: &std::path::Path) -> Self {
        Self::of(folder, 0).await
    }

    /// A new start on the same folder.
    async fn again(self) -> Self {
        let path = self.node.dir.root().to_owned();
        let folder = self._folder;
        drop((self.node, self.api, self.router));
        let client = Self::on(&path).await;
        Self {
            _folder: folder,
            ..client
        }
    }

    async fn of(folder: &std::path::Path, requests_per_second: u32) -> Self {
        let node = Node::start(folder).await;
        let about = About {
            version: "1.2.3",
            wasmtime: "48",
            started: Instant::now(),
            spans: None,
            requests_per_second,
        };
        let stop = CancellationToken::new();
        let api = Api::new(Arc::clone(&node.engine), TOKEN, about, stop.clone());
        let router = api.clone().router();
        Self {
            _folder: None,
            node,
            api,
            router,
            stop,
        }
    }

    async fn send(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// Calls with the node's own token; status and JSON.
    async fn call(&self, method: &str, path: &str, body: impl Into<Body>) -> (u16, Value) {
        self.call_as(Some(TOKEN), method, path, body).await
    }

    /// Calls with a token; status and JSON.
    async fn call_as(
        &self,
        token: Option<&str>,
        method: &str,
        path: &str,
        body: impl Into<Body>,
    ) -> (u16, Value) {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        json_of(self.send(request.body(body.into()).unwrap()).await).await
    }

    /// Makes a token; its text.
    async fn token(&self, path: &str, request: &Value) -> String {
        let (status, created) = self.call("POST", path, request.to_string()).await;
        assert_eq!(status, 201, "{created}");
        created["token"].as_str().unwrap().to_owned()
    }

    async fn upload(&self, content: &'static str) -> String {
        let path = "/v1/tenants/default/components";
        let (status, body) = self.call("POST", path, content).await;
        assert_eq!(status, 201, "{body}");
        body["digest"].as_str().unwrap().to_owned()
    }

    async fn deploy(&self, app: &str, content: &'static str) -> (u16, Value) {
        let digest = self.upload(content).await;
        let path = format!("/v1/tenants/default/apps/{app}/deployments");
        let body = json!({"digest": digest, "env": {"SECRET": "s"}, "allow_hosts": ["a.example"]});
        self.call("POST", &path, body.to_string()).await
    }
}

async fn json_of(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    assert!(response.headers().contains_key("x-request-id"));
    if status >= 400 {
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
    }
    let is_json = (response.headers().get("content-type"))
        .is_some_and(|kind| kind.to_str().unwrap().ends_with("json"));
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let body = if body.is_empty() || !is_json {
        Value::Null
    } else {
        serde_json::from_slice(&body).unwrap()
    };
    if status >= 400 {
        assert_eq!(body["status"], status);
        assert!(!body["detail"].as_str().unwrap().is_empty());
        assert!(body["request_id"].is_string());
    }
    (status, body)
}

#[tokio::test]
async fn health_needs_no_token_and_the_rest_does() {
    let client = Client::new().await;
    let get = |path: &str| Request::get(path).body(Body::empty()).unwrap();
    let (status, body) = json_of(client.send(get("/healthz")).await).await;
    assert_eq!(
        (status, body),
        (200, json!({"status": "ok", "version": "1.2.3"}))
    );
    let response = client.send(get("/v1/status")).await;
    assert_eq!(response.headers()["www-authenticate"], "Bearer");
    let (status, body) = json_of(response).await;
    assert_eq!((status, &body["code"]), (401, &json!("token-missing")));
    assert!(body["detail"].as_str().unwrap().contains("admin-token"));
    let wrong = Request::get("/v1/apps").header("authorization", "Bearer nope");
    let (status, body) = json_of(client.send(wrong.body(Body::empty()).unwrap()).await).await;
    assert_eq!((status, &body["code"]), (401, &json!("token-wrong")));
}

#[tokio::test]
async fn an_app_from_upload_to_deletion() {
    let client = Client::new().await;
    let (status, body) = client.deploy("shop", "one").await;
    assert_eq!(status, 201, "{body}");
    assert_eq!(body["deployment"], 1);
    assert_eq!(body["active"], true);
    assert_eq!(body["url"], "http://shop.localhost:7380/");
    assert_eq!(body["env"], json!(["SECRET"]));
    client.deploy("shop", "two").await;

    let (status, body) = client.call("GET", "/v1/apps", "").await;
    assert_eq!((status, body["items"].as_array().unwrap().len()), (200, 1));
    assert_eq!(body["items"][0]["deployments"], 2);
    let (_, one) = client
        .call("GET", "/v1/tenants/default/apps/shop", "")
        .await;
    assert_eq!(one, body["items"][0]);
    let path = "/v1/tenants/default/apps/shop/deployments";
    let (_, list) = client.call("GET", path, "").await;
    let active: Vec<_> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| &d["active"])
        .collect();
    assert_eq!(active, [&json!(false), &json!(true)]);
    let (_, first) = client.call("GET", &format!("{path}/1"), "").await;
    assert_eq!(first, list["items"][0]);
    let (status, body) = client.call("GET", &format!("{path}/3"), "").await;
    assert_eq!(
        (status, &body["code"]),
        (404, &json!("deployment-not-found"))
    );
    let (_, tenants) = client.call("GET", "/v1/tenants", "").await;
    assert_eq!(tenants["items"][0]["apps"], 2 - 1);

    let (status, _) = client
        .call("DELETE", "/v1/tenants/default/apps/shop", "")
        .await;
    assert_eq!(status, 204);
    let (status, body) = client.call("GET", path, "").await;
    assert_eq!((status, &body["code"]), (404, &json!("app-not-found")));
    assert!(client.node.routes().is_empty());
}

#[tokio::test]
async fn tenants_come_and_go() {
    let client = Client::new().await;
    assert_eq!(client.call("PUT", "/v1/tenants/acme", "").await.0, 201);
    assert_eq!(client.call("PUT", "/v1/tenants/acme", "").await.0, 200);
    assert_eq!(client.call("GET", "/v1/tenants/acme/apps", "").await.0, 200);
    let (_, tenant) = client.call("GET", "/v1/tenants/acme", "").await;
    assert_eq!(
        tenant["usage"],
        json!({"apps": 0, "deployments": 0, "tokens": 0, "disk_bytes": 0})
    );
    assert_eq!(client.call("DELETE", "/v1/tenants/acme", "").await.0, 204);
    let (status, body) = client.call("DELETE", "/v1/tenants/acme", "").await;
    assert_eq!((status, &body["code"]), (404, &json!("tenant-not-found")));
    assert_eq!(client.call("GET", "/v1/tenants/acme/apps", "").await.0, 404);
    client.deploy("shop", "one").await;
    let (status, body) = client.call("DELETE", "/v1/tenants/default", "").await;
    assert_eq!((status, &body["code"]), (409, &json!("tenant-not-empty")));
}

#[tokio::test]
async fn bad_requests_are_told_what_is_wrong() {
    let client = Client::new().await;
    let deployments = "/v1/tenants/default/apps/shop/deployments";
    let long = format!("/v1/tenants/default/apps/{}", "x".repeat(300));
    let digest = format!("sha256:{}", "0".repeat(64));
    let unknown = json!({"digest": digest}).to_string();
    let extra = json!({"digest": digest, "colour": 1}).to_string();
    let limit = json!({"digest": digest, "limits": {"concurrency": 0}}).to_string();
    let host = json!({"digest": digest, "allow_hosts": ["http://x/"]}).to_string();
    let big = " ".repeat((1 << 20) + 1);
    let cases = [
        ("GET", "/v1/nothing", "", 404, "path-unknown", "/v1"),
        ("PATCH", "/v1/apps", "", 405, "method-not-allowed", "PATCH"),
        (
            "GET",
            "/v1/tenants/default/apps/..%2fx",
            "",
            400,
            "name-invalid",
            "'.'",
        ),
        (
            "GET",
            "/v1/tenants/default/apps/k%C3%A4se",
            "",
            400,
            "name-invalid",
            "'ä'",
        ),
        (
            "GET",
            "/v1/tenants/default/apps/%ff",
            "",
            400,
            "name-invalid",
            "UTF-8",
        ),
        ("GET", &long, "", 400, "name-invalid", "300"),
        (
            "GET",
            "/v1/tenants/default/apps/shop/deployments/x",
            "",
            400,
            "name-invalid",
            "deployment",
        ),
        ("POST", deployments, "{", 400, "json-invalid", "line 1"),
        ("POST", deployments, &extra, 400, "json-invalid", "colour"),
        ("POST", deployments, &host, 400, "json-invalid", "HOST:PORT"),
        ("POST", deployments, &big, 413, "body-too-large", "1048576"),
        (
            "POST",
            deployments,
            &limit,
            422,
            "deploy-invalid",
            "concurrency",
        ),
        (
            "POST",
            deployments,
            &unknown,
            404,
            "component-not-found",
            "upload",
        ),
        (
            "GET",
            "/v1/tenants/default/apps/shop/logs",
            "",
            404,
            "app-not-found",
            "shop",
        ),
        (
            "GET",
            "/v1/tenants/default/apps/shop/logs?lines=1",
            "",
            400,
            "query-invalid",
            "lines",
        ),
    ];
    for (method, path, body, status, code, part) in cases {
        let answer = client.call(method, path, body.to_owned()).await;
        assert_eq!(
            (answer.0, &answer.1["code"]),
            (status, &json!(code)),
            "{method} {path}"
        );
        let detail = answer.1["detail"].as_str().unwrap();
        assert!(detail.contains(part), "{method} {path}: {detail}");
    }
}

#[tokio::test]
async fn a_body_of_another_type_is_refused() {
    let client = Client::new().await;
    let request = Request::post("/v1/tenants/default/apps/shop/deployments")
        .header("authorization", format!("Bearer {TOKEN}"))
        .header("content-type", "text/plain");
    let (status, body) = json_of(client.send(request.body(Body::from("{}")).unwrap()).await).await;
    assert_eq!((status, &body["code"]), (415, &json!("type-unsupported")));
}

#[tokio::test]
async fn a_component_that_is_refused_has_the_compilers_code() {
    let client = Client::new().await;
    let (status, body) = client.deploy("shop", "bad").await;
    assert_eq!((status, &body["code"]), (422, &json!("component-not-wasm")));
    let (status, body) = client.deploy("shop", "lazy").await;
    assert_eq!((status, &body["code"]), (422, &json!("start-refused")));
    let (_, apps) = client.call("GET", "/v1/apps", "").await;
    assert_eq!(apps, json!({"items": []}));
}

#[tokio::test]
async fn a_component_that_is_too_large_is_refused_and_leaves_nothing() {
    let client = Client::new().await;
    let chunk = bytes::Bytes::from(vec![0; 1 << 20]);
    let chunks =
        futures_util::stream::iter((0..257).map(move |_| Ok::<_, std::io::Error>(chunk.clone())));
    let path = "/v1/tenants/default/components";
    let (status, body) = client.call("POST", path, Body::from_stream(chunks)).await;
    assert_eq!((status, &body["code"]), (413, &json!("body-too-large")));
    assert!(client.node.files("components").is_empty());
}

#[tokio::test]
async fn an_upload_that_is_cut_off_leaves_nothing() {
    let client = Client::new().await;
    let chunks = [
        Ok(bytes::Bytes::from_static(b"abc")),
        Err(std::io::Error::other("gone")),
    ];
    let body = Body::from_stream(futures_util::stream::iter(chunks));
    let (status, body) = client
        .call("POST", "/v1/tenants/default/components", body)
        .await;
    assert_eq!((status, &body["code"]), (400, &json!("body-incomplete")));
    assert!(client.node.files("components").is_empty());
}

fn write(client: &Client, text: &str) {
    client.node.engine.logs().write(LogRecord {
        tenant: &"default".parse().unwrap(),
        app: &"shop".parse().unwrap(),
        deployment: DeploymentId(1),
        request: Some("r1"),
        stream: LogStream::Stderr,
        bytes: text.as_bytes(),
        line_bytes: 16 << 10,
    });
}

#[tokio::test]
async fn logs_are_read_and_followed() {
    let client = Client::new().await;
    client.deploy("shop", "one").await;
    write(&client, "a\nb\n");
    let request = |query: &str| {
        Request::get(format!("/v1/tenants/default/apps/shop/logs{query}"))
            .header("authorization", format!("Bearer {TOKEN}"))
            .body(Body::empty())
            .unwrap()
    };
    let response = client.send(request("?tail=1")).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let line = response.into_body().collect().await.unwrap().to_bytes();
    let line: Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(
        (&line["line"], &line["stream"]),
        (&json!("b"), &json!("stderr"))
    );
    assert_eq!(
        (&line["deployment"], &line["request"]),
        (&json!(1), &json!("r1"))
    );

    let mut body = client
        .send(request("?follow=true&tail=0"))
        .await
        .into_body();
    write(&client, "c\n");
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    let line: Value = serde_json::from_slice(&frame).unwrap();
    assert_eq!(line["line"], "c");
    client.stop.cancel();
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn logs_are_filtered_where_they_are() {
    let client = Client::new().await;
    client.deploy("shop", "one").await;
    write(&client, "an apple\na pear\n");
    let logs = async |query: &str| {
        let path = format!("/v1/tenants/default/apps/shop/logs?{query}");
        let request = Request::get(path).header("authorization", format!("Bearer {TOKEN}"));
        let response = client.send(request.body(Body::empty()).unwrap()).await;
        let body = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    };
    for query in [
        "grep=app.e",
        "tail=1&grep=apple",
        "grep=apple&since=1h&request=r1&stream=stderr,access&deployment=1",
    ] {
        let text = logs(query).await;
        assert_eq!(text.lines().count(), 1, "{query}: {text}");
        assert!(text.contains("an apple"), "{query}: {text}");
    }
    for query in [
        "stream=stdout",
        "deployment=2",
        "request=r2",
        "until=1h",
        "until=2020-01-02T03:04:05Z",
    ] {
        assert_eq!(logs(query).await, "", "{query}");
    }
    for (query, part) in [
        ("grep=(", "unclosed"),
        ("since=soon", "15m"),
        ("stream=out", "stderr"),
        ("deployment=x", "digit"),
        ("tail=-1", "digit"),
    ] {
        let path = format!("/v1/tenants/default/apps/shop/logs?{query}");
        let (status, body) = client.call("GET", &path, "").await;
        assert_eq!((status, &body["code"]), (400, &json!("query-invalid")));
        let detail = body["detail"].as_str().unwrap();
        assert!(detail.contains(part), "{query}: {detail}");
    }
}

#[tokio::test]
async fn logs_have_so_many_readers_and_no_more() {
    let client = Client::new().await;
    client.deploy("shop", "one").await;
    let path = "/v1/tenants/default/apps/shop/logs?follow=true";
    let request = || {
        Request::get(path)
            .header("authorization", format!("Bearer {TOKEN}"))
            .body(Body::empty())
            .unwrap()
    };
    let mut held = Vec::new();
    while held.len() < 100 {
        let response = client.send(request()).await;
        if response.status() != StatusCode::OK {
            break;
        }
        held.push(response);
    }
    assert!((1..100).contains(&held.len()), "{}", held.len());
    let (status, body) = client.call("GET", path, "").await;
    assert_eq!(
        (status, &body["code"]),
        (429, &json!("too-many-log-readers"))
    );
    held.pop();
    assert_eq!(client.send(request()).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_follower_ends_with_its_moment() {
    let client = Client::new().await;
    client.deploy("shop", "one").await;
    let until = time::OffsetDateTime::now_utc() + time::Duration::milliseconds(300);
    let until = until.to_offset(time::UtcOffset::UTC);
    let until = until
        .format(&time::format_description::well_known::Rfc3339)
        .unwrap();
    let path = format!("/v1/tenants/default/apps/shop/logs?follow=true&until={until}");
    let (status, body) = client.call("GET", &path, "").await;
    assert_eq!((status, body), (200, Value::Null));
}

#[tokio::test]
async fn metrics_need_the_token_but_on_a_listener_of_their_own() {
    let client = Client::new().await;
    let (status, _) = json_of(
        client
            .send(Request::get("/metrics").body(Body::empty()).unwrap())
            .await,
    )
    .await;
    assert_eq!(status, 401);
    let request = Request::get("/metrics").header("authorization", format!("Bearer {TOKEN}"));
    let response = client.send(request.body(Body::empty()).unwrap()).await;
    let node = Node::start(tempfile::tempdir().unwrap().path()).await;
    let about = About {
        requests_per_second: 0,
        version: "1.2.3",
        wasmtime: "48",
        started: Instant::now(),
        spans: None,
    };
    let api = Api::new(node.engine, TOKEN, about, CancellationToken::new());
    let open = metrics_router(api.metrics().clone());
    let request = Request::get("/metrics").body(Body::empty()).unwrap();
    for response in [response, open.clone().oneshot(request).await.unwrap()] {
        assert_eq!(response.status(), StatusCode::OK);
        let kind = response.headers()["content-type"].to_str().unwrap();
        assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
        let page = response.into_body().collect().await.unwrap().to_bytes();
        let page = String::from_utf8(page.to_vec()).unwrap();
        let build = "cloister_build_info{version=\"1.2.3\",wasmtime=\"48\"} 1\n";
        assert!(page.contains(build), "{page}");
    }
    let request = Request::get("/v1/status").body(Body::empty()).unwrap();
    assert_eq!(
        open.oneshot(request).await.unwrap().status(),
        StatusCode::NOT_FOUND
    );
}
