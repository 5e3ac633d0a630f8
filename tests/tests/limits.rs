//! Every quota and limit on a real node: what is set, what is sent, what happens, while a neighbour is asked all the time and
//! must not notice. The table is that of `docs/limits.md`, which is compared; `CLOISTER_BLESS=1` writes it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cloister_tests::Node;
use cloister_tests::client::{Answer, Connection, empty, full};
use cloister_tests::fixture::{printing_first, probe, saying, scratching};
use cloister_tests::node::Start;
use cloister_tests::wait::{SOON, until, within};
use serde_json::{Value, json};

const EXE: &str = env!("CARGO_BIN_EXE_cloister-node");

/// The node, and the table so far.
struct Bench {
    node: Node,
    rows: Vec<[String; 3]>,
}

/// What answers say: a status, and a code where there is a problem. Without how many of each, which is a matter of time.
fn outcomes(answers: &[Answer]) -> String {
    let mut kinds = BTreeMap::new();
    for answer in answers {
        let status = answer.status.as_u16();
        let text = match status {
            ..400 => format!("{status}"),
            _ if answer.header("content-type").is_empty() => format!("{status} of the component"),
            _ => format!("{status} `{}`", answer.problem()),
        };
        let wait = match answer.header("retry-after").is_empty() {
            true => "",
            false => " with `Retry-After`",
        };
        *kinds.entry(format!("{text}{wait}")).or_insert(0) += 1;
    }
    kinds.into_keys().collect::<Vec<_>>().join(", ")
}

impl Bench {
    /// A node with an app of the tenant and one of a neighbour.
    async fn new() -> Self {
        let node = Start::new(EXE).args(&["--api-rate", "50"]).node().await;
        node.deploy("neighbour", &saying("hello")).done().await;
        let bench = Self {
            node,
            rows: Vec::new(),
        };
        let answer = bench.api("PUT", "/v1/tenants/acme", &json!({})).await;
        assert_eq!(answer.status, 201);
        bench.deployed(json!({})).await;
        bench
    }

    fn row(&mut self, limit: &str, sent: &str, answers: &[Answer]) {
        let happened = outcomes(answers);
        println!("{limit} | {sent} | {happened}");
        self.rows
            .push([limit.to_owned(), sent.to_owned(), happened]);
    }

    async fn api(&self, method: &str, path: &str, body: &Value) -> Answer {
        let body = full(body.to_string());
        self.node
            .admin
            .call(method, path, "application/json", body)
            .await
    }

    /// Changes what the tenant may have.
    async fn tenant(&self, changes: Value) {
        let answer = self.api("PATCH", "/v1/tenants/acme", &changes).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    async fn deploy(&self, app: &str, limits: Value) -> Answer {
        let deploy = self.node.deploy(app, probe()).tenant("acme").limits(limits);
        deploy.send().await
    }

    async fn deployed(&self, limits: Value) {
        let answer = self.deploy("app", limits).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }

    /// Deploys another component as the tenant's app.
    async fn other(&self, component: &[u8], limits: Value) {
        let deploy = self.node.deploy("app", component).tenant("acme");
        deploy.limits(limits).done().await;
    }

    /// The log of the tenant's app, once it has this text so often.
    async fn logged(&self, text: &str, times: usize) -> String {
        let path = "/v1/tenants/acme/apps/app/logs?stream=stdout,system";
        let what = format!("the log to have {text:?}");
        until(SOON, &what, || async {
            let call = self
                .node
                .admin
                .call("GET", path, "application/json", empty());
            let log = call.await.text();
            (log.matches(text).count() >= times).then_some(log)
        })
        .await
    }

    /// Asks the tenant's app.
    async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(String, String)],
        body: Vec<u8>,
    ) -> Answer {
        let mut connection = Connection::h1(self.node.listen).await.unwrap();
        let mut request = connection.request(method, "app.acme.localhost", path, full(body));
        for (name, value) in headers {
            let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        within(SOON, path, connection.call(request)).await.unwrap()
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], Vec::new()).await
    }

    /// Asks so many times at once.
    async fn at_once(&self, count: usize, path: &str) -> Vec<Answer> {
        futures_util::future::join_all((0..count).map(|_| self.get(path))).await
    }
}

