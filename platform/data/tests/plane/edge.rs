//! Routes, splits, redirects, and what apps and tenants may take.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use platform_data::{Backend, Destination, HostRoutes, Outcomes, PathRoute, ProbeError, Target};
use platform_model::{Limits, Policy, Redirect};

use crate::Case;
use crate::client::{Answer, Node, until};

pub const CASES: &[Case] = &[
    ("edge_longest_prefix", prefixes),
    ("edge_strip_prefix", strip_prefix),
    ("edge_redirects", redirects),
    ("edge_challenges", challenges),
    ("edge_splits_by_weight", weights),
    ("edge_sticky_by_header", sticky_header),
    ("edge_sticky_by_cookie", sticky_cookie),
    ("edge_rate", rate),
    ("edge_concurrency", concurrency),
    ("edge_cpu_quota", cpu_quota),
    ("edge_body_limits", bodies),
    ("edge_policies_outlive_tables", policies_stay),
    ("edge_probe", probe),
    ("edge_outcomes", outcomes),
];

/// A target of the app whose guest answers `/name` with a text.
fn named(node: &Node, app: &str, deployment: u64) -> Arc<Target> {
    let name = format!("{app}-{deployment}");
    node.target("default", app, deployment, Limits::default(), &[], &name)
}

fn to_app(prefix: &str, target: Arc<Target>, strip_prefix: bool) -> PathRoute {
    PathRoute {
        prefix: prefix.parse().unwrap(),
        to: Destination::App {
            backend: Arc::new(Backend::new(target)),
            strip_prefix,
        },
    }
}

fn to_url(prefix: &str, redirect: Redirect) -> PathRoute {
    redirect.check().unwrap();
    PathRoute {
        prefix: prefix.parse().unwrap(),
        to: Destination::Redirect(redirect),
    }
}

fn publish(node: &Node, routes: Vec<PathRoute>) {
    let host = HostRoutes {
        routes,
        ..HostRoutes::default()
    };
    node.route(|table| table.insert_host("app.localhost", host));
}

/// A node whose app is shared by two deployments.
fn split(weights: (u8, u8), sticky: Option<&str>) -> Node {
    let node = Node::new();
    let shares = vec![
        (named(&node, "app", 1), weights.0),
        (named(&node, "app", 2), weights.1),
    ];
    let backend = Backend {
        shares,
        sticky: sticky.map(|sticky| sticky.parse().unwrap()),
    };
    let to = Destination::App {
        backend: Arc::new(backend),
        strip_prefix: false,
    };
    let prefix = "/".parse().unwrap();
    publish(&node, vec![PathRoute { prefix, to }]);
    node
}

/// A node whose app has a policy.
fn limited(policy: &str) -> Node {
    let node = Node::with_app(Limits::default());
    let policy: Policy = serde_json::from_str(policy).unwrap();
    node.route(|table| {
        table.limit_app("default".parse().unwrap(), "app".parse().unwrap(), policy);
    });
    node
}

fn get_with(node: &Node, path: &str, fields: &str) -> Answer {
    node.raw(&format!(
        "GET {path} HTTP/1.1\r\nHost: app.localhost\r\n{fields}\r\n"
    ))
}

fn prefixes() {
    let node = Node::new();
    let routes = vec![
        to_app("/api", named(&node, "api", 1), true),
        to_app("/api/v2", named(&node, "new", 1), true),
        to_app("/", named(&node, "site", 1), false),
    ];
    publish(&node, routes);
    for (path, name) in [
        ("/name", "site-1"),
        ("/api/name", "api-1"),
        ("/api/name?x", "api-1"),
        ("/api/v2/name", "new-1"),
    ] {
        assert_eq!(node.get(path).text(), name, "{path}");
    }
    publish(&node, vec![to_app("/api", named(&node, "api", 1), true)]);
    let none = node.get("/name");
    assert_eq!(
        (none.status, none.code().as_str()),
        (404, "route-not-found")
    );
    assert_eq!(node.get("/apis").status, 404);
}

fn strip_prefix() {
    let node = Node::new();
    publish(
        &node,
        vec![
            to_app("/a", named(&node, "app", 1), true),
            to_app("/headers", named(&node, "app", 1), false),
        ],
    );
    let text = node.get("/a/headers?q=/a").text();
    let line = "GET http app.localhost /headers?q=/a\n";
    assert!(text.starts_with(line), "{text}");
    assert!(text.contains("x-forwarded-prefix: /a\n"), "{text}");
    let text = node.get("/headers").text();
    assert!(text.starts_with("GET http app.localhost /headers\n"));
    assert!(!text.contains("x-forwarded-prefix"), "{text}");
}

