//! The audit log has every change that was asked for, and nothing else.

use super::*;

async fn lines(client: &Client, path: &str) -> Vec<(String, String, Value)> {
    let (status, list) = client.call("GET", path, "").await;
    assert_eq!(status, 200, "{list}");
    let items = list["items"].as_array().unwrap().iter();
    let text = |line: &Value, name: &str| line[name].as_str().unwrap().to_owned();
    items
        .map(|line| {
            (
                text(line, "what"),
                text(line, "outcome"),
                line["code"].clone(),
            )
        })
        .collect()
}

#[tokio::test]
async fn what_was_done_and_what_was_refused_is_written_down() {
    let client = Client::new().await;
    client.call("PUT", "/v1/tenants/acme", "").await;
    client.call("GET", "/v1/tenants/acme", "").await;
    client.deploy("shop", "one").await;
    client.call("DELETE", "/v1/tenants/default", "").await;
    client
        .call("DELETE", "/v1/tenants/default/apps/none", "")
        .await;
    let done = |what: &str| (what.to_owned(), "done".to_owned(), Value::Null);
    let refused = |what: &str, code: &str| (what.to_owned(), "refused".to_owned(), json!(code));
    let all = [
        refused("DELETE /v1/tenants/default/apps/none", "app-not-found"),
        refused("DELETE /v1/tenants/default", "tenant-not-empty"),
        done("POST /v1/tenants/default/apps/shop/deployments"),
        done("POST /v1/tenants/default/components"),
        done("PUT /v1/tenants/acme"),
    ];
    assert_eq!(lines(&client, "/v1/audit").await, all);
    assert_eq!(lines(&client, "/v1/tenants/default/audit").await, all[..4]);
    assert_eq!(lines(&client, "/v1/tenants/acme/audit").await, all[4..]);
    let (_, list) = client.call("GET", "/v1/audit?limit=1", "").await;
    let line = &list["items"][0];
    assert_eq!(
        (&line["who"], &line["status"]),
        (&json!("admin-token"), &json!(404))
    );
    assert!(line["request_id"].as_str().unwrap().starts_with("admin-"));
    assert!(list["next"].is_string());
}

#[tokio::test]
async fn a_tenant_that_is_deleted_takes_its_log_with_it_and_the_node_keeps_its_own() {
    let client = Client::new().await;
    client.call("PUT", "/v1/tenants/acme", "").await;
    client.call("DELETE", "/v1/tenants/acme", "").await;
    client.call("PUT", "/v1/tenants/acme", "").await;
    let of_tenant = lines(&client, "/v1/tenants/acme/audit").await;
    assert_eq!(of_tenant.len(), 1, "{of_tenant:?}");
    assert_eq!(lines(&client, "/v1/audit").await.len(), 3);
    let (status, _) = client.call("GET", "/v1/tenants/none/audit", "").await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn a_request_without_a_token_writes_nothing() {
    let client = Client::new().await;
    let request = Request::delete("/v1/tenants/acme")
        .body(Body::empty())
        .unwrap();
    assert_eq!(client.send(request).await.status(), 401);
    assert!(lines(&client, "/v1/audit").await.is_empty());
}