async fn quotas(bench: &mut Bench) {
    let quota = |name: &str, value: u64| json!({"quotas": {name: value}});
    bench.tenant(quota("apps", 1)).await;
    let answer = bench.deploy("second", json!({})).await;
    bench.row("quota `apps`: 1", "a deploy of a second app", &[answer]);
    bench
        .tenant(json!({"quotas": {"apps": 10, "deployments": 1}}))
        .await;
    let answer = bench.deploy("app", json!({})).await;
    bench.row("quota `deployments`: 1", "a second deployment", &[answer]);
    bench
        .tenant(json!({"quotas": {"deployments": 1000, "tokens": 1}}))
        .await;
    let request = json!({"role": "read"});
    let first = bench.api("POST", "/v1/tenants/acme/tokens", &request).await;
    assert_eq!(first.status, 201);
    let answer = bench.api("POST", "/v1/tenants/acme/tokens", &request).await;
    bench.row(
        "quota `tokens`: 1",
        "a request for a second token",
        &[answer],
    );
    bench.tenant(quota("disk_bytes", 1 << 20)).await;
    let body = full(vec![0; 2 << 20]);
    let path = "/v1/tenants/acme/components";
    let answer = bench
        .node
        .admin
        .call("POST", path, "application/wasm", body)
        .await;
    bench.row("quota `disk_bytes`: 1 MiB", "an upload of 2 MiB", &[answer]);
    bench.tenant(quota("disk_bytes", 10 << 30)).await;
    bench.tenant(quota("memory_bytes", 600 << 20)).await;
    let answer = bench.deploy("second", json!({})).await;
    bench.row(
        "quota `memory_bytes`: 600 MiB",
        "a deploy of a second app whose VM may have 512 MiB",
        &[answer],
    );
    bench.tenant(quota("memory_bytes", 16 << 30)).await;
}

/// Whether so many are answered and all others have this status.
fn answered(answers: &[Answer], count: usize, refused: u16) {
    let done = answers.iter().filter(|answer| answer.status == 200);
    let rest = answers.iter().filter(|answer| answer.status == refused);
    assert_eq!((done.count(), rest.count()), (count, answers.len() - count));
}

/// What all apps of the tenant may take together.
async fn policies(bench: &mut Bench) {
    let policy = |name: &str, value: Value| json!({"policy": {name: value}});
    bench.tenant(policy("rate", json!("1/m,burst=5"))).await;
    let answers = bench.at_once(20, "/hello").await;
    answered(&answers, 5, 429);
    bench.row(
        "policy `rate`: 1/m,burst=5",
        "20 requests at once: 5 are answered",
        &answers,
    );
    bench.tenant(policy("concurrency", json!(2))).await;
    let answers = bench.at_once(6, "/sleep?1000").await;
    answered(&answers, 2, 503);
    bench.row(
        "policy `concurrency`: 2",
        "6 requests of 1 s at once: 2 are answered",
        &answers,
    );
    bench.tenant(policy("cpu_ms_per_minute", json!(50))).await;
    let mut answers = Vec::new();
    while answers.len() < 100 && answers.iter().all(|a: &Answer| a.status == 200) {
        answers.push(bench.get("/work?20").await);
    }
    answered(&answers, answers.len() - 1, 429);
    bench.row(
        "policy `cpu_ms_per_minute`: 50",
        "requests that compute, one after another",
        &answers,
    );
    bench
        .tenant(policy("request_body_bytes", json!(1024)))
        .await;
    let answer = bench.ask("POST", "/count", &[], vec![b'x'; 2048]).await;
    bench.row(
        "policy `request_body_bytes`: 1 KiB",
        "a body of 2 KiB",
        &[answer],
    );
    bench.tenant(policy("response_body_bytes", json!(4))).await;
    let answer = bench.get("/length").await;
    bench.row(
        "policy `response_body_bytes`: 4",
        "a request whose response says that it has 7",
        &[answer],
    );
    bench.tenant(json!({"policy": {}})).await;
    answered(&bench.at_once(20, "/hello").await, 20, 429);
}

