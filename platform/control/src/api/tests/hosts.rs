//! Routes, domains and certificates.

use rcgen::{CertificateParams, KeyPair};
use time::{Duration, OffsetDateTime};

use super::*;

const ROUTES: &str = "/v1/tenants/acme/apps/shop/routes";
const DOMAINS: &str = "/v1/tenants/acme/domains";

/// A request with a certificate of one's own for these names that is valid for so many days from now on.
pub(super) fn certificate(names: &[&str], days: i64) -> Value {
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(names).unwrap();
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::days(60);
    params.not_after = now + Duration::days(days);
    let certificate = params.self_signed(&key).unwrap();
    json!({"chain": certificate.pem(), "key": key.serialize_pem()})
}

impl Client {
    /// Adds a domain to a tenant, and lets its proof be found.
    async fn add(&self, tenant: &str, domain: &str) -> String {
        let path = format!("/v1/tenants/{tenant}/domains/{domain}");
        let (status, added) = self.call("PUT", &path, "{}").await;
        assert!(status < 300, "{added}");
        let token = added["proof"]["txt_value"].as_str().unwrap().to_owned();
        let remembered = &self.node.sandboxes.0;
        remembered.lock().unwrap().proofs.push(token);
        path
    }

    /// Adds a domain to a tenant, and proves it.
    pub(super) async fn prove(&self, tenant: &str, domain: &str) {
        let path = self.add(tenant, domain).await + "/verify";
        let (status, proved) = self.call("POST", &path, "").await;
        assert_eq!(status, 200, "{proved}");
    }

    /// An app `shop` and one more of the tenant `acme`, which has the domain `shop.example`.
    async fn furnished() -> Self {
        let client = Self::new().await;
        client.call("PUT", "/v1/tenants/acme", "").await;
        let path = "/v1/tenants/acme/components";
        let (_, upload) = client.call("POST", path, "one").await;
        let body = json!({"digest": upload["digest"]}).to_string();
        for app in ["shop", "blog"] {
            let path = format!("/v1/tenants/acme/apps/{app}/deployments");
            assert_eq!(client.call("POST", &path, body.clone()).await.0, 201);
        }
        client.prove("acme", "shop.example").await;
        client
    }

    async fn refused(&self, method: &str, path: &str, body: Value) -> String {
        let (status, problem) = self.call(method, path, body.to_string()).await;
        assert!((400..500).contains(&status), "{status} {problem}");
        let code = problem["code"].as_str().unwrap();
        format!("{code}: {}", problem["detail"].as_str().unwrap())
    }

    /// What the published table has of a host, in the order of the prefixes.
    fn host(&self, host: &str) -> Vec<String> {
        let remembered = self.node.sandboxes.0.lock().unwrap();
        let found = remembered.table.hosts().find(|(name, _)| *name == host);
        let routes = found.into_iter().flat_map(|(_, host)| &host.routes);
        let mut told: Vec<_> = routes
            .map(|route| match &route.to {
                platform_data::Destination::App {
                    backend,
                    strip_prefix,
                } => {
                    let (target, _) = &backend.shares[0];
                    format!("{} {} {strip_prefix}", route.prefix, target.app)
                }
                platform_data::Destination::Redirect(redirect) => {
                    format!("{} {} {}", route.prefix, redirect.to, redirect.status)
                }
            })
            .collect();
        told.sort();
        told
    }

    fn is_served(&self, host: &str) -> bool {
        let remembered = self.node.sandboxes.0.lock().unwrap();
        remembered.table.hosts().any(|(name, _)| name == host)
    }
}

