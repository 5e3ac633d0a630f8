//! The authorization table: every operation of the description with every kind of token.

use super::describe::{document, operations};
use super::*;

/// What each kind of token gets from each operation: `+` what the operation answers, `3` that it may not (403), `4` that there
/// is no such thing (404). An operation that is not here fails the test. Whoever has no good token gets 401 everywhere,
/// but from what is public, `o`.
///
/// The apps of the tokens are: `shop`, the one of the path; `blog`, another of the same tenant; and an app of the same name
/// in another tenant.
#[rustfmt::skip]
const TABLE: &[(&str, &str)] = &[
    //                     of the node   of the tenant of the app   another     another app   an app of
    //                     r  d  a       r  d  a       r  d  a      tenant's a  of it, a      another tenant, a
    ("get_health",        "o  o  o       o  o  o       o  o  o      o           o             o"),
    ("get_openapi",       "o  o  o       o  o  o       o  o  o      o           o             o"),
    ("get_status",        "+  +  +       +  +  +       +  +  +      +           +             +"),
    ("whoami",            "+  +  +       +  +  +       +  +  +      +           +             +"),
    ("list_all_apps",     "+  +  +       +  +  +       +  +  +      +           +             +"),
    ("get_metrics",       "+  +  +       3  3  3       3  3  3      3           3             3"),
    ("list_tenants",      "+  +  +       3  3  3       3  3  3      3           3             3"),
    ("create_tenant",     "3  3  +       3  3  3       3  3  3      3           3             3"),
    ("get_tenant",        "+  +  +       +  +  +       4  4  4      4           4             4"),
    ("change_tenant",     "3  3  +       3  3  3       3  3  3      3           3             3"),
    ("delete_tenant",     "3  3  +       3  3  3       3  3  3      3           3             3"),
    ("list_audit",        "3  3  +       3  3  3       3  3  3      3           3             3"),
    ("list_tenant_audit", "3  3  +       3  3  +       4  4  4      4           4             4"),
    ("list_node_tokens",  "3  3  +       3  3  3       3  3  3      3           3             3"),
    ("create_node_token", "3  3  +       3  3  3       3  3  3      3           3             3"),
    ("revoke_node_token", "3  3  +       3  3  3       3  3  3      3           3             3"),
    ("list_tokens",       "3  3  +       3  3  +       4  4  4      4           4             4"),
    ("create_token",      "3  3  +       3  3  +       4  4  4      4           4             4"),
    ("revoke_token",      "3  3  +       3  3  +       4  4  4      4           4             4"),
    ("upload_component",  "3  +  +       3  +  +       3  +  +      4           +             4"),
    ("list_apps",         "+  +  +       +  +  +       4  4  4      4           4             4"),
    ("get_app",           "+  +  +       +  +  +       +  +  +      4           4             4"),
    ("delete_app",        "3  3  +       3  3  +       3  3  +      4           4             4"),
    ("list_deployments",  "+  +  +       +  +  +       +  +  +      4           4             4"),
    ("create_deployment", "3  +  +       3  +  +       3  +  +      4           4             4"),
    ("get_deployment",    "+  +  +       +  +  +       +  +  +      4           4             4"),
    ("delete_deployment", "3  +  +       3  +  +       3  +  +      4           4             4"),
    ("change_app",        "3  +  +       3  +  +       3  +  +      4           4             4"),
    ("get_traffic",       "+  +  +       +  +  +       +  +  +      4           4             4"),
    ("set_traffic",       "3  +  +       3  +  +       3  +  +      4           4             4"),
    ("rollback",          "3  +  +       3  +  +       3  +  +      4           4             4"),
    ("promote",           "3  +  +       3  +  +       3  +  +      4           4             4"),
    ("get_history",       "+  +  +       +  +  +       +  +  +      4           4             4"),
    ("get_canary",        "+  +  +       +  +  +       +  +  +      4           4             4"),
    ("abort_canary",      "3  +  +       3  +  +       3  +  +      4           4             4"),
    ("read_logs",         "+  +  +       +  +  +       +  +  +      4           4             4"),
    ("get_config",        "+  +  +       +  +  +       +  +  +      4           4             4"),
    ("change_config",     "3  +  +       3  +  +       3  +  +      4           4             4"),
    ("list_secrets",      "+  +  +       +  +  +       +  +  +      4           4             4"),
    ("set_secret",        "3  +  +       3  +  +       3  +  +      4           4             4"),
    ("delete_secret",     "3  +  +       3  +  +       3  +  +      4           4             4"),
    ("get_routes",        "+  +  +       +  +  +       +  +  +      4           4             4"),
    ("set_routes",        "3  +  +       3  +  +       3  +  +      4           4             4"),
    ("delete_routes",     "3  +  +       3  +  +       3  +  +      4           4             4"),
    ("list_domains",      "+  +  +       +  +  +       4  4  4      4           4             4"),
    ("get_domain",        "+  +  +       +  +  +       4  4  4      4           4             4"),
    ("set_domain",        "3  +  +       3  +  +       4  4  4      4           4             4"),
    ("delete_domain",     "3  3  +       3  3  +       4  4  4      4           4             4"),
    ("verify_domain",     "3  +  +       3  +  +       4  4  4      4           4             4"),
    ("set_certificate",   "3  +  +       3  +  +       4  4  4      4           4             4"),
    ("delete_certificate","3  +  +       3  +  +       4  4  4      4           4             4"),
    ("renew_certificate", "3  +  +       3  +  +       4  4  4      4           4             4"),
    ("rotate_secret_key", "3  3  +       3  3  3       3  3  3      3           3             3"),
];

