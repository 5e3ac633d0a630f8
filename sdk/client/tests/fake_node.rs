//! The client against a small server that answers as a node does, and as no node should.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails, in its helpers too"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path as UrlPath, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http_body_util::BodyExt as _;
use platform_model::{
    AppName, DeployRequest, Digest, Limits, LogLine, LogStream, Problem, Quotas, TenantName, Usage,
};
use sdk_client::{Client, ClientError, LogQuery, Progress};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const TOKEN: &str = "secret-token";

/// Serves `router` on a port of its own until the test ends.
async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .await
        .unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

fn problem(status: StatusCode, code: &str, detail: &str) -> Response {
    let problem = Problem::new(status.as_u16(), code, "Title", detail).with_request_id("r-1");
    let kind = [(
        header::CONTENT_TYPE,
        "application/problem+json; charset=utf-8",
    )];
    (status, kind, serde_json::to_string(&problem).unwrap()).into_response()
}

fn json_answer(value: &serde_json::Value) -> Response {
    (
        [(header::CONTENT_TYPE, "application/json")],
        value.to_string(),
    )
        .into_response()
}

fn tenant() -> TenantName {
    TenantName::default()
}

fn app() -> AppName {
    "shop".parse().unwrap()
}

fn deployment(digest: Digest) -> serde_json::Value {
    json!({
        "tenant": "default", "app": "shop", "deployment": 3, "digest": digest, "url": "http://shop.localhost:7380/",
        "created_at": "2026-01-02T03:04:05Z", "active": true, "env": ["A"], "allow_hosts": ["example.com:443"],
        "limits": Limits::default(),
    })
}

#[tokio::test]
async fn the_token_is_sent_and_lists_are_unwrapped() {
    let router = Router::new().route(
        "/v1/tenants",
        get(async |headers: HeaderMap| {
            if headers.get("authorization").and_then(|v| v.to_str().ok()) != Some("Bearer secret-token") {
                return problem(StatusCode::UNAUTHORIZED, "token-wrong", "the token is not the node's");
            }
            json_answer(&json!({"items": [{"tenant": "acme", "created_at": "2026-01-02T03:04:05Z", "apps": 2, "quotas": Quotas::default(), "policy": {}, "usage": Usage::default()}]}))
        }),
    );
    let url = serve(router).await;
    let tenants = Client::new(&url, Some(TOKEN))
        .unwrap()
        .tenants()
        .await
        .unwrap();
    assert_eq!(tenants[0].tenant.as_str(), "acme");
    assert_eq!(tenants[0].apps, 2);
    for token in [None, Some("other")] {
        let error = Client::new(&url, token)
            .unwrap()
            .tenants()
            .await
            .unwrap_err();
        assert!(error.is_auth() && !error.is_not_found(), "{error:?}");
        assert_eq!(error.to_string(), "the token is not the node's");
        assert_eq!(
            error.problem().map(|p| p.code.as_str()),
            Some("token-wrong")
        );
        assert_eq!(
            error.problem().and_then(|p| p.request_id.as_deref()),
            Some("r-1")
        );
    }
}

#[tokio::test]
async fn a_list_is_read_to_its_end() {
    let router = Router::new().route(
        "/v1/tenants",
        get(async |uri: axum::http::Uri| {
            let page = |name: &str, next: Option<&str>| {
                let tenant = json!({
                    "tenant": name, "created_at": "2026-01-02T03:04:05Z", "apps": 0, "quotas": Quotas::default(),
                    "policy": {}, "usage": Usage::default(),
                });
                json_answer(&json!({"items": [tenant], "next": next}))
            };
            match uri.query() {
                Some("limit=1000") => page("a", Some("a/b&c")),
                Some("limit=1000&after=a%2Fb%26c") => page("b", None),
                other => problem(StatusCode::BAD_REQUEST, "query-invalid", other.unwrap_or_default()),
            }
        }),
    );
    let client = Client::new(&serve(router).await, None).unwrap();
    let names: Vec<_> = client
        .tenants()
        .await
        .unwrap()
        .into_iter()
        .map(|t| t.tenant.to_string())
        .collect();
    assert_eq!(names, ["a", "b"]);
}