#[tokio::test]
async fn routes_lead_to_apps_and_elsewhere() {
    let client = Client::furnished().await;
    assert_eq!(client.host("shop.acme.localhost"), ["/ shop false"]);
    let routes = json!({"routes": [
        {"host": "Shop.Example", "path": "/api/", "strip_prefix": true},
        {"host": "shop.example"},
        {"host": "shop.acme.localhost", "path": "/old", "redirect": {"to": "https://shop.example/new", "status": 301}},
    ]});
    let (status, set) = client.call("PUT", ROUTES, routes.to_string()).await;
    assert_eq!(status, 200, "{set}");
    assert_eq!(
        set["routes"][1],
        json!({"host": "shop.example", "path": "/", "strip_prefix": false})
    );
    assert_eq!(client.call("GET", ROUTES, "").await.1, set);
    assert_eq!(
        client.host("shop.example"),
        ["/ shop false", "/api shop true"]
    );
    let own = client.host("shop.acme.localhost");
    assert_eq!(own, ["/ shop false", "/old https://shop.example/new 301"]);
    // Another app of the tenant has another path, and not the same.
    let path = "/v1/tenants/acme/apps/blog/routes";
    let taken = json!({"routes": [{"host": "shop.example", "path": "/api"}]});
    let told = client.refused("PUT", path, taken).await;
    assert!(
        told.starts_with("route-taken: shop.example/api is a route of the app shop"),
        "{told}"
    );
    let other = json!({"routes": [{"host": "shop.example", "path": "/api/v2"}]});
    assert_eq!(client.call("PUT", path, other.to_string()).await.0, 200);
    assert_eq!(client.host("shop.example")[2], "/api/v2 blog false");
    // A deploy leaves them, and a new start has them.
    let hosts = client.host("shop.example");
    let client = client.again().await;
    assert_eq!(client.host("shop.example"), hosts);
    assert_eq!(client.call("DELETE", path, "").await.0, 204);
    assert_eq!(client.call("GET", path, "").await.1, json!({"routes": []}));
    assert_eq!(client.host("shop.example").len(), 2);
    // They go with their app.
    let (status, _) = client
        .call("DELETE", "/v1/tenants/acme/apps/shop", "")
        .await;
    assert_eq!(status, 204);
    assert!(client.host("shop.example").is_empty() && client.is_served("shop.example"));
}

#[tokio::test]
async fn routes_that_are_not_possible_change_nothing() {
    let client = Client::furnished().await;
    client.add("acme", "unproved.example").await;
    client.call("PUT", "/v1/tenants/rival", "").await;
    client.prove("rival", "rival.example").await;
    let route = |host: &str| json!({"routes": [{"host": host}]});
    for (routes, told) in [
        (
            route("blog.acme.localhost"),
            "routes-invalid: blog.acme.localhost is not a host of this app: its own is",
        ),
        (route("shop.localhost"), "routes-invalid: "),
        (route("unproved.example"), "domain-not-proved: "),
        (route("rival.example"), "domain-not-proved: "),
        (route("nobody.example"), "domain-not-proved: "),
        (route("127.0.0.1"), "json-invalid: "),
        (
            json!({"routes": [{"host": "shop.example"}, {"host": "shop.example", "path": "/"}]}),
            "routes-invalid: shop.example/ is there twice",
        ),
        (
            json!({"routes": [{"host": "shop.example", "redirect": {"to": "x"}}]}),
            "routes-invalid: ",
        ),
        (
            json!({"routes": [{"host": "shop.example", "path": "x"}]}),
            "json-invalid: ",
        ),
    ] {
        let check = format!("{ROUTES}?check=true");
        for path in [ROUTES, &check] {
            let refused = client.refused("PUT", path, routes.clone()).await;
            assert!(refused.starts_with(told), "{refused}");
        }
    }
    assert_eq!(
        client.call("GET", ROUTES, "").await.1,
        json!({"routes": []})
    );
    let path = "/v1/tenants/acme/apps/nothing/routes";
    let refused = client.refused("PUT", path, route("shop.example")).await;
    assert!(refused.starts_with("app-not-found"), "{refused}");
}

#[tokio::test]
async fn routes_can_be_asked_about_before_there_is_an_app() {
    let client = Client::furnished().await;
    let routes = json!({"routes": [{"host": "shop.example", "path": "/a"}]});
    let check = async |app: &str| {
        let path = format!("/v1/tenants/acme/apps/{app}/routes?check=true");
        client.call("PUT", &path, routes.to_string()).await
    };
    let audit = async || client.call("GET", "/v1/audit", "").await.1["items"][0].clone();
    let before = audit().await;
    let (status, could) = check("shop").await;
    assert_eq!((status, &could["routes"][0]["path"]), (200, &json!("/a")));
    assert_eq!(check("new").await.0, 200);
    // Nothing was set, and nothing is told of.
    assert_eq!(audit().await, before);
    let has = client.call("GET", ROUTES, "").await.1;
    assert_eq!(has, json!({"routes": []}));
    // What the app has itself is no obstacle, what another one has is.
    assert_eq!(client.call("PUT", ROUTES, routes.to_string()).await.0, 200);
    assert_eq!(check("shop").await.0, 200);
    let path = "/v1/tenants/acme/apps/new/routes?check=true";
    let told = client.refused("PUT", path, routes.clone()).await;
    assert!(told.starts_with("route-taken: "), "{told}");
}

