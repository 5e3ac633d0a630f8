//! The executable against a small server that answers as a node does: output shapes and exit codes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails, in its helpers too"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::Path as UrlPath;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use platform_model::{DeployRequest, Digest, Limits, Problem, Quotas, Usage};
use serde_json::{Value, json};

const DIGEST: [u8; 32] = [0xab; 32];

/// A node that runs on a thread of its own until the test ends.
struct FakeNode {
    url: String,
    deployed: Arc<Mutex<Vec<Value>>>,
}

fn problem(status: u16, code: &str, detail: &str) -> Response {
    let body = serde_json::to_string(&Problem::new(status, code, "Title", detail)).unwrap();
    let status = StatusCode::from_u16(status).unwrap();
    (status, [("content-type", "application/problem+json")], body).into_response()
}

fn app() -> Value {
    json!({
        "tenant": "acme", "app": "shop", "deployment": 2, "digest": Digest::from_sha256(DIGEST),
        "url": "http://shop.acme.localhost:7380/", "created_at": "2026-01-02T03:04:05Z",
        "deployed_at": "2026-01-02T03:04:05Z", "deployments": 2,
        "traffic": {"shares": [{"deployment": 2, "weight": 100}]}, "policy": {}, "keep": 20,
    })
}

fn deployment(tenant: &str, app: &str) -> Value {
    json!({
        "tenant": tenant, "app": app, "deployment": 7, "digest": Digest::from_sha256(DIGEST),
        "url": format!("http://{app}.{tenant}.localhost:7380/"), "created_at": "2026-01-02T03:04:05Z",
        "active": true, "env": ["A"], "allow_hosts": ["example.com"], "limits": Limits::default(),
    })
}

fn status() -> Value {
    json!({
        "version": "0.1.0", "uptime_seconds": 4000, "wasmtime": "48.0.8",
        "vms": [{"tenant": "acme", "app": "shop", "deployment": 2, "state": "ready", "requests": 9, "traps": 1,
                 "restores": 0, "resets": 0, "isolation": "instance", "exits": 3, "resident_bytes": 1_048_576}],
        "workers": [{"tenant": "acme", "pid": 77, "restarts": 0}],
    })
}

const LOG: &str = concat!(
    r#"{"time":"2026-01-02T03:04:05Z","deployment":1,"stream":"stdout","line":"hello"}"#,
    "\n",
    r#"{"time":"2026-01-02T03:04:05Z","deployment":1,"stream":"system","line":"3 lines were dropped"}"#,
    "\n",
    r#"{"time":"2026-01-02T03:04:06Z","deployment":1,"request":"r1","stream":"stderr","line":"oh"}"#,
    "\n",
);

impl FakeNode {
    fn start() -> Self {
        let deployed = Arc::new(Mutex::new(Vec::new()));
        let router = router(deployed.clone());
        let listener = std::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, router).await.unwrap();
            });
        });
        Self { url, deployed }
    }

    /// Runs the command line against this node.
    fn run(&self, line: &str) -> Output {
        cloister(line)
            .env("CLOISTER_URL", &self.url)
            .env("CLOISTER_TOKEN", "right")
            .output()
            .unwrap()
    }

    fn json(&self, line: &str) -> Value {
        let output = self.run(line);
        assert!(output.status.success(), "{line}: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.lines().count(), 1, "{line}: {text}");
        serde_json::from_str(&text).unwrap()
    }
}