/// The tokens of a row, in its order.
const KINDS: [(&str, Option<&str>, &str); 12] = [
    ("node", None, "read"),
    ("node", None, "deploy"),
    ("node", None, "admin"),
    ("acme", None, "read"),
    ("acme", None, "deploy"),
    ("acme", None, "admin"),
    ("acme", Some("shop"), "read"),
    ("acme", Some("shop"), "deploy"),
    ("acme", Some("shop"), "admin"),
    ("rival", None, "admin"),
    ("acme", Some("blog"), "admin"),
    ("rival", Some("shop"), "admin"),
];

/// Codes that say that a token may not, or that there is nothing for it.
const DENIALS: [&str; 4] = [
    "scope-insufficient",
    "role-insufficient",
    "tenant-not-found",
    "app-not-found",
];

/// A node with the tenant `acme`, its app `shop`, a tenant `rival`, and tokens of every kind.
struct World {
    client: Client,
    digest: String,
    /// In the order of [`KINDS`].
    tokens: Vec<String>,
    /// Tokens that are not good: wrong, revoked, expired.
    bad: Vec<String>,
    /// Ids of tokens that may be revoked: of the node, and of the tenant.
    spare: [String; 2],
}

impl World {
    async fn new() -> Self {
        let client = Client::new().await;
        client.call("PUT", "/v1/tenants/rival", "").await;
        let path = "/v1/tenants/acme/components";
        let (_, upload) = client.call("POST", path, "one").await;
        let digest = upload["digest"].as_str().unwrap().to_owned();
        let path = "/v1/tenants/acme/apps/shop/deployments";
        let body = json!({"digest": digest}).to_string();
        assert_eq!(client.call("POST", path, body).await.0, 201);
        let path = "/v1/tenants/acme/apps/shop/secrets/PASSWORD";
        let body = json!({"value": "x"}).to_string();
        assert_eq!(client.call("PUT", path, body).await.0, 200);
        let path = "/v1/tenants/acme/apps/shop/deployments";
        let body = json!({"digest": digest, "canary": {"steps": [10]}}).to_string();
        assert_eq!(client.call("POST", path, body).await.0, 201);
        client.prove("acme", "shop.example").await;
        let path = "/v1/tenants/acme/domains/shop.example/certificate";
        let body = super::hosts::certificate(&["shop.example"], 30);
        assert_eq!(client.call("PUT", path, body.to_string()).await.0, 200);
        let mut tokens = Vec::new();
        for (tenant, app, role) in KINDS {
            let path = match tenant {
                "node" => "/v1/tokens".to_owned(),
                tenant => format!("/v1/tenants/{tenant}/tokens"),
            };
            tokens.push(
                client
                    .token(&path, &json!({"role": role, "app": app}))
                    .await,
            );
        }
        let admin = json!({"role": "admin"});
        let revoked = client.token("/v1/tokens", &admin).await;
        let id = revoked.split('_').nth(1).unwrap();
        let (status, _) = client.call("DELETE", &format!("/v1/tokens/{id}"), "").await;
        assert_eq!(status, 204);
        let short = json!({"role": "admin", "expires_in_seconds": 1});
        let expired = client.token("/v1/tokens", &short).await;
        client.expire(&expired).await;
        let wrong = format!("{}0", tokens[2].trim_end_matches(|c: char| c != '_'));
        let bad = vec!["nonsense".to_owned(), wrong, revoked, expired];
        let mut spare = [const { String::new() }; 2];
        for (id, path) in spare
            .iter_mut()
            .zip(["/v1/tokens", "/v1/tenants/acme/tokens"])
        {
            let token = client.token(path, &admin).await;
            *id = token.split('_').nth(1).unwrap().to_owned();
        }
        Self {
            client,
            digest,
            tokens,
            bad,
            spare,
        }
    }

