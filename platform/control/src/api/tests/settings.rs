//! Configuration and secrets: given to the component, never given back.

use super::*;
use crate::keyring;

const CONFIG: &str = "/v1/tenants/default/apps/shop/config";
const SECRETS: &str = "/v1/tenants/default/apps/shop/secrets";

impl Client {
    async fn config(&self, body: Value) -> (u16, Value) {
        self.call("PATCH", CONFIG, body.to_string()).await
    }

    async fn secret(&self, name: &str, body: Value) -> (u16, Value) {
        self.call("PUT", &format!("{SECRETS}/{name}"), body.to_string())
            .await
    }

    async fn call_if(&self, tag: &str, method: &str, path: &str, body: Value) -> Response {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {TOKEN}"))
            .header("if-match", tag);
        self.send(request.body(Body::from(body.to_string())).unwrap())
            .await
    }

    /// Every file of the data folder, as one text.
    fn disk(&self) -> Vec<u8> {
        fn read(folder: &std::path::Path, all: &mut Vec<u8>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    read(&path, all);
                } else {
                    all.extend(std::fs::read(path).unwrap());
                }
            }
        }
        let mut all = Vec::new();
        read(self.node.dir.root(), &mut all);
        all
    }
}

fn holds(all: &[u8], text: &str) -> bool {
    all.windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn a_change_of_configuration_is_a_deployment() {
    let client = Client::new().await;
    client.deploy("shop", "one").await;
    assert_eq!(client.node.env(), ["SECRET=s"]);
    let (status, changed) = client.config(json!({"values": {"A": "1", "B": "2"}})).await;
    assert_eq!(status, 200, "{changed}");
    assert_eq!(changed["config"]["values"], json!({"A": "1", "B": "2"}));
    assert_eq!(changed["deployment"]["deployment"], 2);
    assert_eq!(changed["deployment"]["env"], json!(["A", "B", "SECRET"]));
    assert_eq!(client.node.env(), ["A=1", "B=2", "SECRET=s"]);
    // Told not to, it waits for the next deployment, which has its own variables before those of the configuration.
    let (_, changed) = client
        .config(json!({"values": {"A": null, "SECRET": "c", "C": "3"}, "deploy": false}))
        .await;
    assert!(changed["deployment"].is_null());
    assert_eq!(client.node.env(), ["A=1", "B=2", "SECRET=s"]);
    client.deploy("shop", "two").await;
    assert_eq!(client.node.env(), ["B=2", "C=3", "SECRET=s"]);
    let (_, config) = client.call("GET", CONFIG, "").await;
    assert_eq!(config["values"], json!({"B": "2", "C": "3", "SECRET": "c"}));
    // What changes nothing deploys nothing.
    let (_, changed) = client
        .config(json!({"values": {"B": "2", "NONE": null}}))
        .await;
    assert!(changed["deployment"].is_null());
    // What a deployment was made with stays with it.
    let path = "/v1/tenants/default/apps/shop/deployments/2";
    let (_, second) = client.call("GET", path, "").await;
    assert_eq!(second["env"], json!(["A", "B", "SECRET"]));
}

#[tokio::test]
async fn a_secret_reaches_the_component_and_nobody_else() {
    let client = Client::new().await;
    client.deploy("shop", "one").await;
    let value = "correct-horse-battery-staple";
    let (status, changed) = client.secret("PASSWORD", json!({"value": value})).await;
    assert_eq!(status, 200, "{changed}");
    assert_eq!(changed["secret"]["version"], 1);
    assert_eq!(changed["deployment"]["secrets"], json!({"PASSWORD": 1}));
    assert_eq!(
        client.node.env(),
        [format!("PASSWORD={value}"), "SECRET=s".to_owned()]
    );
    let mut answers = changed.to_string();
    for path in [
        SECRETS,
        CONFIG,
        "/v1/apps",
        "/v1/audit",
        "/v1/tenants/default/apps/shop/deployments",
    ] {
        answers += &client.call("GET", path, "").await.1.to_string();
    }
    assert!(!answers.contains(value), "{answers}");
    assert!(!holds(&client.disk(), value));
    let debug = format!(
        "{:?} {:?}",
        client.node.engine,
        client.node.sandboxes.0.lock().unwrap().routes
    );
    assert!(!debug.contains(value));
    // Another value is another version, and the deployment before keeps its own.
    let (_, changed) = client.secret("PASSWORD", json!({"value": "other"})).await;
    assert_eq!(changed["secret"]["version"], 2);
    assert_eq!(client.node.env()[0], "PASSWORD=other");
    let (_, list) = client.call("GET", SECRETS, "").await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let (_, changed) = client
        .call("DELETE", &format!("{SECRETS}/PASSWORD"), "")
        .await;
    assert_eq!(changed["deployment"]["secrets"], json!({}));
    assert_eq!(client.node.env(), ["SECRET=s"]);
    let (status, body) = client
        .call("DELETE", &format!("{SECRETS}/PASSWORD"), "")
        .await;
    assert_eq!((status, &body["code"]), (404, &json!("secret-not-found")));
    // A name that comes back does not get a version that was there.
    let (_, changed) = client
        .secret("PASSWORD", json!({"value": "third", "deploy": false}))
        .await;
    assert_eq!(changed["secret"]["version"], 3);
}

#[tokio::test]
async fn settings_may_come_before_the_app() {
    let client = Client::new().await;
    let (status, body) = client.call("GET", CONFIG, "").await;
    assert_eq!((status, &body["code"]), (404, &json!("app-not-found")));
    let (status, changed) = client.secret("PASSWORD", json!({"value": "v"})).await;
    assert_eq!(status, 200, "{changed}");
    assert!(changed["deployment"].is_null());
    let (_, tenant) = client.call("GET", "/v1/tenants/default", "").await;
    assert_eq!(tenant["usage"]["apps"], 1);
    client.deploy("shop", "one").await;
    assert_eq!(client.node.env(), ["PASSWORD=v", "SECRET=s"]);
    let (_, tenant) = client.call("GET", "/v1/tenants/default", "").await;
    assert_eq!(tenant["usage"]["apps"], 1);
    let path = "/v1/tenants/default/apps/shop";
    assert_eq!(client.call("DELETE", path, "").await.0, 204);
    assert_eq!(client.call("GET", SECRETS, "").await.0, 404);
    // Settings alone are deleted as an app is.
    client.config(json!({"values": {"A": "1"}})).await;
    let (status, body) = client.call("DELETE", "/v1/tenants/default", "").await;
    assert_eq!((status, &body["code"]), (409, &json!("tenant-not-empty")));
    assert_eq!(client.call("DELETE", path, "").await.0, 204);
    assert_eq!(
        client.call("DELETE", "/v1/tenants/default", "").await.0,
        204
    );
}

#[tokio::test]
async fn settings_that_are_not_possible() {
    let client = Client::new().await;
    client.deploy("shop", "one").await;
    client.secret("PASSWORD", json!({"value": "v"})).await;
    client.config(json!({"values": {"A": "1"}})).await;
    let big = "x".repeat(65_536);
    for (path, method, body, status, code) in [
        (
            CONFIG,
            "PATCH",
            json!({"values": {"PASSWORD": "x"}}),
            422,
            "settings-invalid",
        ),
        (
            CONFIG,
            "PATCH",
            json!({"values": {"a=b": "x"}}),
            422,
            "settings-invalid",
        ),
        (
            CONFIG,
            "PATCH",
            json!({"values": {"B": big}}),
            422,
            "settings-invalid",
        ),
        (
            CONFIG,
            "PATCH",
            json!({"values": {"A": 1}}),
            400,
            "json-invalid",
        ),
        ("A", "PUT", json!({"value": "x"}), 422, "settings-invalid"),
        ("B", "PUT", json!({"value": big}), 422, "settings-invalid"),
        (
            "B",
            "PUT",
            json!({"value": "a\0b"}),
            422,
            "settings-invalid",
        ),
        ("a-b", "PUT", json!({"value": "x"}), 400, "name-invalid"),
        ("B", "PUT", json!({"value": 1}), 400, "json-invalid"),
    ] {
        let path = if path == CONFIG {
            path.to_owned()
        } else {
            format!("{SECRETS}/{path}")
        };
        let (got, answer) = client.call(method, &path, body.to_string()).await;
        assert_eq!(
            (got, &answer["code"]),
            (status, &json!(code)),
            "{path}: {answer}"
        );
    }
    // A deployment cannot have a variable of a secret's name.
    let digest = client.upload("one").await;
    let body = json!({"digest": digest, "env": {"PASSWORD": "mine"}}).to_string();
    let path = "/v1/tenants/default/apps/shop/deployments";
    let (status, body) = client.call("POST", path, body).await;
    assert_eq!((status, &body["code"]), (422, &json!("deploy-invalid")));
    assert_eq!(client.node.env(), ["A=1", "PASSWORD=v", "SECRET=s"]);
}

#[tokio::test]
async fn an_error_does_not_quote_what_may_be_a_secret() {
    let client = Client::new().await;
    client.deploy("shop", "one").await;
    for body in [
        r#""hunter2""#.to_owned(),
        r#"{"value":"x","deploy":"hunter2"}"#.to_owned(),
        r#"{"value":["hunter2"]}"#.to_owned(),
        r#"{"hunter2":"x"}"#.to_owned(),
        r#"{"value":"hunter2"#.to_owned(),
    ] {
        let (status, answer) = client.call("PUT", &format!("{SECRETS}/A"), body).await;
        assert_eq!((status, &answer["code"]), (400, &json!("json-invalid")));
        assert!(!answer.to_string().contains("hunter2"), "{answer}");
        assert!(
            answer["detail"].as_str().unwrap().contains("line 1"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_change_of_settings_that_cannot_be_deployed_is_none() {
    let client = Client::new().await;
    client.deploy("shop", "one").await;
    client.config(json!({"values": {"A": "1"}})).await;
    // The artifact does not start any more: as with a value that the component does not get along with.
    let artifact = &client.node.files("artifacts")[0];
    let component = client
        .node
        .dir
        .components()
        .join(artifact)
        .with_extension("wasm");
    std::fs::write(component, "lazy").unwrap();
    let (status, body) = client.config(json!({"values": {"A": "2"}})).await;
    assert_eq!((status, &body["code"]), (422, &json!("start-refused")));
    let (status, body) = client.secret("PASSWORD", json!({"value": "v"})).await;
    assert_eq!((status, &body["code"]), (422, &json!("start-refused")));
    let (_, config) = client.call("GET", CONFIG, "").await;
    assert_eq!(config["values"], json!({"A": "1"}));
    assert_eq!(client.call("GET", SECRETS, "").await.1["items"], json!([]));
    assert_eq!(client.node.env(), ["A=1", "SECRET=s"]);
}

#[tokio::test]
async fn settings_have_tags_and_rotate_needs_a_secret() {
    let client = Client::new().await;
    client.deploy("shop", "one").await;
    let path = format!("{SECRETS}/PASSWORD");
    let (status, body) = json_of(
        client
            .call_if("*", "PUT", &path, json!({"value": "v"}))
            .await,
    )
    .await;
    assert_eq!(
        (status, &body["code"]),
        (412, &json!("precondition-failed"))
    );
    client.secret("PASSWORD", json!({"value": "v"})).await;
    let rotated = client
        .call_if("*", "PUT", &path, json!({"value": "w"}))
        .await;
    assert_eq!(rotated.status(), 200);
    let tag = rotated.headers()["etag"].to_str().unwrap().to_owned();
    let changed = client
        .call_if(&tag, "PATCH", CONFIG, json!({"values": {"A": "1"}}))
        .await;
    assert_eq!(changed.status(), 200);
    let (status, _) = json_of(
        client
            .call_if(&tag, "PATCH", CONFIG, json!({"values": {"A": "2"}}))
            .await,
    )
    .await;
    assert_eq!(status, 412);
}

#[tokio::test]
async fn the_key_is_rotated_and_everything_still_opens() {
    let folder = tempfile::tempdir().unwrap();
    {
        let client = Client::on(folder.path()).await;
        client.deploy("shop", "one").await;
        client.secret("PASSWORD", json!({"value": "v"})).await;
        let before = std::fs::read(folder.path().join(keyring::FILE)).unwrap();
        let (status, rotated) = client.call("POST", "/v1/secret-key/rotate", "").await;
        assert_eq!(
            (status, &rotated["resealed"]),
            (200, &json!(1)),
            "{rotated}"
        );
        let after = std::fs::read(folder.path().join(keyring::FILE)).unwrap();
        assert!(before != after && before.len() == after.len());
        client.secret("OTHER", json!({"value": "w"})).await;
    }
    let client = Client::on(folder.path()).await;
    assert_eq!(client.node.env(), ["OTHER=w", "PASSWORD=v", "SECRET=s"]);
}

#[tokio::test]
async fn an_app_whose_secrets_do_not_open_is_not_served_with_others() {
    let folder = tempfile::tempdir().unwrap();
    {
        let client = Client::on(folder.path()).await;
        client.deploy("shop", "one").await;
        client.secret("PASSWORD", json!({"value": "v"})).await;
    }
    // Another key than that which it was sealed with.
    std::fs::remove_file(folder.path().join(keyring::FILE)).unwrap();
    let client = Client::on(folder.path()).await;
    assert_eq!(client.node.env(), ["SECRET=s"]);
    assert_eq!(client.node.routes(), [("shop.localhost".to_owned(), 2)]);
    let (status, body) = client.config(json!({"values": {"A": "1"}})).await;
    assert_eq!((status, &body["code"]), (500, &json!("secret-unreadable")));
    // Giving it a value again helps.
    let (status, body) = client.secret("PASSWORD", json!({"value": "w"})).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(client.node.env(), ["PASSWORD=w", "SECRET=s"]);
}

#[tokio::test]
async fn a_value_that_nothing_has_any_more_is_forgotten() {
    let client = Client::new().await;
    let values = async || {
        let all = client.node.engine.ask(|records| {
            records.all(&crate::store::records::Prefix::<
                crate::store::records::SecretRecord,
            >::all())
        });
        all.await.unwrap().len()
    };
    client.secret("PASSWORD", json!({"value": "1"})).await;
    client.secret("PASSWORD", json!({"value": "2"})).await;
    assert_eq!(values().await, 1);
    client.deploy("shop", "one").await;
    client.secret("PASSWORD", json!({"value": "3"})).await;
    // The first deployment still has the one before.
    assert_eq!(values().await, 2);
    client
        .call("DELETE", "/v1/tenants/default/apps/shop", "")
        .await;
    assert_eq!(values().await, 0);
}

#[tokio::test]
async fn an_answer_with_a_token_is_sealed_too() {
    let client = Client::new().await;
    let send = async || {
        let request = Request::post("/v1/tokens")
            .header("authorization", format!("Bearer {TOKEN}"))
            .header("idempotency-key", "k");
        let body = json!({"role": "read"}).to_string();
        json_of(client.send(request.body(Body::from(body)).unwrap()).await).await
    };
    let (status, first) = send().await;
    assert_eq!(status, 201);
    let token = first["token"].as_str().unwrap();
    assert!(!holds(&client.disk(), token.rsplit('_').next().unwrap()));
    assert_eq!(send().await, (201, first.clone()));
    let (_, rotated) = client.call("POST", "/v1/secret-key/rotate", "").await;
    assert_eq!(rotated["resealed"], 1);
    assert_eq!(send().await, (201, first));
}