#[tokio::test]
async fn each_status_is_told_apart() {
    let router = Router::new().route(
        "/v1/tenants/default/apps/{app}",
        get(async |UrlPath(app): UrlPath<String>| match app.as_str() {
            "missing" => problem(
                StatusCode::NOT_FOUND,
                "app-not-found",
                "there is no app missing",
            ),
            "page" => (StatusCode::NOT_FOUND, "<html>404 page</html>").into_response(),
            "moved" => (StatusCode::FOUND, [(header::LOCATION, "/elsewhere")]).into_response(),
            "odd" => json_answer(&json!({"name": 1})),
            "empty" => StatusCode::BAD_GATEWAY.into_response(),
            _ => problem(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "the disk is full",
            ),
        }),
    );
    let client = Client::new(&serve(router).await, None).unwrap();
    let ask = async |name: &str| {
        client
            .app(&tenant(), &name.parse().unwrap())
            .await
            .unwrap_err()
    };
    let error = ask("missing").await;
    assert!(error.is_not_found(), "{error:?}");
    let error = ask("page").await;
    assert!(
        !error.is_not_found(),
        "a page of somebody else says nothing about apps: {error:?}"
    );
    assert!(
        error.to_string().contains("404 page") && error.to_string().contains("admin API"),
        "{error}"
    );
    let error = ask("moved").await;
    assert!(
        matches!(error, ClientError::Unexpected { status: 302, .. }),
        "{error:?}"
    );
    let error = ask("odd").await;
    assert!(
        matches!(error, ClientError::Unexpected { status: 200, .. }),
        "{error:?}"
    );
    let error = ask("empty").await;
    assert!(error.to_string().contains("an empty body"), "{error}");
    let error = ask("broken").await;
    assert_eq!(error.status(), Some(500));
    assert!(!error.is_auth() && !error.is_unreachable());
}

#[tokio::test]
async fn nobody_there_and_somebody_who_hangs_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let hang_up = tokio::spawn(async move { drop(listener.accept().await) });
    let client = Client::new(&url, None).unwrap();
    let error = client.status().await.unwrap_err();
    assert!(
        matches!(error, ClientError::Interrupted { .. }),
        "{error:?}"
    );
    hang_up.await.unwrap();
    let error = client.status().await.unwrap_err();
    assert!(
        matches!(error, ClientError::Unreachable { .. }) && error.is_unreachable(),
        "{error:?}"
    );
    assert!(error.to_string().contains(&url), "{error}");
}

#[tokio::test]
async fn an_upload_arrives_whole_with_its_length() {
    let router = Router::new().route(
        "/v1/tenants/default/components",
        post(async |request: Request| {
            let length = request
                .headers()
                .get(header::CONTENT_LENGTH)
                .cloned()
                .unwrap();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(length.to_str().unwrap(), body.len().to_string());
            let digest = Digest::from_sha256([body[0]; 32]);
            (
                StatusCode::CREATED,
                json!({"digest": digest, "size": body.len()}).to_string(),
            )
        })
        .layer(axum::extract::DefaultBodyLimit::disable()),
    );
    let client = Client::new(&serve(router).await, None).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.wasm");
    let size = 5_000_000;
    std::fs::write(&path, vec![7; size]).unwrap();
    let last = Arc::new(Mutex::new(None));
    let sink = last.clone();
    let upload = client
        .upload(&tenant(), &path, move |progress| {
            *sink.lock().unwrap() = Some(progress)
        })
        .await
        .unwrap();
    assert_eq!(
        (upload.size, upload.digest),
        (size as u64, Digest::from_sha256([7; 32]))
    );
    assert_eq!(
        *last.lock().unwrap(),
        Some(Progress {
            sent: size as u64,
            total: size as u64
        })
    );
    let upload = client
        .upload_bytes(&tenant(), vec![9; 3].into())
        .await
        .unwrap();
    assert_eq!(upload.size, 3);
    std::fs::write(&path, b"").unwrap();
    let error = client
        .upload(&tenant(), Path::new("/no/such.wasm"), |_| ())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("/no/such.wasm"), "{error}");
}