    /// Calls an operation in a way that works for whoever may.
    async fn call(&self, token: Option<&str>, method: &str, path: &str, id: &str) -> (u16, Value) {
        let of_tenant = path.contains("{tenant}");
        let path = path
            .replace("{tenant}", "acme")
            .replace("{app}", "shop")
            .replace("{deployment}", "1")
            .replace("{secret}", "PASSWORD")
            .replace("{domain}", "shop.example")
            .replace("{token}", &self.spare[usize::from(of_tenant)]);
        let body = match id {
            "create_deployment" => json!({"digest": self.digest}).to_string(),
            "create_token" | "create_node_token" => json!({"role": "read"}).to_string(),
            "change_config" => json!({"values": {"A": "b"}}).to_string(),
            "set_secret" => json!({"value": "x"}).to_string(),
            "set_routes" => json!({"routes": [{"host": "shop.example"}]}).to_string(),
            "set_domain" => "{}".to_owned(),
            "set_certificate" => super::hosts::certificate(&["shop.example"], 30).to_string(),
            "set_traffic" => json!({"shares": [{"deployment": 1, "weight": 100}]}).to_string(),
            "rollback" | "change_app" => "{}".to_owned(),
            "promote" => json!({"deployment": 1}).to_string(),
            "change_tenant" => json!({"quotas": {"apps": 7}}).to_string(),
            "upload_component" => "one".to_owned(),
            _ => String::new(),
        };
        self.client
            .call_as(token, &method.to_uppercase(), &path, body)
            .await
    }
}

impl Client {
    /// Lets a token expire now.
    pub(super) async fn expire(&self, token: &str) {
        let (id, _) = platform_model::TokenId::of_token(token).unwrap();
        let expire = move |records: &crate::store::Records| {
            let key = crate::store::records::TokenRecord::at(&id);
            let mut record = records.get(&key)?.unwrap().record;
            record.expires_at = record.created_at;
            records.change(|change| change.put(&record)).map(|_| ())
        };
        self.node.engine.ask(expire).await.unwrap();
    }
}

