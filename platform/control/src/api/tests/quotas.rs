//! What happens at each quota: what is over it is refused by name, and leaves nothing.

use super::*;

impl Client {
    async fn quotas(&self, quotas: Value) {
        let body = json!({"quotas": quotas}).to_string();
        let (status, body) = self.call("PATCH", "/v1/tenants/default", body).await;
        assert_eq!(status, 200, "{body}");
    }

    async fn usage(&self) -> Value {
        self.call("GET", "/v1/tenants/default", "").await.1["usage"].clone()
    }
}

fn refused((status, body): &(u16, Value), quota: &str) {
    assert_eq!(
        (*status, &body["code"]),
        (403, &json!("quota-exceeded")),
        "{body}"
    );
    assert!(
        body["detail"]
            .as_str()
            .unwrap()
            .contains(&format!("the quota {quota}")),
        "{body}"
    );
}

#[tokio::test]
async fn apps_and_deployments_are_counted() {
    let client = Client::new().await;
    assert_eq!(client.deploy("shop", "one").await.0, 201);
    client.quotas(json!({"apps": 1, "deployments": 2})).await;
    refused(&client.deploy("blog", "one").await, "apps");
    assert_eq!(client.deploy("shop", "one").await.0, 201);
    refused(&client.deploy("shop", "one").await, "deployments");
    let usage = client.usage().await;
    assert_eq!(
        (&usage["apps"], &usage["deployments"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(client.node.routes(), [("shop.localhost".to_owned(), 2)]);
    client
        .call("DELETE", "/v1/tenants/default/apps/shop", "")
        .await;
    assert_eq!(client.deploy("blog", "one").await.0, 201);
}

#[tokio::test]
async fn the_disk_is_counted_with_what_is_compiled() {
    let client = Client::new().await;
    let mib = 1 << 20;
    client.quotas(json!({"disk_bytes": mib})).await;
    let path = "/v1/tenants/default/components";
    let half = vec![b'x'; mib / 2 + 1];
    let (status, upload) = client.call("POST", path, half).await;
    assert_eq!(status, 201);
    // The fake compiler copies: the artifact is as large, and does not fit.
    let deploy = json!({"digest": upload["digest"]}).to_string();
    let deployments = "/v1/tenants/default/apps/shop/deployments";
    refused(
        &client.call("POST", deployments, deploy).await,
        "disk_bytes",
    );
    refused(
        &client.call("POST", path, vec![b'y'; mib]).await,
        "disk_bytes",
    );
    assert_eq!(client.usage().await["disk_bytes"], mib / 2 + 1);
    assert_eq!(client.node.files("components").len(), 1);
}

#[tokio::test]
async fn the_memory_of_all_vms_is_counted() {
    let client = Client::new().await;
    assert_eq!(client.deploy("shop", "one").await.0, 201);
    let one: u64 = 512 << 20;
    client.quotas(json!({"memory_bytes": one})).await;
    refused(&client.deploy("blog", "one").await, "memory_bytes");
    // The next deployment of an app takes the place of the one before.
    assert_eq!(client.deploy("shop", "two").await.0, 201);
    client.quotas(json!({"memory_bytes": 2 * one})).await;
    assert_eq!(client.deploy("blog", "one").await.0, 201);
}
