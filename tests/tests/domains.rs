//! Routes, domains and certificates on a real node: proved by DNS, served over TLS, obtained from a certificate authority.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use cloister_tests::authority::{Authority, own_address};
use cloister_tests::client;
use cloister_tests::dns::Dns;
use cloister_tests::fixture::probe;
use cloister_tests::node::{Node, Start};
use cloister_tests::tls;
use cloister_tests::wait::until;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use time::OffsetDateTime;

const EXE: &str = env!("CARGO_BIN_EXE_cloister-node");

/// How long a certificate has to come, or to be renewed.
const ISSUED: Duration = Duration::from_secs(60);

/// A person at a command line in a folder, with a token.
struct User<'a> {
    node: &'a Node,
    token: String,
    folder: &'a Path,
}

impl User<'_> {
    fn run(&self, line: &str) -> Output {
        Command::new(EXE)
            .args(line.split_whitespace())
            .arg("--json")
            .env("CLOISTER_URL", format!("http://{}", self.node.admin.addr))
            .env("CLOISTER_TOKEN", &self.token)
            .env("HOME", self.folder)
            .current_dir(self.folder)
            .output()
            .unwrap()
    }

    fn json(&self, line: &str) -> Value {
        let output = self.run(line);
        assert!(output.status.success(), "{line}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Code and detail of a command that is refused.
    fn refused(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(!output.status.success(), "{line}: {output:?}");
        let problem: Value = serde_json::from_slice(&output.stderr)
            .unwrap_or_else(|e| panic!("{line}: {e}: {output:?}"));
        let (code, detail) = (&problem["code"], &problem["detail"]);
        format!("{}: {}", code.as_str().unwrap(), detail.as_str().unwrap())
    }

    /// The operator of a node.
    fn operator<'a>(node: &'a Node, folder: &'a Path) -> User<'a> {
        let token = node.admin.token.clone();
        User {
            node,
            token,
            folder,
        }
    }

    /// The one who administers a tenant that is made.
    fn of_tenant<'a>(node: &'a Node, folder: &'a Path, tenant: &str) -> User<'a> {
        let operator = User::operator(node, folder);
        operator.json(&format!("tenant create {tenant}"));
        let line = format!("token create --tenant {tenant} --role admin");
        let token = operator.json(&line)["token"].as_str().unwrap().to_owned();
        User {
            node,
            token,
            folder,
        }
    }

    /// Adds a domain, and puts what proves it into DNS.
    fn add(&self, dns: &Dns, line: &str) {
        let added = self.json(&format!("domain add {line}"));
        let proof = &added["proof"];
        let name = proof["txt_name"].as_str().unwrap();
        dns.txt(name, proof["txt_value"].as_str().unwrap());
    }
}

/// A folder with a manifest whose app has a route on a domain.
fn folder(routes: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("probe.wasm"), probe()).unwrap();
    let manifest = format!("tenant = \"acme\"\n[app.shop]\ncomponent = \"probe.wasm\"\n{routes}");
    std::fs::write(folder.path().join("cloister.toml"), manifest).unwrap();
    folder
}

const ROUTES: &str = r#"
[[app.shop.routes]]
host = "shop.example"
[[app.shop.routes]]
host = "shop.example"
path = "/api"
strip_prefix = true
[[app.shop.routes]]
host = "shop.example"
path = "/old"
redirect = { to = "/new", status = 301 }
"#;

async fn start(dns: &Dns, args: &[&str]) -> Node {
    let resolver = dns.address().to_string();
    let flags = [
        "--listen-tls",
        "127.0.0.1:0",
        "--domain-resolver",
        &resolver,
    ];
    Start::new(EXE).args(&flags).args(args).node().await
}

