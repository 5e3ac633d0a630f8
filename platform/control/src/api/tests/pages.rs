//! Lists in pages, and entity tags.

use super::*;

#[tokio::test]
async fn a_list_is_read_page_by_page() {
    let client = Client::new().await;
    for tenant in ["a", "b", "c", "d", "e"] {
        client
            .call("PUT", &format!("/v1/tenants/{tenant}"), "")
            .await;
    }
    let mut found = Vec::new();
    let mut path = "/v1/tenants?limit=2".to_owned();
    let mut pages = 0;
    loop {
        let (status, page) = client.call("GET", &path, "").await;
        assert_eq!(status, 200, "{page}");
        pages += 1;
        let items = page["items"].as_array().unwrap();
        found.extend(
            items
                .iter()
                .map(|tenant| tenant["tenant"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/tenants?limit=2&after={next}"),
            None => break,
        }
    }
    assert_eq!((pages, found.concat().as_str()), (3, "abcddefaulte"));
    for bad in ["limit=x", "limit=-1", "limit=0", "limit=1001", "page=2"] {
        let (status, body) = client.call("GET", &format!("/v1/tenants?{bad}"), "").await;
        assert_eq!(
            (status, &body["code"]),
            (400, &json!("query-invalid")),
            "{bad}"
        );
    }
}

#[tokio::test]
async fn a_change_can_depend_on_what_was_read() {
    let client = Client::new().await;
    client.call("PUT", "/v1/tenants/acme", "").await;
    let read = async || {
        let request =
            Request::get("/v1/tenants/acme").header("authorization", format!("Bearer {TOKEN}"));
        client
            .send(request.body(Body::empty()).unwrap())
            .await
            .headers()["etag"]
            .clone()
    };
    let patch = async |tag: &str, apps: u32| {
        let request = Request::patch("/v1/tenants/acme")
            .header("authorization", format!("Bearer {TOKEN}"))
            .header("if-match", tag);
        let body = json!({"quotas": {"apps": apps}}).to_string();
        client.send(request.body(Body::from(body)).unwrap()).await
    };
    let first = read().await;
    let changed = patch(first.to_str().unwrap(), 3).await;
    let second = changed.headers()["etag"].clone();
    assert_ne!(first, second);
    assert_eq!(second, read().await);
    let (_, tenant) = json_of(changed).await;
    assert_eq!(
        (&tenant["quotas"]["apps"], &tenant["quotas"]["deployments"]),
        (&json!(3), &json!(2000))
    );
    let (status, body) = json_of(patch(first.to_str().unwrap(), 4).await).await;
    assert_eq!(
        (status, &body["code"]),
        (412, &json!("precondition-failed"))
    );
    assert_eq!(patch("*", 5).await.status(), 200);
    // What changes nothing has the tag that was there.
    let tag = read().await;
    assert_eq!(patch("*", 5).await.headers()["etag"], tag);
    let (status, body) = json_of(patch("*", 1_000_000).await).await;
    assert_eq!((status, &body["code"]), (422, &json!("quotas-invalid")));
    let (status, body) = json_of(patch("3", 1).await).await;
    assert_eq!((status, &body["code"]), (400, &json!("etag-invalid")));
}