fn router(deployed: Arc<Mutex<Vec<Value>>>) -> Router {
    let tenants = Arc::new(Mutex::new(vec!["default".to_owned()]));
    let known = tenants.clone();
    let upload = async move |UrlPath(tenant): UrlPath<String>, body: Bytes| {
        if !known.lock().unwrap().contains(&tenant) {
            return problem(404, "tenant-not-found", "there is no such tenant");
        }
        if body.starts_with(b"bad") {
            return problem(
                422,
                "component-core-module",
                "it is a core module, not a component",
            );
        }
        let answer = json!({"digest": Digest::from_sha256(DIGEST), "size": body.len()});
        (StatusCode::CREATED, answer.to_string()).into_response()
    };
    let create = async move |UrlPath(tenant): UrlPath<String>| {
        tenants.lock().unwrap().push(tenant.clone());
        json!({"tenant": tenant, "created_at": "2026-01-02T03:04:05Z", "apps": 0, "quotas": Quotas::default(), "policy": {}, "usage": Usage::default()}).to_string()
    };
    let deploy = async move |UrlPath((tenant, app)): UrlPath<(String, String)>, body: String| {
        let request: DeployRequest = serde_json::from_str(&body).unwrap();
        deployed
            .lock()
            .unwrap()
            .push(serde_json::to_value(&request).unwrap());
        let timing = [("server-timing", "compile;dur=31.5, boot;dur=2.25")];
        (
            StatusCode::CREATED,
            timing,
            deployment(&tenant, &app).to_string(),
        )
    };
    let items = |value: Value| async move || json!({"items": [value]}).to_string();
    Router::new()
        .route(
            "/healthz",
            get(async || r#"{"status":"ok","version":"0.1.0"}"#),
        )
        .route("/v1/apps", get(items(app())))
        .route(
            "/v1/tenants",
            get(items(
                json!({"tenant": "acme", "created_at": "2026-01-02T03:04:05Z", "apps": 1, "quotas": Quotas::default(), "policy": {}, "usage": Usage::default()}),
            )),
        )
        .route("/v1/tenants/{t}", put(create))
        .route("/v1/tenants/{t}/components", post(upload))
        .route(
            "/v1/tenants/{t}/apps/{a}/deployments",
            post(deploy).get(items(deployment("acme", "shop"))),
        )
        .route(
            "/v1/tenants/{t}/apps/shop",
            delete(async || StatusCode::NO_CONTENT).get(async || app().to_string()),
        )
        .route(
            "/v1/tenants/{t}/apps/trap",
            get(async || {
                let mut app = app();
                app["url"] = "file:///etc/passwd".into();
                app.to_string()
            }),
        )
        .route(
            "/v1/tenants/{t}/apps/shop/logs",
            get(async |uri: Uri| {
                let query = uri.query().unwrap_or_default();
                if query.contains("request=") {
                    json!({"time": "2026-01-02T03:04:05Z", "deployment": 1, "stream": "stdout", "line": query})
                        .to_string()
                } else if query.contains("tail=1") {
                    LOG.lines().last().unwrap().to_owned()
                } else {
                    LOG.to_owned()
                }
            }),
        )
        .route("/metrics", get(async || "# TYPE a gauge\na 1\n"))
        .route(
            "/v1/status",
            get(async |headers: HeaderMap| {
                if headers
                    .get("authorization")
                    .is_some_and(|value| value == "Bearer right")
                {
                    return status().to_string().into_response();
                }
                problem(401, "token-wrong", "the token is not that of this node")
            }),
        )
        .fallback(async || problem(404, "app-not-found", "there is no app of that name"))
}

/// The executable with nothing of this environment that would change its output.
fn cloister(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloister"));
    command.args(line.split_whitespace());
    for name in ["CLOISTER_URL", "CLOISTER_TOKEN", "NO_COLOR", "HOME"] {
        command.env_remove(name);
    }
    command.env("XDG_CONFIG_HOME", "/no/such/folder");
    command
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn component(folder: &Path, content: &[u8]) -> String {
    let path = folder.join("x.wasm");
    std::fs::write(&path, content).unwrap();
    path.display().to_string()
}

#[test]
fn a_deploy_prints_five_things_as_json() {
    let node = FakeNode::start();
    let folder = tempfile::tempdir().unwrap();
    let file = component(folder.path(), b"a component");
    let line = format!(
        "deploy {file} --app shop --tenant acme --env A=b --allow-host example.com:443 --cpu 3s --json"
    );
    let output = node.json(&line);
    let want = json!({
        "app": "shop", "tenant": "acme", "deployment": 7, "digest": Digest::from_sha256(DIGEST),
        "url": "http://shop.acme.localhost:7380/",
    });
    assert_eq!(output, want);
    let request = node.deployed.lock().unwrap().remove(0);
    assert_eq!(request["env"], json!({"A": "b"}));
    assert_eq!(request["allow_hosts"], json!(["example.com:443"]));
    assert_eq!(
        (&request["limits"]["cpu_ms"], &request["digest"]),
        (&json!(3000), &want["digest"])
    );
}

#[test]
fn a_deploy_for_people() {
    let node = FakeNode::start();
    let folder = tempfile::tempdir().unwrap();
    let file = component(folder.path(), b"a component");
    let output = node.run(&format!("deploy {file} --app shop"));
    let text = stdout(&output);
    for part in [
        "shop is deployed as number 7",
        "11 B",
        "compile 31.5 ms, boot 2.25 ms",
        "http://shop.default.localhost:7380/",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(
        output.stderr.is_empty(),
        "nothing moves where there is no terminal: {output:?}"
    );
    assert!(!text.contains('\x1b'), "{text:?}");
    let coloured = stdout(&node.run(&format!("deploy {file} --app shop --color always")));
    assert!(coloured.contains("\x1b[32m"), "{coloured:?}");
}

#[test]
fn lists() {
    let node = FakeNode::start();
    let apps = node.json("apps --json");
    assert_eq!(
        (&apps[0]["app"], &apps[0]["tenant"]),
        (&json!("shop"), &json!("acme"))
    );
    let text = stdout(&node.run("apps"));
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(
        lines[0].starts_with("APP ") && lines[1].starts_with("shop "),
        "{text}"
    );
    assert!(
        lines[1].contains("sha256:abababababab ")
            && lines[1].ends_with("http://shop.acme.localhost:7380/")
    );
    assert_eq!(node.json("tenants --json")[0]["tenant"], "acme");
    assert!(stdout(&node.run("tenants")).contains("acme"));
    assert_eq!(
        node.json("deployments shop --tenant acme --json")[0]["deployment"],
        7
    );
    let text = stdout(&node.run("deployments shop -t acme"));
    assert!(
        text.contains("active") && text.contains("example.com"),
        "{text}"
    );
}

#[test]
fn status_and_delete() {
    let node = FakeNode::start();
    assert_eq!(node.json("status --json"), status());
    let text = stdout(&node.run("status"));
    for part in ["wasmtime 48.0.8, up 1 h 6 min", "ready", "1.0 MiB", "77"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(
        node.json("delete shop --json"),
        json!({"app": "shop", "tenant": "default", "deleted": true})
    );
    assert!(stdout(&node.run("delete shop")).contains("shop of tenant default is deleted"));
}

/// An opener in a folder of its own: it writes down what it was told to open, and ends with this code.
struct Opener {
    folder: tempfile::TempDir,
}

impl Opener {
    fn new(code: u8) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "xdg-open",
            "gio",
            "gnome-open",
            "kde-open6",
            "kde-open5",
            "kde-open",
        ] {
            let script = folder.path().join(name);
            let said = folder.path().join("opened");
            let text = format!(
                "#!/bin/sh\nfor last; do :; done\necho \"$last\" >>{}\nexit {code}\n",
                said.display()
            );
            std::fs::write(&script, text).unwrap();
            std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
        }
        Self { folder }
    }

    /// Runs the command line where this opener is the only one, with or without a display.
    fn run(&self, node: &FakeNode, line: &str, display: bool) -> Output {
        let mut command = cloister(line);
        for name in ["WAYLAND_DISPLAY", "BROWSER", "WSL_DISTRO_NAME"] {
            command.env_remove(name);
        }
        command.env("DISPLAY", if display { ":7" } else { "" });
        command.env("PATH", self.folder.path());
        command.env("CLOISTER_URL", &node.url);
        command.env("CLOISTER_TOKEN", "right");
        command.current_dir(self.folder.path()).output().unwrap()
    }

    /// What it was told to open since it was last asked.
    fn opened(&self) -> String {
        let file = self.folder.path().join("opened");
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let _ = std::fs::remove_file(file);
        text
    }
}

#[test]
fn an_app_is_opened_in_a_browser() {
    const URL: &str = "http://shop.acme.localhost:7380/";
    let node = FakeNode::start();
    let opener = Opener::new(0);
    let output = opener.run(&node, "open shop --tenant acme", true);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        (stdout(&output), stderr(&output)),
        (format!("{URL}\n"), String::new())
    );
    assert_eq!(opener.opened(), format!("{URL}\n"));

    let output = opener.run(&node, "open shop --json", true);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let want = json!({"app": "shop", "tenant": "default", "url": URL, "opened": true});
    assert_eq!(told, want);
    assert_eq!(opener.opened(), format!("{URL}\n"));

    let output = opener.run(&node, "open shop --print", true);
    assert_eq!(
        (stdout(&output), stderr(&output)),
        (format!("{URL}\n"), String::new())
    );
    let output = opener.run(&node, "open shop --print --json", true);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["opened"], false);
    assert_eq!(opener.opened(), "");
    assert_eq!(
        opener.run(&node, "open nobody", true).status.code(),
        Some(3)
    );
    assert_eq!(opener.opened(), "");
}

