//! Tokens: shown once, good until they are revoked or expire, counted.

use super::*;

#[tokio::test]
async fn a_token_is_shown_once_and_good_until_it_is_revoked() {
    let client = Client::new().await;
    client.call("PUT", "/v1/tenants/acme", "").await;
    let path = "/v1/tenants/acme/tokens";
    let request = json!({"role": "deploy", "app": "shop", "label": "ci", "expires_in_seconds": 60});
    let (status, created) = client.call("POST", path, request.to_string()).await;
    assert_eq!(status, 201, "{created}");
    let token = created["token"].as_str().unwrap();
    let id = created["id"].as_str().unwrap();
    assert!(
        token.starts_with(&format!("clo_{id}_")) && id.starts_with("acme."),
        "{token}"
    );
    let (status, who) = client.call_as(Some(token), "GET", "/v1/whoami", "").await;
    assert_eq!(status, 200);
    assert_eq!(who["id"], id);
    assert_eq!(
        who["scope"],
        json!({"kind": "app", "tenant": "acme", "app": "shop"})
    );
    assert_eq!(
        (&who["role"], &who["label"]),
        (&json!("deploy"), &json!("ci"))
    );
    let (_, list) = client.call("GET", path, "").await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert!(list["items"][0]["token"].is_null() && !list.to_string().contains("hash"));
    assert_eq!(list["items"][0]["created_by"], "admin-token");
    let (_, tenant) = client.call("GET", "/v1/tenants/acme", "").await;
    assert_eq!(tenant["usage"]["tokens"], 1);
    let (status, _) = client.call("DELETE", &format!("{path}/{id}"), "").await;
    assert_eq!(status, 204);
    let (status, body) = client.call_as(Some(token), "GET", "/v1/whoami", "").await;
    assert_eq!((status, &body["code"]), (401, &json!("token-wrong")));
    let (status, body) = client.call("DELETE", &format!("{path}/{id}"), "").await;
    assert_eq!((status, &body["code"]), (404, &json!("token-not-found")));
}

#[tokio::test]
async fn what_the_disk_has_of_a_token_does_not_let_anybody_in() {
    let client = Client::new().await;
    let token = client.token("/v1/tokens", &json!({"role": "admin"})).await;
    let secret = token.rsplit('_').next().unwrap();
    let all = client
        .node
        .engine
        .ask(|records| {
            records.all(&crate::store::records::Prefix::<
                crate::store::records::TokenRecord,
            >::all())
        })
        .await
        .unwrap();
    assert!(!serde_json::to_string(&all).unwrap().contains(secret));
    let stored = format!("clo_{}_{}", all[0].id, all[0].hash);
    assert_eq!(
        client
            .call_as(Some(&stored), "GET", "/v1/whoami", "")
            .await
            .0,
        401
    );
}

#[tokio::test]
async fn an_expired_token_is_told_so() {
    let client = Client::new().await;
    let token = client.token("/v1/tokens", &json!({"role": "admin"})).await;
    client.expire(&token).await;
    let (status, body) = client.call_as(Some(&token), "GET", "/v1/whoami", "").await;
    assert_eq!((status, &body["code"]), (401, &json!("token-expired")));
}

#[tokio::test]
async fn tokens_that_are_not_possible() {
    let client = Client::new().await;
    client.call("PUT", "/v1/tenants/acme", "").await;
    let tenant = "/v1/tenants/acme/tokens";
    for (path, request, status, code) in [
        (tenant, json!({"role": "root"}), 400, "json-invalid"),
        (
            tenant,
            json!({"role": "read", "scope": "node"}),
            400,
            "json-invalid",
        ),
        (
            tenant,
            json!({"role": "read", "expires_in_seconds": 0}),
            422,
            "token-invalid",
        ),
        (
            tenant,
            json!({"role": "read", "label": "x".repeat(101)}),
            422,
            "token-invalid",
        ),
        (
            "/v1/tokens",
            json!({"role": "read", "app": "shop"}),
            422,
            "token-invalid",
        ),
        (
            "/v1/tenants/none/tokens",
            json!({"role": "read"}),
            404,
            "tenant-not-found",
        ),
    ] {
        let (got, body) = client.call("POST", path, request.to_string()).await;
        assert_eq!(
            (got, &body["code"]),
            (status, &json!(code)),
            "{request}: {body}"
        );
    }
    client
        .call(
            "PATCH",
            "/v1/tenants/acme",
            json!({"quotas": {"tokens": 1}}).to_string(),
        )
        .await;
    client.token(tenant, &json!({"role": "read"})).await;
    let (status, body) = client
        .call("POST", tenant, json!({"role": "read"}).to_string())
        .await;
    assert_eq!((status, &body["code"]), (403, &json!("quota-exceeded")));
    assert!(
        body["detail"].as_str().unwrap().contains("1 tokens"),
        "{body}"
    );
}

