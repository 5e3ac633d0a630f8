//! Requests that are sent again with the same `Idempotency-Key`.

use super::*;
use crate::store::records::{IdempotencyRecord, Prefix};

impl Client {
    /// Deploys with a key.
    async fn deploy_once(&self, key: &str, body: &Value) -> Response {
        let request = Request::post("/v1/tenants/default/apps/shop/deployments")
            .header("authorization", format!("Bearer {TOKEN}"))
            .header("idempotency-key", key);
        self.send(request.body(Body::from(body.to_string())).unwrap())
            .await
    }

    async fn deployments(&self) -> usize {
        let path = "/v1/tenants/default/apps/shop/deployments";
        let (_, list) = self.call("GET", path, "").await;
        list["items"].as_array().map_or(0, Vec::len)
    }
}

#[tokio::test]
async fn a_request_that_is_sent_again_is_answered_again_and_not_carried_out() {
    let client = Client::new().await;
    let digest = client.upload("one").await;
    let body = json!({"digest": digest});
    let first = client.deploy_once("k-1", &body).await;
    assert!(!first.headers().contains_key("idempotency-replayed"));
    let timing = first.headers()["server-timing"].clone();
    let first = json_of(first).await;
    assert_eq!(first.0, 201, "{}", first.1);
    let again = client.deploy_once("k-1", &body).await;
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    assert_eq!(again.headers()["server-timing"], timing);
    assert_eq!(again.headers()["content-type"], "application/json");
    assert_eq!(json_of(again).await, first);
    assert_eq!(client.deployments().await, 1);
    // Another key is another request.
    assert_eq!(client.deploy_once("k-2", &body).await.status(), 201);
    assert_eq!(client.deployments().await, 2);
}

#[tokio::test]
async fn a_key_is_of_one_request() {
    let client = Client::new().await;
    let digest = client.upload("one").await;
    let body = json!({"digest": digest});
    assert_eq!(client.deploy_once("k", &body).await.status(), 201);
    let other = json!({"digest": digest, "env": {"A": "b"}});
    let (status, body) = json_of(client.deploy_once("k", &other).await).await;
    assert_eq!(
        (status, &body["code"]),
        (422, &json!("idempotency-mismatch"))
    );
    for bad in ["", &"x".repeat(256), "ä"] {
        let (status, body) = json_of(client.deploy_once(bad, &other).await).await;
        assert_eq!(
            (status, &body["code"]),
            (400, &json!("idempotency-key-invalid"))
        );
    }
}

#[tokio::test]
async fn what_was_refused_may_be_tried_again_with_the_key() {
    let client = Client::new().await;
    let digest = format!("sha256:{}", "0".repeat(64));
    let unknown = json!({"digest": digest});
    for _ in 0..2 {
        let (status, body) = json_of(client.deploy_once("k", &unknown).await).await;
        assert_eq!(
            (status, &body["code"]),
            (404, &json!("component-not-found"))
        );
    }
    let body = json!({"digest": client.upload("one").await});
    assert_eq!(client.deploy_once("k", &body).await.status(), 201);
}

#[tokio::test]
async fn a_request_that_is_under_way_is_not_begun_again() {
    let client = Client::new().await;
    let body = json!({"digest": client.upload("one").await});
    let both = tokio::join!(
        client.deploy_once("k", &body),
        client.deploy_once("k", &body)
    );
    let mut statuses = [both.0.status().as_u16(), both.1.status().as_u16()];
    statuses.sort_unstable();
    // The second one was too early for the answer, or late enough for it.
    assert!([[201, 409], [201, 201]].contains(&statuses), "{statuses:?}");
    assert_eq!(client.deployments().await, 1);
}

#[tokio::test]
async fn an_answer_that_was_lost_with_the_node_is_told_so() {
    let client = Client::new().await;
    let body = json!({"digest": client.upload("one").await});
    assert_eq!(client.deploy_once("k", &body).await.status(), 201);
    // As a node leaves it that is killed after the change and before the answer.
    let forget = |records: &crate::store::Records| {
        let mut all = records.all::<IdempotencyRecord>(&Prefix::all())?;
        let record = IdempotencyRecord {
            answer: None,
            ..all.remove(0)
        };
        records.change(|change| change.put(&record)).map(|_| ())
    };
    client.node.engine.ask(forget).await.unwrap();
    let (status, body) = json_of(client.deploy_once("k", &body).await).await;
    assert_eq!(
        (status, &body["code"]),
        (409, &json!("idempotency-answer-lost"))
    );
    assert_eq!(client.deployments().await, 1);
}