#[test]
fn where_no_browser_is_the_url_is_there_all_the_same() {
    const URL: &str = "http://shop.acme.localhost:7380/\n";
    let node = FakeNode::start();
    let opener = Opener::new(3);
    let output = opener.run(&node, "open shop", false);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stdout(&output), URL);
    assert!(
        stderr(&output).contains("not opened: there is no display"),
        "{output:?}"
    );
    assert_eq!(opener.opened(), "");
    // All openers fail.
    let output = opener.run(&node, "open shop", true);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stdout(&output), URL);
    assert!(stderr(&output).contains("not opened: "), "{output:?}");
    assert_eq!(opener.opened(), URL.repeat(6), "each was tried");
    let output = opener.run(&node, "open shop --json", true);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["opened"], false);
    opener.opened();
    // A node cannot have anything else opened.
    let output = opener.run(&node, "open trap", true);
    assert!(
        output.status.success() && stderr(&output).contains("no URL of a page"),
        "{output:?}"
    );
    assert_eq!(opener.opened(), "");
}

#[test]
fn the_only_app_of_a_manifest_is_opened() {
    let node = FakeNode::start();
    let opener = Opener::new(0);
    let manifest = opener.folder.path().join("cloister.toml");
    let output = opener.run(&node, "open", true);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("which app? cloister.toml is not there"),
        "{output:?}"
    );
    std::fs::write(
        &manifest,
        "tenant = 'acme'\n[app.shop]\ncomponent = 'x.wasm'\n",
    )
    .unwrap();
    let output = opener.run(&node, "open --json", true);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&told["app"], &told["tenant"]),
        (&json!("shop"), &json!("acme"))
    );
    assert_eq!(opener.opened(), "http://shop.acme.localhost:7380/\n");
    let two = "[app.shop]\ncomponent = 'x.wasm'\n[app.blog]\ncomponent = 'x.wasm'\n";
    std::fs::write(&manifest, two).unwrap();
    let output = opener.run(&node, "open", true);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("which app? cloister.toml has blog, shop"),
        "{output:?}"
    );
    assert_eq!(opener.opened(), "");
}

