//! The command line against a real node: who may do what, configuration and secrets, as a person types it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};

use cloister_tests::Node;
use cloister_tests::fixture::{configured_first, probe};
use serde_json::{Value, json};
use tempfile::TempDir;

const EXE: &str = env!("CARGO_BIN_EXE_cloister-node");

/// A user with a folder of their own.
struct User {
    url: String,
    home: TempDir,
}

impl User {
    fn new(node: &Node) -> Self {
        Self {
            url: format!("http://{}", node.admin.addr),
            home: tempfile::tempdir().unwrap(),
        }
    }

    /// Runs a command with this on its standard input.
    fn run_with(&self, line: &str, input: &str) -> Output {
        let mut command = Command::new(EXE);
        command.args(line.split_whitespace());
        command
            .env("CLOISTER_URL", &self.url)
            .env("HOME", self.home.path())
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("CLOISTER_TOKEN")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that reads nothing may be gone already.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        child.wait_with_output().unwrap()
    }

    /// What a command prints that does what it is asked.
    fn done(&self, line: &str, input: &str) -> String {
        let output = self.run_with(line, input);
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, line: &str, input: &str) -> Value {
        let text = self.done(&format!("{line} --json"), input);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{line}: {e}: {text}"))
    }

    /// The exit code and the problem of a command that fails.
    fn refused(&self, line: &str, input: &str) -> (i32, Value) {
        let output = self.run_with(&format!("{line} --json"), input);
        assert!(output.stdout.is_empty(), "{line}: {output:?}");
        let problem = serde_json::from_slice(&output.stderr);
        let problem = problem.unwrap_or_else(|e| panic!("{line}: {e}: {output:?}"));
        (output.status.code().unwrap(), problem)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_gets_a_token_and_sees_only_what_is_its_own() {
    let node = Node::start(EXE).await;
    let operator = User::new(&node);
    assert_eq!(operator.refused("whoami", "").0, 4);
    assert_eq!(operator.refused("login", "clo_x_y\n").0, 4);
    let token = format!("{}\n", node.admin.token);
    let who = operator.json("login", &token);
    assert_eq!(
        (&who["id"], &who["role"]),
        (&json!("admin-token"), &json!("admin"))
    );
    let kept = operator
        .home
        .path()
        .join(".config/cloister/credentials.json");
    let mode = std::fs::metadata(&kept).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    assert_eq!(operator.json("tenant create acme", "")["tenant"], "acme");
    operator.json("tenant create other", "");
    let quotas = operator.json("tenant quotas acme --apps 3 --rate 50/s --disk 1GiB", "");
    assert_eq!(quotas["quotas"]["apps"], 3);
    assert_eq!(quotas["policy"], json!({"rate": "50/s"}));
    let text = operator.done("tenant quotas acme --rate none", "");
    assert!(text.contains("1.0 GiB") && text.contains("none"), "{text}");
    assert_eq!(
        operator.json("tenant list", "").as_array().unwrap().len(),
        3
    );

    let line = "token create --tenant acme --role deploy --label ci --expires 2h";
    let made = operator.run_with(line, "");
    let token = String::from_utf8(made.stdout).unwrap();
    assert!(
        token.starts_with("clo_acme.") && token.lines().count() == 1,
        "{token}"
    );
    let listed = operator.json("token list --tenant acme", "");
    let id = listed[0]["id"].as_str().unwrap();
    assert_eq!(
        (&listed[0]["label"], &listed[0]["role"]),
        (&json!("ci"), &json!("deploy"))
    );

    let tenant = User::new(&node);
    let text = tenant.done("login", &token);
    assert!(text.contains("(ci): deploy for acme, until "), "{text}");
    assert_eq!(tenant.json("whoami", "")["scope"]["tenant"], "acme");
    assert_eq!(tenant.json("apps --tenant acme", ""), json!([]));
    let foreign = tenant.refused("apps --tenant other", "");
    let missing = tenant.refused("apps --tenant nobody", "");
    assert_eq!((foreign.0, missing.0), (3, 3));
    assert_eq!(foreign.1["code"], missing.1["code"]);
    let (code, problem) = tenant.refused("tenant create mine", "");
    assert_eq!((code, &problem["code"]), (4, &json!("scope-insufficient")));
    assert_eq!(tenant.refused("token list --tenant acme", "").0, 4);

    operator.json(&format!("token revoke {id}"), "");
    assert_eq!(tenant.refused("whoami", "").0, 4);
    let audit = operator.json("audit", "");
    let audit = audit.as_array().unwrap();
    assert_eq!(
        audit[0]["what"],
        format!("DELETE /v1/tenants/acme/tokens/{id}")
    );
    assert!(
        audit
            .iter()
            .any(|line| line["who"] == id && line["outcome"] == "refused")
    );
    assert!(audit.iter().all(|line| line["from"] == "127.0.0.1"));
    assert_eq!(
        operator
            .json("audit --tail 2", "")
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert!(
        operator
            .done("audit --tenant acme", "")
            .contains("/v1/tenants/acme")
    );
    assert_eq!(operator.json("tenant delete other", "")["deleted"], true);

    assert_eq!(tenant.json("logout", "")["forgotten"], true);
    assert_eq!(tenant.json("logout", "")["forgotten"], false);
    let text =
        std::fs::read_to_string(tenant.home.path().join(".config/cloister/credentials.json"));
    assert!(!text.unwrap().contains("clo_"));
}

#[tokio::test(flavor = "multi_thread")]
async fn configuration_and_secrets_become_variables() {
    let node = Node::start(EXE).await;
    node.deploy("shop", probe()).done().await;
    let user = User::new(&node);
    user.json("login", &node.admin.token);
    let seen = async || {
        let answer = node.get("shop", "/env").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.text()
    };

    let changed = user.json("config set shop GREETING=Hi EMPTY= URL=a=b", "");
    assert_eq!(changed["deployment"]["deployment"], 2);
    assert!(seen().await.contains("GREETING=Hi"));
    let changed = user.json("config unset shop EMPTY URL --no-deploy", "");
    assert_eq!(changed["deployment"], Value::Null);
    let values = &user.json("config list shop", "")["values"];
    assert_eq!(values, &json!({"GREETING": "Hi"}));
    assert!(user.done("config list shop", "").contains("GREETING  Hi"));

    let (code, problem) = user.refused("secret rotate shop KEY", "a");
    assert_eq!((code, &problem["code"]), (6, &json!("precondition-failed")));
    assert_eq!(user.refused("secret set shop KEY", "").0, 2);
    let text = user.done("secret set shop KEY", "first value \n");
    assert_eq!(text, "✓ KEY is set; deployment 3 of shop has it\n");
    assert!(seen().await.contains("KEY=first value \n"));
    let rotated = user.json("secret rotate shop KEY", "second");
    assert_eq!(rotated["deployment"]["deployment"], 4);
    assert!(seen().await.contains("KEY=second"));
    let listed = user.json("secret list shop", "");
    assert_eq!(
        (listed.as_array().unwrap().len(), &listed[0]["name"]),
        (1, &json!("KEY"))
    );
    assert!(!user.done("secret list shop", "").contains("second"));
    let rotated = user.json("secret rotate-key", "");
    assert!(rotated["resealed"].as_u64().unwrap() > 0, "{rotated}");
    user.json("secret unset shop KEY", "");
    assert!(!seen().await.contains("KEY="));
    assert_eq!(user.refused("secret unset shop KEY", "").0, 3);
    // An app may be given what its first deployment is to have.
    let changed = user.json("config set later A=1", "");
    assert_eq!(changed["deployment"], Value::Null);
}

/// What is set reaches the component by `wasi:config` as it does by the environment.
#[tokio::test(flavor = "multi_thread")]
async fn configuration_and_secrets_are_in_the_store_of_wasi_config() {
    let node = Node::start(EXE).await;
    let component = configured_first("GREETING");
    let deploy = node.deploy("shop", &component).env("OWN", "o");
    deploy.done().await;
    let user = User::new(&node);
    user.json("login", &node.admin.token);
    let get = async |path: &str| {
        let answer = node.get("shop", path).await;
        (answer.status.as_u16(), answer.text())
    };
    let found = |text: &str| (200, text.to_owned());
    let none = (404, "none".to_owned());

    assert_eq!(get("/config").await, found("OWN=o\n"));
    assert_eq!(get("/config-of?GREETING").await, none);
    assert_eq!(get("/config-first").await, found(""));

    user.json("config set shop GREETING=Hi EMPTY= Z=1", "");
    user.json("secret set shop KEY", "first");
    // In the order of their names, wherever they come from.
    let all = found("EMPTY=\nGREETING=Hi\nKEY=first\nOWN=o\nZ=1\n");
    assert_eq!(get("/config").await, all);
    assert_eq!(get("/env").await, all);
    assert_eq!(get("/config-of?GREETING").await, found("Hi"));
    assert_eq!(get("/config-of?KEY").await, found("first"));
    assert_eq!(get("/config-of?EMPTY").await, found(""));
    for unknown in ["KE", "KEYS", "key", ""] {
        assert_eq!(get(&format!("/config-of?{unknown}")).await, none);
    }

    // What changes is seen by the next deployment: also by instances that asked when they were made.
    assert_eq!(get("/config-first").await, found("Hi"));
    user.json("config set shop GREETING=Hallo", "");
    user.json("secret rotate shop KEY", "second");
    assert_eq!(get("/config-of?GREETING").await, found("Hallo"));
    assert_eq!(get("/config-first").await, found("Hallo"));
    assert_eq!(get("/config-of?KEY").await, found("second"));
    user.json("config unset shop GREETING --no-deploy", "");
    assert_eq!(get("/config-of?GREETING").await, found("Hallo"));
    user.json("secret unset shop KEY", "");
    assert_eq!(get("/config-of?GREETING").await, none);
    assert_eq!(get("/config-first").await, found(""));
    assert_eq!(get("/config").await, found("EMPTY=\nOWN=o\nZ=1\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_shown_changed_and_held_to() {
    let node = Node::start(EXE).await;
    node.deploy("shop", probe()).done().await;
    let user = User::new(&node);
    user.json("login", &node.admin.token);
    let shown = user.json("policy shop", "");
    assert_eq!((&shown["policy"], &shown["keep"]), (&json!({}), &json!(20)));
    let line = "policy shop --rate 2/m,burst=2 --request-body 1KiB --keep 3";
    let changed = user.json(line, "");
    let wanted = json!({"rate": "2/m,burst=2", "request_body_bytes": 1024});
    assert_eq!((&changed["policy"], &changed["keep"]), (&wanted, &json!(3)));
    let answers: Vec<_> = [
        node.get("shop", "/hello").await,
        node.get("shop", "/hello").await,
        node.get("shop", "/hello").await,
    ]
    .iter()
    .map(|answer| answer.status.as_u16())
    .collect();
    assert_eq!(answers, [200, 200, 429]);
    // What is not typed stays.
    let changed = user.json("policy shop --rate none", "");
    assert_eq!(changed["policy"], json!({"request_body_bytes": 1024}));
    assert_eq!(changed["keep"], 3);
    assert_eq!(node.get("shop", "/hello").await.status, 200);
    let text = user.done("policy shop", "");
    assert!(
        text.contains("1.0 KiB") && text.contains("kept deployments"),
        "{text}"
    );
    for _ in 0..4 {
        user.json("config set shop A=1 --no-deploy", "");
        node.deploy("shop", probe()).done().await;
    }
    let kept = user.json("deployments shop", "");
    assert_eq!(kept.as_array().unwrap().len(), 3, "{kept}");
    assert_eq!(user.refused("policy nobody", "").0, 3);
    assert_eq!(
        user.run_with("policy shop --keep 0", "").status.code(),
        Some(2)
    );
    let quotas = user.json("tenant quotas default --response-body 1MiB", "");
    assert_eq!(quotas["policy"], json!({"response_body_bytes": 1 << 20}));
}

/// The README's four commands, as they stand there.
#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_has_an_app_in_four_commands_and_less_than_a_minute() {
    let node = Node::start(EXE).await;
    let user = User::new(&node);
    let bin = user.home.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(EXE, bin.join("cloister")).unwrap();
    user.json("login", &node.admin.token);

    let readme = include_str!("../../README.md");
    let (_, begun) = readme
        .split_once("<!-- newcomer: begin -->\n```sh\n")
        .unwrap();
    let (block, _) = begun.split_once("```\n<!-- newcomer: end -->").unwrap();
    let lines: Vec<_> = block.lines().collect();
    assert_eq!(lines.len(), 4, "{block}");
    let (mut folder, mut last, mut all) = (user.home.path().to_owned(), String::new(), 0.0);
    for line in lines {
        if let Some(into) = line.strip_prefix("cd ") {
            folder.push(into);
            continue;
        }
        // The node of a test has a port of its own.
        let line = line.replace(":7380", &format!(":{}", node.listen.port()));
        let began = std::time::Instant::now();
        let output = Command::new("sh")
            .args(["-c", &line])
            .current_dir(&folder)
            .env(
                "PATH",
                format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()),
            )
            .env("CLOISTER_URL", &user.url)
            .env("HOME", user.home.path())
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("CLOISTER_TOKEN")
            .output()
            .unwrap();
        let took = began.elapsed().as_secs_f64();
        println!("{took:.2} s  {line}");
        assert!(output.status.success(), "{line}: {output:?}");
        last = String::from_utf8(output.stdout).unwrap();
        all += took;
    }
    println!("{all:.2} s  in all");
    assert!(last.contains("Hello"), "{last}");
    assert!(all < 60.0, "{all} s");
}