#[tokio::test]
async fn routes_are_changed_as_they_were_seen() {
    let client = Client::furnished().await;
    let put = async |tag: &str, path: &str| {
        let body = json!({"routes": [{"host": "shop.example", "path": path}]});
        let request = Request::builder().method("PUT").uri(ROUTES);
        let request = request
            .header("authorization", format!("Bearer {TOKEN}"))
            .header("if-match", tag);
        let answer = client.send(request.body(Body::from(body.to_string())).unwrap());
        let answer = answer.await;
        let tag = answer.headers().get("etag");
        let tag = tag.map(|tag| tag.to_str().unwrap().to_owned());
        (answer.status().as_u16(), tag)
    };
    assert_eq!(put("*", "/a").await.0, 412);
    let body = json!({"routes": [{"host": "shop.example"}]}).to_string();
    assert_eq!(client.call("PUT", ROUTES, body).await.0, 200);
    let (status, tag) = put("*", "/a").await;
    let tag = tag.unwrap();
    assert_eq!((status, put(&tag, "/a").await.1), (200, Some(tag.clone())));
    assert_eq!(put(&tag, "/b").await.0, 200);
    assert_eq!(put(&tag, "/c").await.0, 412);
}

#[tokio::test]
async fn a_domain_is_that_of_the_tenant_that_proves_it() {
    let client = Client::new().await;
    for tenant in ["acme", "rival"] {
        let (_, made) = client
            .call("PUT", &format!("/v1/tenants/{tenant}"), "")
            .await;
        assert_eq!(made["tenant"], tenant);
    }
    let acme = format!("{DOMAINS}/shop.example");
    let (status, added) = client.call("PUT", &acme, "{}").await;
    assert_eq!((status, &added["proved_at"]), (201, &Value::Null));
    assert_eq!(added["proof"]["txt_name"], "_cloister.shop.example");
    assert_eq!(client.call("PUT", &acme, "{}").await, (200, added.clone()));
    // Without a proof it is nobody's, and serves nothing.
    let told = client
        .refused("POST", &format!("{acme}/verify"), json!(null))
        .await;
    let expected =
        "domain-proof-failed: shop.example is not proved: by DNS: no record; by HTTP: no answer";
    assert_eq!(told, expected);
    assert!(!client.is_served("shop.example"));
    // The other tenant may add it too, with another token, and learns nothing.
    let rival = client.add("rival", "shop.example").await;
    let (_, other) = client.call("GET", &rival, "").await;
    assert_ne!(other["proof"], added["proof"]);
    client.prove("acme", "shop.example").await;
    assert!(client.is_served("shop.example"));
    let (_, proved) = client.call("GET", &acme, "").await;
    assert!(proved["proved_at"].is_string());
    assert_eq!(proved["issuance"]["failures"], 0);
    let told = client
        .refused("POST", &format!("{rival}/verify"), json!(null))
        .await;
    assert!(told.starts_with("domain-taken: "), "{told}");
    assert!(!told.contains("acme"), "{told}");
    // Deleted by the one, the other can have it.
    assert_eq!(client.call("DELETE", &acme, "").await.0, 204);
    assert!(!client.is_served("shop.example"));
    assert_eq!(
        client.call("POST", &format!("{rival}/verify"), "").await.0,
        200
    );
    // It goes with its tenant.
    assert_eq!(client.call("DELETE", "/v1/tenants/rival", "").await.0, 204);
    assert!(!client.is_served("shop.example"));
    client.prove("acme", "shop.example").await;
}

#[tokio::test]
async fn what_domains_are_asked_that_is_not_possible() {
    let client = Client::furnished().await;
    for (method, path, body, told) in [
        ("PUT", "/a.localhost", json!({}), "domain-invalid: "),
        (
            "PUT",
            "/a.example",
            json!({"hsts": {"max_age_seconds": 1_u64 << 40}}),
            "domain-invalid: hsts",
        ),
        (
            "PUT",
            "/a.example",
            json!({"acmee": true}),
            "json-invalid: ",
        ),
        ("PUT", "/example", json!({}), "name-invalid: "),
        ("PUT", "/*.example", json!({}), "name-invalid: "),
        ("GET", "/a.example", json!(null), "domain-not-found: "),
        (
            "POST",
            "/a.example/verify",
            json!(null),
            "domain-not-found: ",
        ),
        ("DELETE", "/a.example", json!(null), "domain-not-found: "),
        (
            "DELETE",
            "/shop.example/certificate",
            json!(null),
            "certificate-not-found: ",
        ),
    ] {
        let refused = client
            .refused(method, &format!("{DOMAINS}{path}"), body)
            .await;
        assert!(refused.starts_with(told), "{method} {path}: {refused}");
    }
    let routes = json!({"routes": [{"host": "shop.example"}]}).to_string();
    assert_eq!(client.call("PUT", ROUTES, routes).await.0, 200);
    let path = format!("{DOMAINS}/shop.example");
    let told = client.refused("DELETE", &path, json!(null)).await;
    assert!(
        told.starts_with("domain-has-routes: the app shop"),
        "{told}"
    );
    for number in 1..platform_model::domain::MAX_DOMAINS {
        let path = format!("{DOMAINS}/n{number}.example");
        assert_eq!(client.call("PUT", &path, "{}").await.0, 201);
    }
    let told = client
        .refused("PUT", &format!("{DOMAINS}/more.example"), json!({}))
        .await;
    assert!(
        told.starts_with("domain-invalid: the tenant has 100 domains"),
        "{told}"
    );
    let (_, list) = client.call("GET", &format!("{DOMAINS}?limit=2"), "").await;
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    assert!(list["next"].is_string());
}