#[test]
fn logs_are_what_the_component_wrote() {
    let node = FakeNode::start();
    let output = node.run("logs shop");
    assert_eq!(stdout(&output), "hello\noh\n");
    assert_eq!(stderr(&output), "3 lines were dropped\n");
    assert_eq!(stdout(&node.run("logs shop --tail 1")), "oh\n");
    let text = stdout(&node.run("logs shop --json"));
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!((lines.len(), &lines[2]["request"]), (3, &json!("r1")));
    let text = stdout(&node.run("logs shop --timestamps"));
    assert_eq!(
        text.lines().next(),
        Some("2026-01-02T03:04:05Z #1 out  - hello")
    );
}

#[test]
fn the_node_is_told_which_lines_are_wanted() {
    let node = FakeNode::start();
    let asked = |line: &str| stdout(&node.run(line)).trim_end().to_owned();
    assert_eq!(
        asked("logs shop --request r-1"),
        "request=r-1&stream=stdout%2Cstderr%2Csystem%2Caccess",
        "all streams where one request is asked for"
    );
    assert_eq!(
        asked(
            "logs shop --request r-1 --stream stderr --since 15m --until 2026-01-02T03:04:05+01:00 --grep a|b -d 3 -n 5"
        ),
        "tail=5&since=900s&until=2026-01-02T03%3A04%3A05%2B01%3A00&grep=a%7Cb&request=r-1&stream=stderr&deployment=3"
    );
}