fn redirects() {
    let node = Node::new();
    let fixed = Redirect {
        status: 302,
        keep_path: false,
        ..Redirect::new("/name?x=1")
    };
    publish(
        &node,
        vec![
            to_url("/", Redirect::new("https://new.example")),
            to_url("/old", fixed),
            to_url("/here", Redirect::new("/")),
        ],
    );
    for (path, status, location) in [
        ("/x/y?q=1", 308, "https://new.example/x/y?q=1"),
        ("/old/x", 302, "/name?x=1"),
        ("/here//evil.example", 308, "/evil.example"),
    ] {
        let answer = node.get(path);
        assert_eq!(
            (answer.status, answer.field("location")),
            (status, Some(location)),
            "{path}"
        );
        assert!(answer.field("x-request-id").is_some());
    }
}

fn challenges() {
    let node = Node::with_app(Limits::default());
    node.route(|table| table.insert_challenge("App.localhost", "tok-1", "tok-1.print"));
    let path = "/.well-known/acme-challenge/tok-1";
    let answer = node.get(path);
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "tok-1.print")
    );
    assert_eq!(node.get_at("other.localhost", path).status, 404);
    // What nobody set is the app's.
    node.publish("b.localhost", named(&node, "b", 1));
    node.route(|table| table.insert_challenge("b.localhost", "tok-2", "x"));
    assert_eq!(node.get("/hello").text(), "hello");
}

fn weights() {
    let node = split((90, 10), None);
    let mut connection = node.connect();
    let mut answers = BTreeMap::new();
    for _ in 0..200 {
        connection.say("GET /name HTTP/1.1\r\nHost: app.localhost\r\n\r\n");
        *answers.entry(connection.answer("GET").text()).or_insert(0) += 1;
    }
    let expected = [("app-1".to_owned(), 180), ("app-2".to_owned(), 20)];
    assert_eq!(answers, BTreeMap::from(expected));
}

fn sticky_header() {
    let node = split((50, 50), Some("header:X-User"));
    let answer = |user: u32| get_with(&node, "/name", &format!("x-user: {user}\r\n")).text();
    let first: Vec<String> = (0..40).map(answer).collect();
    assert!(first.contains(&"app-1".to_owned()) && first.contains(&"app-2".to_owned()));
    for _ in 0..3 {
        assert_eq!((0..40).map(answer).collect::<Vec<_>>(), first);
    }
    assert!(
        get_with(&node, "/name", "x-user: 1\r\n")
            .field("set-cookie")
            .is_none()
    );
}

fn sticky_cookie() {
    let node = split((50, 50), Some("cookie:stick"));
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let first = node.get("/name");
        let set = first.field("set-cookie").unwrap();
        assert!(set.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{set}");
        let pair = set.split(';').next().unwrap();
        for _ in 0..3 {
            let again = get_with(&node, "/name", &format!("Cookie: a=b; {pair}\r\n"));
            assert_eq!(again.text(), first.text());
            assert_eq!(again.field("set-cookie"), None);
        }
        seen.insert(first.text());
    }
    assert_eq!(seen.len(), 2, "both get new clients");
}