/// A certificate authority of one's own, and what it makes: files of chain and key for names, valid for so many days.
struct Issuer(CertifiedIssuer<'static, KeyPair>);

impl Issuer {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn write(&self, folder: &Path, file: &str, host: &str, days: i64) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.not_before = OffsetDateTime::now_utc() - time::Duration::days(9);
        params.not_after = OffsetDateTime::now_utc() + time::Duration::days(days);
        let made = params.signed_by(&key, &self.0).unwrap();
        std::fs::write(folder.join(format!("{file}.pem")), made.pem()).unwrap();
        let path = folder.join(format!("{file}.key"));
        std::fs::write(path, key.serialize_pem()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_is_proved_and_served_with_a_certificate_of_its_own() {
    let dns = Dns::start().await;
    let node = start(&dns, &[]).await;
    let folder = folder(ROUTES);
    let user = User::of_tenant(&node, folder.path(), "acme");

    // Not proved, it serves nothing, and nobody can lead it to an app.
    let added = user.json("domain add shop.example --tenant acme --https-redirect --hsts 365d");
    let told = user.refused("domain verify shop.example --tenant acme");
    assert!(told.starts_with("domain-proof-failed: "), "{told}");
    assert!(
        told.contains("_cloister.shop.example has no TXT record"),
        "{told}"
    );
    let told = user.refused("deploy");
    assert!(
        told.starts_with("domain-not-proved: shop.example"),
        "{told}"
    );
    let apps = user.json("apps --tenant acme");
    assert_eq!(apps, json!([]), "nothing was deployed");
    let answer = client::get(node.listen, "shop.example", "/hello")
        .await
        .unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.problem().as_str()),
        (404, "app-not-found")
    );

    // An address of the node's own network is not asked for an answer over HTTP.
    dns.address_of("shop.example", Ipv4Addr::LOCALHOST);
    let told = user.refused("domain verify shop.example --tenant acme");
    assert!(
        told.contains("leads only to addresses that are not public"),
        "{told}"
    );
    dns.txt("_cloister.shop.example", "something else");
    let told = user.refused("domain verify shop.example --tenant acme");
    assert!(
        told.contains("no TXT record of _cloister.shop.example is"),
        "{told}"
    );
    dns.txt(
        "_cloister.shop.example",
        added["proof"]["txt_value"].as_str().unwrap(),
    );
    user.json("domain verify shop.example --tenant acme");

    has_routes_of_the_manifest(&user).await;

    // Another tenant can neither have it nor learn whose it is.
    let other = tempfile::tempdir().unwrap();
    let rival = User::of_tenant(&node, other.path(), "rival");
    rival.add(&dns, "shop.example --tenant rival");
    let told = rival.refused("domain verify shop.example --tenant rival");
    assert!(
        told.starts_with("domain-taken: ") && !told.contains("acme"),
        "{told}"
    );
    rival.refused("domain show shop.example --tenant acme");

    let issuer = Issuer::new();
    has_a_certificate(&user, &issuer).await;
    let roots = issuer.0.pem();

    // It is all there after a new start, and the key is nowhere to be read.
    let start = node.stop().await;
    let key = std::fs::read_to_string(folder.path().join("good.key")).unwrap();
    let line = key.lines().nth(1).unwrap();
    let found = Command::new("grep")
        .args(["-rqF", line])
        .arg(start.data())
        .status();
    assert!(!found.unwrap().success(), "the key is in the data folder");
    let node = start.node().await;
    let secure = node.listen_tls.unwrap();
    let got = tls::get(secure, "shop.example", "/api/hello", &roots, true)
        .await
        .unwrap();
    assert_eq!(got.answer.status, 200);
    let start = node.stop().await;
    let checked = Command::new(EXE)
        .args(["doctor", "--store", "--data"])
        .arg(start.data())
        .output()
        .unwrap();
    assert!(checked.status.success(), "{checked:?}");
}

/// The routes of the manifest, before and after a deploy of it.
async fn has_routes_of_the_manifest(user: &User<'_>) {
    let node = user.node;
    user.json("deploy probe.wasm --app shop --tenant acme");
    let differences = user.json("diff");
    let what = &differences[0]["changes"][0]["what"];
    assert_eq!(what, "routes", "{differences}");
    user.json("deploy");
    assert_eq!(user.json("diff")[0]["changes"], json!([]));
    let get = async |path: &str| {
        client::get(node.listen, "shop.example", path)
            .await
            .unwrap()
    };
    assert_eq!(get("/hello").await.status, 200);
    assert_eq!(get("/api/hello").await.status, 200);
    let moved = get("/old/x?y=1").await;
    assert_eq!(
        (moved.status.as_u16(), moved.header("location")),
        (301, "/new/x?y=1".to_owned())
    );
}

/// Certificates that are no good, and one that is.
async fn has_a_certificate(user: &User<'_>, issuer: &Issuer) {
    let (node, folder) = (user.node, user.folder);
    issuer.write(folder, "good", "shop.example", 30);
    issuer.write(folder, "expired", "shop.example", -1);
    issuer.write(folder, "other", "other.example", 30);
    let line = "domain certificate shop.example --tenant acme";
    for (cert, key, why) in [
        ("expired", "expired", "has expired"),
        (
            "other",
            "other",
            "is for other.example, not for shop.example",
        ),
        ("good", "other", "is not that of the first certificate"),
    ] {
        let told = user.refused(&format!("{line} --cert {cert}.pem --key {key}.key"));
        assert!(
            told.starts_with("certificate-invalid: ") && told.contains(why),
            "{told}"
        );
    }
    let secure = node.listen_tls.unwrap();
    let roots = issuer.0.pem();
    assert!(
        tls::get(secure, "shop.example", "/hello", &roots, true)
            .await
            .is_err()
    );

    // One that is: HTTP/2 by ALPN, and whoever comes without TLS is sent there.
    user.json(&format!("{line} --cert good.pem --key good.key"));
    for h2 in [true, false] {
        let got = tls::get(secure, "shop.example", "/hello", &roots, h2)
            .await
            .unwrap();
        assert_eq!((got.answer.status.as_u16(), got.h2), (200, h2));
        let hsts = got.answer.header("strict-transport-security");
        assert_eq!(hsts, "max-age=31536000");
    }
    let sent = client::get(node.listen, "shop.example", "/hello?x")
        .await
        .unwrap();
    assert_eq!(sent.status, 308);
    assert_eq!(sent.header("location"), "https://shop.example/hello?x");
    let shown = user.json("domain show shop.example --tenant acme");
    assert_eq!(shown["certificate"]["source"], "uploaded");
    assert!(!shown.to_string().contains("PRIVATE KEY"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn apps_of_a_tenant_share_a_domain() {
    let dns = Dns::start().await;
    let node = start(&dns, &[]).await;
    let folder = folder("");
    let user = User::of_tenant(&node, folder.path(), "acme");
    user.json("deploy");
    user.json("deploy probe.wasm --app blog --tenant acme");
    user.add(&dns, "shop.example --tenant acme");
    user.json("domain verify shop.example --tenant acme");
    user.json("route set shop shop.example --tenant acme");
    let line = "route add blog shop.example/blog --strip-prefix --tenant acme";
    let routes = user.json(line);
    assert_eq!(routes["routes"][0]["path"], "/blog");
    let told = user.refused("route add blog shop.example --tenant acme");
    assert!(told.starts_with("route-taken: "), "{told}");
    let told = user.refused("route add blog shop.acme.localhost/x --tenant acme");
    assert!(told.starts_with("routes-invalid: "), "{told}");
    let told = user.refused("domain remove shop.example --tenant acme");
    assert!(told.starts_with("domain-has-routes: "), "{told}");
    let get = async |path: &str| {
        client::get(node.listen, "shop.example", path)
            .await
            .unwrap()
    };
    assert_eq!(get("/hello").await.status, 200);
    assert_eq!(get("/blog/hello").await.status, 200);
    // What is asked is in the log of the app that answered.
    user.json("route remove shop shop.example --tenant acme");
    let none = get("/hello").await;
    assert_eq!(
        (none.status.as_u16(), none.problem().as_str()),
        (404, "route-not-found")
    );
    assert_eq!(get("/blog/hello").await.status, 200);
    user.json("delete blog --tenant acme");
    user.json("domain remove shop.example --tenant acme");
    assert_eq!(get("/blog/hello").await.problem(), "app-not-found");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs pebble, a certificate authority for tests: Debian's package has it"]
async fn certificates_are_obtained_and_renewed() {
    let dns = Dns::start().await;
    // The authority asks at the port of the node, and the node has to know the authority.
    let authority = Authority::start(dns.address(), 8_080, 24).await;
    let listen = format!("{}:8080", own_address());
    let (directory, ca) = (authority.directory(), authority.ca_file());
    let ca = ca.to_str().unwrap();
    let flags = [
        "--listen",
        &listen,
        "--acme-directory",
        &directory,
        "--acme-ca",
        ca,
        "--acme-contact",
        "admin@shop.example",
    ];
    let node = start(&dns, &flags).await;
    let folder = folder(ROUTES);
    let user = User::of_tenant(&node, folder.path(), "acme");

    // The name leads nowhere yet: the authority cannot look, and the domain says so.
    user.add(&dns, "shop.example --tenant acme --https-redirect");
    user.json("domain verify shop.example --tenant acme");
    user.json("deploy");
    let show = "domain show shop.example --tenant acme";
    let failed = until(ISSUED, "the failure to be told", || async {
        let shown = user.json(show);
        (shown["issuance"]["failures"] == 1).then_some(shown)
    });
    let failed = failed.await;
    let error = failed["issuance"]["last_error"].as_str().unwrap();
    assert!(error.starts_with("the certificate authority"), "{error}");
    assert!(failed.get("certificate").is_none());

    // Put right, it is obtained at once where somebody says so.
    dns.address_of("shop.example", own_address());
    user.json("domain renew shop.example --tenant acme");
    let roots = authority.roots().await;
    let served = |node: &Node| {
        let (address, roots) = (node.listen_tls.unwrap(), roots.clone());
        async move {
            tls::get(address, "shop.example", "/hello", &roots, true)
                .await
                .ok()
        }
    };
    let first = until(ISSUED, "the certificate", || served(&node)).await;
    assert_eq!((first.answer.status.as_u16(), first.h2), (200, true));
    let shown = user.json(show);
    assert_eq!(shown["certificate"]["source"], "acme");
    assert_eq!(shown["issuance"]["failures"], 0);
    let plain = client::get(node.listen, "shop.example", "/hello")
        .await
        .unwrap();
    assert_eq!(plain.status, 308);

    // A third of its life before its end there is another; nobody who asks is without one meanwhile.
    let another = async |node: &Node, before: &str| {
        until(ISSUED, "another certificate", || async {
            let got = served(node).await.expect("a certificate that is valid");
            (got.serial != before).then_some(got.serial)
        })
        .await
    };
    let second = another(&node, &first.serial).await;

    // A node that was killed serves what it had, with the same account, and goes on renewing.
    let node = node.kill().node().await;
    let after = served(&node).await.expect("the certificate that it had");
    assert_eq!(after.answer.status, 200);
    let third = another(&node, &after.serial).await;
    assert!(third != second && third != first.serial);
    let accounts = authority
        .said()
        .matches("There are now 1 accounts in memory")
        .count();
    assert_eq!(accounts, 1, "{}", authority.said());
}