#[test]
fn metrics_are_printed_as_they_are() {
    let node = FakeNode::start();
    assert_eq!(stdout(&node.run("metrics")), "# TYPE a gauge\na 1\n");
    assert_eq!(
        node.json("metrics --json"),
        json!({"prometheus": "# TYPE a gauge\na 1\n"})
    );
}

#[test]
fn each_failure_has_its_code() {
    let node = FakeNode::start();
    let folder = tempfile::tempdir().unwrap();
    let bad = component(folder.path(), b"bad");
    let code = |line: &str| {
        let output = node.run(line);
        assert!(output.stdout.is_empty(), "{line}: {output:?}");
        (output.status.code().unwrap(), stderr(&output))
    };
    let (status, text) = code("logs nobody");
    assert_eq!(status, 3);
    assert!(
        text.starts_with("error: there is no app of that name\n"),
        "{text}"
    );
    assert!(
        text.contains("code:  app-not-found") && text.contains("hint:"),
        "{text}"
    );
    let (status, text) = code(&format!("deploy {bad} --app shop"));
    assert_eq!(status, 6);
    assert!(text.contains("it is a core module"), "{text}");
    assert_eq!(code("deploy /no/such/file.wasm --app shop").0, 1);
    assert_eq!(code("deploy x.wasm --app ../x").0, 2);
    assert_eq!(code("deploy x.wasm --app x --memory 1KiB").0, 2);
    assert_eq!(code("apps --url nonsense").0, 2);
    assert_eq!(code("apps --token-file /no/such/file").0, 4);
    let (status, text) = code("apps --url http://127.0.0.1:1");
    assert_eq!(status, 5);
    assert!(
        text.contains("cause: ") && text.contains("refused"),
        "{text}"
    );
    let output = cloister("status")
        .env("CLOISTER_URL", &node.url)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(stderr(&output).contains("CLOISTER_TOKEN"), "{output:?}");
}

#[test]
fn failures_are_json_too() {
    let node = FakeNode::start();
    let output = node.run("logs nobody --json");
    assert!(output.stdout.is_empty());
    let problem: Problem = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(
        (problem.status, problem.code.as_str()),
        (404, "app-not-found")
    );
    let output = node.run("apps --json --url http://127.0.0.1:1");
    let problem: Problem = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(problem.code, "node-unreachable");
}

#[test]
fn the_token_may_lie_in_a_file() {
    let node = FakeNode::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin-token");
    std::fs::write(&path, "right\n").unwrap();
    let run = |file: &Path| {
        let line = format!(
            "--url {} --token-file {} status --json",
            node.url,
            file.display()
        );
        cloister(&line)
            .env("CLOISTER_TOKEN", "wrong")
            .output()
            .unwrap()
            .status
            .code()
    };
    assert_eq!(run(&path), Some(0));
    std::fs::write(&path, "wrong\n").unwrap();
    assert_eq!(run(&path), Some(4));
    std::fs::write(&path, "\n").unwrap();
    assert_eq!(run(&path), Some(4));
}