fn rate() {
    let node = limited(r#"{"rate":"1/m,burst=3"}"#);
    for _ in 0..3 {
        assert_eq!(node.get("/hello").status, 200);
    }
    let answer = node.get("/hello");
    assert_eq!((answer.status, answer.code().as_str()), (429, "rate-limit"));
    let after: u64 = answer.field("retry-after").unwrap().parse().unwrap();
    assert!((50..=60).contains(&after), "{after}");
    // Another app of the tenant is not limited.
    node.publish("b.localhost", named(&node, "b", 1));
    assert_eq!(node.get_at("b.localhost", "/hello").status, 200);
    // Until the tenant is: its apps share what it may take.
    let policy: Policy = serde_json::from_str(r#"{"rate":"1/h,burst=2"}"#).unwrap();
    node.publish("c.localhost", named(&node, "c", 1));
    node.route(|table| table.limit_tenant("default".parse().unwrap(), policy));
    assert_eq!(node.get_at("b.localhost", "/hello").status, 200);
    assert_eq!(node.get_at("c.localhost", "/hello").status, 200);
    let answer = node.get_at("b.localhost", "/hello");
    assert!(
        answer.status == 429 && answer.text().contains("tenant"),
        "{answer:?}"
    );
}

fn concurrency() {
    let node = limited(r#"{"concurrency":2}"#);
    let mut running: Vec<_> = (0..2)
        .map(|_| {
            let mut connection = node.connect();
            connection.say("POST /echo HTTP/1.1\r\nHost: app.localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
            assert_eq!(connection.head().unwrap().status, 200);
            connection
        })
        .collect();
    let answer = node.get("/hello");
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (503, "concurrency-limit")
    );
    assert_eq!(answer.field("retry-after"), Some("1"));
    drop(running.pop());
    until("one has ended", || node.get("/hello").status == 200);
}

fn cpu_quota() {
    let node = limited(r#"{"cpu_ms_per_minute":60000}"#);
    assert_eq!(node.get("/cpu/59000").status, 200);
    until("it is charged", || node.get("/cpu/2000").status == 429);
    let answer = node.get("/hello");
    assert_eq!((answer.status, answer.code().as_str()), (429, "cpu-quota"));
    let after: u64 = answer.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=10).contains(&after), "{after}");
    // A second's worth comes back each second.
    until("it is paid", || node.get("/hello").status == 200);
}

fn bodies() {
    let node = limited(r#"{"request_body_bytes":10,"response_body_bytes":100}"#);
    let post = |framing: &str| {
        node.raw(&format!(
            "POST /echo HTTP/1.1\r\nHost: app.localhost\r\n{framing}"
        ))
    };
    let long = post("Content-Length: 11\r\n\r\n01234567890");
    assert_eq!((long.status, long.code().as_str()), (413, "body-too-large"));
    assert_eq!(post("Content-Length: 10\r\n\r\n0123456789").status, 200);
    let chunked = post("Transfer-Encoding: chunked\r\n\r\nb\r\n01234567890\r\n0\r\n\r\n");
    assert!(chunked.status == 413 || chunked.cut, "{chunked:?}");
    let said = node.get("/length/101/101");
    assert_eq!(
        (said.status, said.code().as_str()),
        (500, "response-too-large")
    );
    assert_eq!(node.get("/length/100/100").status, 200);
    let streamed = node.get("/big/1");
    assert!(
        streamed.cut && streamed.body.len() <= 100,
        "{}",
        streamed.body.len()
    );
}

fn policies_stay() {
    let node = limited(r#"{"rate":"1/h,burst=2"}"#);
    assert_eq!(node.get("/hello").status, 200);
    // A new deployment and a new table are no new allowance.
    node.publish("app.localhost", named(&node, "app", 2));
    assert_eq!(node.get("/hello").status, 200);
    node.publish("app.localhost", named(&node, "app", 3));
    assert_eq!(node.get("/hello").status, 429);
}

fn probe() {
    let node = Node::with_app(Limits::default());
    let next = named(&node, "app", 2);
    node.runtime
        .block_on(node.plane.warm(next.clone()))
        .unwrap();
    let ask = |path: &str, ms| {
        let time = Duration::from_millis(ms);
        node.runtime.block_on(node.plane.probe(&next, path, time))
    };
    assert_eq!(ask("/hello", 5000), Ok(200));
    assert_eq!(ask("/status/503", 5000), Ok(503));
    assert_eq!(
        ask("/never", 100),
        Err(ProbeError::Timeout(Duration::from_millis(100)))
    );
    let Err(ProbeError::Failed(text)) = ask("/trap", 5000) else {
        panic!("a trap is no answer")
    };
    assert!(text.contains("its log says more"), "{text}");
    assert!(matches!(
        ask("/trap-late", 5000),
        Err(ProbeError::Failed(_))
    ));
    assert!(matches!(ask("no path", 5000), Err(ProbeError::Failed(_))));
    assert_eq!(node.plane.outcomes(&next), Some(Outcomes::default()));
    assert_eq!(
        node.get("/name").text(),
        "",
        "the public route leads to the old one"
    );
}

fn outcomes() {
    let node = Node::new();
    let target = named(&node, "app", 1);
    assert_eq!(node.plane.outcomes(&target), None);
    node.publish("app.localhost", target.clone());
    for (path, status) in [
        ("/hello", 200),
        ("/trap", 500),
        ("/status/500", 500),
        ("/status/404", 404),
    ] {
        assert_eq!(node.get(path).status, status);
    }
    assert!(node.get("/trap-late").cut);
    let long = format!("x-long: {}\r\n", "x".repeat(70_000));
    let answer = get_with(&node, "/hello", &long);
    assert_eq!(answer.status, 431, "the client's fault");
    until("all are counted", || {
        let outcomes = node.plane.outcomes(&target).unwrap();
        outcomes
            == Outcomes {
                requests: 6,
                errors: 3,
            }
    });
}