async fn limits(bench: &mut Bench) {
    bench.deployed(json!({"cpu_ms": 50})).await;
    let answer = bench.get("/spin").await;
    bench.row("limit `cpu_ms`: 50", "a loop without end", &[answer]);
    bench.deployed(json!({"head_timeout_ms": 200})).await;
    let answer = bench.get("/wait-forever").await;
    bench.row(
        "limit `head_timeout_ms`: 200",
        "a request that waits without end",
        &[answer],
    );
    bench.deployed(json!({"wall_ms": 200})).await;
    let answer = bench.get("/wait-forever").await;
    bench.row(
        "limit `wall_ms`: 200",
        "a request that waits without end",
        &[answer],
    );
    bench.deployed(json!({"memory_bytes": 4 << 20})).await;
    let answer = bench.get("/allocate").await;
    bench.row(
        "limit `memory_bytes`: 4 MiB",
        "growth until it is refused: `memory.grow` gives -1",
        &[answer],
    );
    bench.deployed(json!({"concurrency": 1, "queue": 1})).await;
    let answers = bench.at_once(6, "/sleep?1000").await;
    assert_eq!(answers.iter().filter(|a| a.status == 200).count(), 2);
    bench.row(
        "limits `concurrency`: 1, `queue`: 1",
        "6 requests of 1 s at once: 2 are answered",
        &answers,
    );
    bench.deployed(json!({"request_body_bytes": 1024})).await;
    let answer = bench.ask("POST", "/count", &[], vec![b'x'; 2048]).await;
    bench.row(
        "limit `request_body_bytes`: 1 KiB",
        "a body of 2 KiB",
        &[answer],
    );
    bench.deployed(json!({"head_bytes": 1024})).await;
    let long = [("x-long".to_owned(), "x".repeat(4_096))];
    let answer = bench.ask("GET", "/hello", &long, Vec::new()).await;
    bench.row("limit `head_bytes`: 1 KiB", "a head of 4 KiB", &[answer]);
    bench.deployed(json!({"header_count": 8})).await;
    let many: Vec<_> = (0..16)
        .map(|n| (format!("x-{n}"), "v".to_owned()))
        .collect();
    let answer = bench.ask("GET", "/hello", &many, Vec::new()).await;
    bench.row("limit `header_count`: 8", "16 header fields", &[answer]);
    after_the_response(bench).await;
    let limits = json!({"scratch_bytes": 1 << 20});
    bench.other(&scratching(2 << 20), limits).await;
    let answer = bench.get("/").await;
    bench.row(
        "limit `scratch_bytes`: 1 MiB",
        "a file of 2 MiB in the scratch folder: `insufficient-space`",
        &[answer],
    );
    let line = "x".repeat(200);
    let limits = json!({"log_line_bytes": 64});
    bench
        .other(&printing_first("ok", &line, false), limits)
        .await;
    let answer = bench.get("/").await;
    let cut = bench.logged("x", line.len()).await;
    assert!(!cut.contains(&line[..65]), "{cut}");
    bench.row(
        "limit `log_line_bytes`: 64",
        "a line of 200 bytes to standard output: it is several in the log",
        &[answer],
    );
    bench.deployed(json!({})).await;
    let answer = bench.get("/flood-stdout?64").await;
    bench.row(
        "rate of the log",
        "64 MiB to standard output: the log says what was dropped",
        &[answer],
    );
    bench.logged("dropped", 1).await;
}