#[tokio::test]
async fn every_operation_with_every_kind_of_token() {
    let document = document().await;
    let operations = operations(&document);
    let mut world = World::new().await;
    for (path, method, operation) in &operations {
        let id = operation["operationId"].as_str().unwrap();
        let row = TABLE.iter().find(|(name, _)| *name == id);
        let (_, row) = row.unwrap_or_else(|| panic!("the operation {id} has no row in the table"));
        let cells: Vec<_> = row.split_whitespace().collect();
        assert_eq!(cells.len(), KINDS.len(), "{id}");
        let public = cells[0] == "o";
        let bad = world.bad.clone();
        for token in bad.iter().map(|token| Some(token.as_str())).chain([None]) {
            let (status, body) = world.call(token, method, path, id).await;
            let expected = if public { 200 } else { 401 };
            assert_eq!(status, expected, "{id} with the token {token:?}: {body}");
        }
        for (cell, (number, kind)) in cells.iter().zip(KINDS.iter().enumerate()) {
            let token = world.tokens[number].clone();
            let (status, body) = world.call(Some(&token), method, path, id).await;
            let code = body["code"].as_str().unwrap_or_default().to_owned();
            let what = format!("{id} for {kind:?}: {status} {body}");
            match *cell {
                "+" | "o" => assert!(!DENIALS.contains(&code.as_str()) && status != 401, "{what}"),
                "3" => assert!(status == 403 && code.ends_with("-insufficient"), "{what}"),
                "4" => assert!(status == 404 && DENIALS.contains(&code.as_str()), "{what}"),
                other => panic!("{id}: {other:?} is no cell"),
            }
            // Whoever may changed something: the next ones meet it as it was.
            if *cell == "+" && *method != "get" {
                let fine = ["tenant-not-empty", "certificate-not-issued"];
                assert!(status < 300 || fine.contains(&code.as_str()), "{what}");
                world = World::new().await;
            }
        }
    }
    let ids = operations
        .iter()
        .map(|(_, _, operation)| &operation["operationId"]);
    let ids: Vec<_> = ids.collect();
    for (id, _) in TABLE {
        assert!(
            ids.contains(&&json!(id)),
            "the table has {id}, the API has not"
        );
    }
}

#[tokio::test]
async fn what_is_anothers_and_what_is_not_there_are_answered_alike() {
    let world = World::new().await;
    let stranger = Some(world.tokens[9].as_str());
    let neighbour = Some(world.tokens[10].as_str());
    let alike = async |token, here: &str, nowhere: &str, method: &str, path: &str| {
        let mut answers = Vec::new();
        for name in [here, nowhere] {
            let (status, mut body) = world
                .client
                .call_as(token, method, &path.replace('*', name), "{}")
                .await;
            body["request_id"] = Value::Null;
            answers.push((status, body.to_string().replace(name, "*")));
        }
        assert_eq!(answers[0], answers[1], "{method} {path}");
        assert_eq!(answers[0].0, 404, "{method} {path}");
    };
    for (method, path) in [
        ("GET", "/v1/tenants/*"),
        ("GET", "/v1/tenants/*/apps"),
        ("GET", "/v1/tenants/*/tokens"),
        ("GET", "/v1/tenants/*/apps/shop"),
        ("DELETE", "/v1/tenants/*/apps/shop"),
        ("POST", "/v1/tenants/*/apps/shop/deployments"),
        ("GET", "/v1/tenants/*/apps/shop/logs"),
        ("POST", "/v1/tenants/*/components"),
    ] {
        alike(stranger, "acme", "nobody", method, path).await;
    }
    for (method, path) in [
        ("GET", "/v1/tenants/acme/apps/*"),
        ("GET", "/v1/tenants/acme/apps/*/deployments/1"),
        ("DELETE", "/v1/tenants/acme/apps/*"),
    ] {
        alike(neighbour, "shop", "nothing", method, path).await;
    }
}

#[tokio::test]
async fn lists_have_only_what_the_token_covers() {
    let world = World::new().await;
    let body = json!({"digest": world.digest}).to_string();
    let path = "/v1/tenants/acme/apps/blog/deployments";
    assert_eq!(world.client.call("POST", path, body).await.0, 201);
    let apps = async |token: usize| {
        let token = Some(world.tokens[token].as_str());
        let (_, list) = world.client.call_as(token, "GET", "/v1/apps", "").await;
        let items = list["items"].as_array().unwrap().iter();
        items
            .map(|app| app["app"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(apps(0).await, ["blog", "shop"]);
    assert_eq!(apps(3).await, ["blog", "shop"]);
    assert_eq!(apps(6).await, ["shop"]);
    assert_eq!(apps(10).await, ["blog"]);
    assert!(apps(9).await.is_empty() && apps(11).await.is_empty());
}