#[tokio::test]
async fn the_tokens_of_a_tenant_go_with_it_and_do_not_come_back() {
    let client = Client::new().await;
    client.call("PUT", "/v1/tenants/acme", "").await;
    let token = client
        .token("/v1/tenants/acme/tokens", &json!({"role": "admin"}))
        .await;
    assert_eq!(client.call("DELETE", "/v1/tenants/acme", "").await.0, 204);
    client.call("PUT", "/v1/tenants/acme", "").await;
    assert_eq!(
        client
            .call_as(Some(&token), "GET", "/v1/whoami", "")
            .await
            .0,
        401
    );
}

#[tokio::test]
async fn a_tenants_token_makes_no_tenants() {
    let client = Client::new().await;
    client.call("PUT", "/v1/tenants/acme", "").await;
    let token = client
        .token("/v1/tenants/acme/tokens", &json!({"role": "admin"}))
        .await;
    assert_eq!(client.call("DELETE", "/v1/tenants/acme", "").await.0, 204);
    let node = client.token("/v1/tokens", &json!({"role": "deploy"})).await;
    for token in [&token, &node] {
        let path = "/v1/tenants/acme/components";
        let (status, _) = client.call_as(Some(token), "POST", path, "one").await;
        assert!([401, 404].contains(&status), "{status}");
    }
    assert_eq!(client.call("GET", "/v1/tenants/acme", "").await.0, 404);
    assert!(client.node.files("components").is_empty());
}

#[tokio::test]
async fn who_asks_too_often_is_told_to_wait() {
    let client = Client::limited(2).await;
    let token = client.token("/v1/tokens", &json!({"role": "read"})).await;
    let get = |token: &str| {
        let request = Request::get("/v1/whoami").header("authorization", format!("Bearer {token}"));
        request.body(Body::empty()).unwrap()
    };
    let mut limited = None;
    for _ in 0..12 {
        let response = client.send(get(&token)).await;
        if response.status() == 429 {
            limited = Some(response);
        }
    }
    let response = limited.unwrap();
    assert!(response.headers().contains_key("retry-after"));
    let (_, body) = json_of(response).await;
    assert_eq!(body["code"], "rate-limited");
    assert_eq!(client.send(get(TOKEN)).await.status(), 200);
}

#[tokio::test]
async fn wrong_tokens_are_limited_and_right_ones_are_not() {
    let client = Client::limited(100).await;
    let peer = std::net::SocketAddr::from(([192, 0, 2, 7], 4000));
    let get = |token: &str| {
        let request = Request::get("/v1/whoami").header("authorization", format!("Bearer {token}"));
        let mut request = request.body(Body::empty()).unwrap();
        request
            .extensions_mut()
            .insert(axum::extract::ConnectInfo(peer));
        request
    };
    let mut codes = Vec::new();
    for number in 0..30 {
        let (_, body) = json_of(client.send(get(&format!("guess-{number}"))).await).await;
        codes.push(body["code"].as_str().unwrap().to_owned());
    }
    assert_eq!(
        (codes[0].as_str(), codes[29].as_str()),
        ("token-wrong", "too-many-failures")
    );
    assert_eq!(client.send(get(TOKEN)).await.status(), 200);
}