#[tokio::test]
async fn a_node_that_refuses_a_large_component_before_it_has_it_is_heard() {
    let router = Router::new().route(
        "/v1/tenants/default/components",
        post(async |_: Request| {
            problem(
                StatusCode::PAYLOAD_TOO_LARGE,
                "component-too-large",
                "at most 256 MiB",
            )
        }),
    );
    let client = Client::new(&serve(router).await, None).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.wasm");
    std::fs::File::create(&path)
        .unwrap()
        .set_len(300 * 1024 * 1024)
        .unwrap();
    let error = client.upload(&tenant(), &path, |_| ()).await.unwrap_err();
    assert_eq!(
        error.problem().map(|p| p.code.as_str()),
        Some("component-too-large"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_deploy_sends_its_request_and_reads_the_timings() {
    let router = Router::new().route(
        "/v1/tenants/default/apps/shop/deployments",
        post(async |body: String| {
            let request: DeployRequest = serde_json::from_str(&body).unwrap();
            assert_eq!(request.env["A"], "b");
            let timing = [("server-timing", "compile;dur=20.5, boot;dur=1.5")];
            (
                StatusCode::CREATED,
                timing,
                deployment(request.digest).to_string(),
            )
        })
        .get(async || json_answer(&json!({"items": [deployment(Digest::from_sha256([1; 32]))]}))),
    );
    let client = Client::new(&serve(router).await, None).unwrap();
    let mut request = DeployRequest::new(Digest::from_sha256([5; 32]));
    request.env.insert("A".to_owned(), "b".to_owned());
    let deployed = client.deploy(&tenant(), &app(), &request).await.unwrap();
    assert_eq!(deployed.deployment.deployment.0, 3);
    assert_eq!(deployed.deployment.digest, request.digest);
    let steps: Vec<_> = deployed
        .timings
        .iter()
        .map(|t| (t.step.as_str(), t.time.as_micros()))
        .collect();
    assert_eq!(steps, [("compile", 20_500), ("boot", 1_500)]);
    assert_eq!(
        client.deployments(&tenant(), &app()).await.unwrap().len(),
        1
    );
}

#[tokio::test]
async fn creating_and_deleting() {
    let router = Router::new()
        .route(
            "/v1/tenants/{t}",
            put(async |UrlPath(t): UrlPath<String>| {
                let tenant = json!({"tenant": t, "created_at": "2026-01-02T03:04:05Z", "apps": 0, "quotas": Quotas::default(), "policy": {}, "usage": Usage::default()});
                (StatusCode::CREATED, tenant.to_string())
            })
            .delete(async || {
                problem(
                    StatusCode::CONFLICT,
                    "tenant-not-empty",
                    "acme has 2 apps: delete them first",
                )
            }),
        )
        .route(
            "/v1/tenants/acme/apps/shop",
            axum::routing::delete(async || StatusCode::NO_CONTENT),
        );
    let client = Client::new(&serve(router).await, None).unwrap();
    let acme: TenantName = "acme".parse().unwrap();
    assert_eq!(client.create_tenant(&acme).await.unwrap().tenant, acme);
    let error = client.delete_tenant(&acme).await.unwrap_err();
    assert_eq!(
        (error.status(), error.to_string().as_str()),
        (Some(409), "acme has 2 apps: delete them first")
    );
    client.delete_app(&acme, &app()).await.unwrap();
}

fn line(text: &str) -> LogLine {
    LogLine {
        time: time::OffsetDateTime::UNIX_EPOCH,
        deployment: platform_model::DeploymentId(1),
        request: None,
        stream: LogStream::Stdout,
        line: text.to_owned(),
        access: None,
    }
}

#[tokio::test]
async fn log_lines_arrive_one_by_one() {
    let router = Router::new().route(
        "/v1/tenants/default/apps/shop/logs",
        get(async |request: Request| {
            let query = request.uri().query().map(str::to_owned);
            let first = serde_json::to_string(&line(query.as_deref().unwrap_or("none"))).unwrap();
            let (head, tail) = first.split_at(10);
            let chunks = [
                head.to_owned(),
                tail.to_owned(),
                "\n\n{\"broken\":1}\n".to_owned(),
            ];
            Body::from_stream(stream::iter(chunks.map(Ok::<_, std::io::Error>)))
        }),
    );
    let client = Client::new(&serve(router).await, None).unwrap();
    let query = LogQuery {
        follow: true,
        tail: Some(5),
        grep: Some("a&b +".to_owned()),
        ..LogQuery::default()
    };
    let mut lines = client.logs(&tenant(), &app(), &query).await.unwrap();
    assert_eq!(
        lines.next().await.unwrap().unwrap(),
        line("tail=5&follow=true&grep=a%26b+%2B")
    );
    let error = lines.next().await.unwrap().unwrap_err();
    assert!(error.to_string().contains("missing field"), "{error}");
    assert!(lines.next().await.is_none(), "nothing comes after an error");
    let lines = client
        .logs(&tenant(), &app(), &LogQuery::default())
        .await
        .unwrap();
    let read: Vec<_> = lines.take(1).try_collect().await.unwrap();
    assert_eq!(read, [line("none")]);
}

#[tokio::test]
async fn a_log_that_breaks_off_says_so() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (was_read, read) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // An answer that comes before its question is refused.
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        let line = serde_json::to_string(&line("last words")).unwrap() + "\n";
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let chunk = format!("{head}{:x}\r\n{line}\r\n", line.len());
        stream.write_all(chunk.as_bytes()).await.unwrap();
        read.await.unwrap();
    });
    let client = Client::new(&url, None).unwrap();
    let query = LogQuery {
        follow: true,
        ..LogQuery::default()
    };
    let mut lines = client.logs(&tenant(), &app(), &query).await.unwrap();
    assert_eq!(lines.next().await.unwrap().unwrap(), line("last words"));
    was_read.send(()).unwrap();
    server.await.unwrap();
    let error = lines.next().await.unwrap().unwrap_err();
    assert!(error.is_unreachable(), "{error:?}");
}