#[tokio::test]
async fn certificates_are_checked_and_served() {
    let client = Client::furnished().await;
    let path = format!("{DOMAINS}/shop.example/certificate");
    let good = certificate(&["shop.example", "www.shop.example"], 30);
    let other = certificate(&["shop.example"], 30);
    let mixed = json!({"chain": good["chain"], "key": other["key"]});
    for (body, told) in [
        (
            certificate(&["shop.example"], -1),
            "certificate-invalid: the certificate has expired",
        ),
        (
            certificate(&["other.example"], 30),
            "certificate-invalid: the certificate is for other.example, not for shop.example",
        ),
        (
            mixed,
            "certificate-invalid: the private key is not that of the first",
        ),
        (
            json!({"chain": "", "key": good["key"]}),
            "certificate-invalid: there is no certificate",
        ),
        (
            json!({"chain": good["chain"], "key": "x".repeat(70_000)}),
            "certificate-invalid: the key has more",
        ),
    ] {
        let refused = client.refused("PUT", &path, body).await;
        assert!(refused.starts_with(told), "{refused}");
        assert!(!refused.contains("PRIVATE"), "{refused}");
    }
    let served = |client: &Client| {
        let remembered = client.node.sandboxes.0.lock().unwrap();
        format!("{:?}", remembered.certificates).contains("www.shop.example")
    };
    assert!(!served(&client));
    let options = json!({"https_redirect": true, "hsts": {"max_age_seconds": 60}}).to_string();
    let domain = format!("{DOMAINS}/shop.example");
    assert_eq!(client.call("PUT", &domain, options).await.0, 200);
    let secure = |client: &Client| {
        let remembered = client.node.sandboxes.0.lock().unwrap();
        let mut hosts = remembered.table.hosts();
        let (_, host) = hosts.find(|(name, _)| *name == "shop.example").unwrap();
        (host.https_redirect, host.hsts.is_some())
    };
    // Nobody is sent where nothing answers.
    assert_eq!(secure(&client), (false, false));
    let (status, set) = client.call("PUT", &path, good.to_string()).await;
    assert_eq!(status, 200, "{set}");
    assert!(served(&client));
    assert_eq!(secure(&client), (true, true));
    assert_eq!(set["certificate"]["source"], "uploaded");
    assert_eq!(
        set["certificate"]["names"],
        json!(["shop.example", "www.shop.example"])
    );
    assert_eq!(set["certificate"]["sha256"].as_str().unwrap().len(), 64);
    // What was uploaded is not the node's to renew.
    assert!(set.get("issuance").is_none());
    let told = client
        .refused("POST", &format!("{path}/renew"), json!(null))
        .await;
    assert!(told.starts_with("certificate-not-issued: "), "{told}");
    assert!(!set.to_string().contains("PRIVATE"));
    let unproved = client.add("acme", "b.example").await + "/certificate";
    let told = client
        .refused("PUT", &unproved, certificate(&["b.example"], 1))
        .await;
    assert!(told.starts_with("domain-not-proved: "), "{told}");
    // A new key for everything that is sealed, and a new start.
    let (status, rotated) = client.call("POST", "/v1/secret-key/rotate", "").await;
    assert_eq!(
        (status, &rotated["resealed"]),
        (200, &json!(1)),
        "{rotated}"
    );
    let client = client.again().await;
    assert!(served(&client));
    assert_eq!(secure(&client), (true, true));
    assert_eq!(client.call("DELETE", &path, "").await.0, 204);
    assert!(!served(&client));
    let (_, domain) = client.call("GET", &domain, "").await;
    assert!(domain.get("certificate").is_none() && domain["issuance"].is_object());
}