/// What a component does once it has answered.
async fn after_the_response(bench: &mut Bench) {
    const LATE: &str = "a line after the response";
    bench.deployed(json!({"post_return_ms": 10_000})).await;
    assert_eq!(bench.get("/after").await.status, 200);
    bench.logged(LATE, 1).await;
    // Only one request at a time: the next is answered when the one before is over.
    let limits = json!({"post_return_ms": 50, "concurrency": 1, "queue": 10});
    bench.deployed(limits).await;
    let answer = bench.get("/after").await;
    assert_eq!(bench.get("/print").await.status, 200);
    let log = bench.logged("a line to stdout", 1).await;
    assert_eq!(log.matches(LATE).count(), 1, "{log}");
    bench.row(
        "limit `post_return_ms`: 50",
        "300 ms of work after the response: it is ended, and what it would write then is missing",
        &[answer],
    );
}

/// Last, as what follows would be refused too.
async fn api(bench: &mut Bench) {
    let token = bench
        .api("POST", "/v1/tokens", &json!({"role": "read"}))
        .await;
    let token: Value = serde_json::from_slice(&token.body).unwrap();
    let mut admin = bench.node.admin.clone();
    token["token"]
        .as_str()
        .unwrap()
        .clone_into(&mut admin.token);
    let call = async |admin: &cloister_tests::admin::Admin| {
        admin
            .call("GET", "/v1/whoami", "application/json", empty())
            .await
    };
    let answers = futures_util::future::join_all((0..600).map(|_| call(&admin))).await;
    bench.row(
        "`cloisterd --api-rate`: 50",
        "600 requests with one token",
        &answers,
    );
    "clo_x_y".clone_into(&mut admin.token);
    let mut answers = Vec::new();
    for _ in 0..30 {
        answers.push(call(&admin).await);
    }
    bench.row(
        "wrong tokens of an address: 20, then one in some seconds",
        "30 wrong tokens",
        &answers,
    );
    let right = call(&bench.node.admin).await;
    assert_eq!(right.status, 200, "whoever has a token is not kept out");
}

/// Asks the neighbour until it is told to stop; how often.
async fn neighbour(node: std::net::SocketAddr, stop: Arc<AtomicBool>) -> u64 {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let answer = cloister_tests::client::get(node, "neighbour.localhost", "/").await;
        let answer = answer.unwrap_or_else(|e| panic!("the neighbour: {e:#}"));
        assert_eq!(
            (answer.status.as_u16(), answer.text().as_str()),
            (200, "hello")
        );
        count += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    count
}

fn table(rows: &[[String; 3]]) -> String {
    let mut text = "| limit | what was sent | what happened |\n|---|---|---|\n".to_owned();
    for [limit, sent, happened] in rows {
        text += &format!("| {limit} | {sent} | {happened} |\n");
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn each_limit_does_what_the_table_says_and_no_neighbour_notices() {
    let mut bench = Bench::new().await;
    let stop = Arc::new(AtomicBool::new(false));
    let asking = tokio::spawn(neighbour(bench.node.listen, stop.clone()));
    quotas(&mut bench).await;
    policies(&mut bench).await;
    limits(&mut bench).await;
    api(&mut bench).await;
    stop.store(true, Ordering::Relaxed);
    let asked = asking.await.unwrap();
    println!("the neighbour answered {asked} times");
    assert!(asked > 100, "{asked}");

    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/limits.md"));
    let page = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- limits: begin -->\n", "<!-- limits: end -->");
    let (head, rest) = page.split_once(begin).unwrap();
    let (old, tail) = rest.split_once(end).unwrap();
    let new = table(&bench.rows);
    if std::env::var_os("CLOISTER_BLESS").is_some() {
        std::fs::write(&path, format!("{head}{begin}{new}{end}{tail}")).unwrap();
    } else {
        assert_eq!(
            old, new,
            "docs/limits.md: write it anew with CLOISTER_BLESS=1"
        );
    }
}