#[test]
fn doctor_tells_about_the_node() {
    let node = FakeNode::start();
    let output = node.run("doctor --json");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let check = |name: &str| {
        let checks = report["checks"].as_array().unwrap();
        checks
            .iter()
            .find(|check| check["name"] == name)
            .cloned()
            .unwrap()
    };
    assert_eq!(check("node")["state"], "ok", "{report}");
    assert_eq!(check("token")["state"], "ok", "{report}");
    assert_eq!(report["ok"] == true, output.status.success());
    assert!(
        check("kvm")["detail"]
            .as_str()
            .unwrap()
            .contains("/dev/kvm")
    );
    let output = cloister("doctor --json --url http://127.0.0.1:1")
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    assert!(
        checks
            .iter()
            .any(|check| check["name"] == "node" && check["state"] == "warn")
    );
}

#[test]
fn help_and_completions_need_no_node() {
    let output = cloister("--help").output().unwrap();
    assert!(output.status.success() && stdout(&output).contains("Exit codes:"));
    let output = cloister("--version").output().unwrap();
    assert!(stdout(&output).starts_with("cloister "), "{output:?}");
    let output = cloister("completions bash").output().unwrap();
    assert!(output.status.success() && stdout(&output).contains("quickstart"));
    let output = cloister("").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    use std::io::Read as _;
    use std::process::Stdio;
    let mut child = cloister("completions zsh")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut text = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(text, "");
}

#[test]
fn a_new_app_is_deployed_from_its_manifest() {
    let node = FakeNode::start();
    let folder = tempfile::tempdir().unwrap();
    let run = |line: &str, folder: &Path| {
        let mut command = cloister(line);
        command.env("CLOISTER_URL", &node.url);
        command.env("CLOISTER_TOKEN", "right");
        command.current_dir(folder).output().unwrap()
    };
    let made = run("new blog --template hello", folder.path());
    assert!(made.status.success(), "{made:?}");
    let again = run("new blog", folder.path());
    assert_eq!(again.status.code(), Some(2), "{again:?}");
    let blog = folder.path().join("blog");
    let manifest = blog.join("cloister.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let more =
        "health = \"/\"\nbuild = \"echo built >built && echo said\"\nlimits = { cpu_ms = 7 }\n";
    std::fs::write(&manifest, text + more).unwrap();
    let diff = run("diff --json", &blog);
    let diff: Value = serde_json::from_slice(&diff.stdout).unwrap();
    assert_eq!(
        (&diff[0]["app"], &diff[0]["new"]),
        (&json!("blog"), &json!(true))
    );
    let deployed = run("deploy --json --yes", &blog);
    assert!(deployed.status.success(), "{deployed:?}");
    // What a build prints is not output of the command.
    let output: Value = serde_json::from_slice(&deployed.stdout).unwrap();
    assert_eq!(output[0]["deployment"], 7);
    assert!(blog.join("built").exists());
    let sent = node.deployed.lock().unwrap().pop().unwrap();
    let expected = (&json!("/"), &json!(7), &json!(true));
    assert_eq!(
        (&sent["health"], &sent["limits"]["cpu_ms"], &sent["approve"]),
        expected
    );
    std::fs::write(
        &manifest,
        "[app.blog]\ncomponent = 'app.wasm'\nhealthz = '/'",
    )
    .unwrap();
    let wrong = run("deploy", &blog);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(
        stderr(&wrong).contains("did you mean \"health\"?"),
        "{}",
        stderr(&wrong)
    );
    let missing = run("deploy", folder.path());
    assert!(
        stderr(&missing).contains("cloister init"),
        "{}",
        stderr(&missing)
    );
    let flags = run("deploy --memory 64MiB", &blog);
    assert!(
        stderr(&flags).contains("in the manifest"),
        "{}",
        stderr(&flags)
    );
}

#[test]
fn init_writes_a_manifest_once() {
    let folder = tempfile::tempdir().unwrap();
    let init = || {
        let mut command = cloister("init out/app.wasm --app shop");
        command.current_dir(folder.path()).output().unwrap()
    };
    assert!(init().status.success());
    let text = std::fs::read_to_string(folder.path().join("cloister.toml")).unwrap();
    assert_eq!(text, "[app.shop]\ncomponent = \"out/app.wasm\"\n");
    assert_eq!(init().status.code(), Some(2));
}
