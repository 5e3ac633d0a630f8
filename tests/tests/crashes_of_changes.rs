//! The daemon killed at random moments of every change that its API makes: what was acknowledged is there, what was not is
//! wholly there or wholly absent, the audit log has what there is, and the data folder is consistent.
//!
//! One client makes one change after the other and keeps a model of what must be there. When the daemon dies, one change is
//! under way; after the restart the node must be in the state before it or after it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use cloister_tests::client::{Answer, Connection, empty, full};
use cloister_tests::dice::Dice;
use cloister_tests::fixture::{probe, saying};
use cloister_tests::node::Start;
use cloister_tests::wait::within;
use cloister_tests::{Node, process};
use http::Request;
use serde_json::{Value, json};

const EXE: &str = env!("CARGO_BIN_EXE_cloister-node");

/// Deployments of an app that are kept.
const KEPT: u64 = 20;

/// The app whose variables are looked at from inside.
const ENV: &str = "env";

/// How often the daemon is killed; more with the environment variable `CLOISTER_CRASH_ROUNDS`.
fn rounds() -> u32 {
    let rounds = std::env::var("CLOISTER_CRASH_ROUNDS").ok();
    rounds.and_then(|n| n.parse().ok()).unwrap_or(12)
}

/// An app as it must be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct App {
    /// The deployment that answers, and how many there are.
    active: u64,
    deployments: u64,
    /// What it says, where it says a number.
    says: Option<u64>,
    config: BTreeMap<String, String>,
    /// Versions of secrets.
    secrets: BTreeMap<String, u64>,
}

/// What must be there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct World {
    /// Tenants besides the default one, with their quota of apps.
    tenants: BTreeMap<String, u64>,
    /// Labels of tokens of the default tenant.
    tokens: Vec<String>,
    /// Domains of the default tenant, and whether their requests are sent to HTTPS.
    domains: BTreeMap<String, bool>,
    /// The path of the one route of [`ENV`], and where its requests are sent.
    route: Option<(String, String)>,
    /// Apps of the default tenant.
    apps: BTreeMap<String, App>,
    /// What the component of [`ENV`] sees.
    env: BTreeMap<String, String>,
}

/// What the node does not show, and the model has to know.
#[derive(Debug, Clone, Default)]
struct Hidden {
    /// Highest number of a deployment of each app, for ever.
    numbers: BTreeMap<String, u64>,
    /// Highest version of a secret of each app that is there.
    versions: BTreeMap<String, u64>,
    /// Ids of tokens by their labels.
    ids: BTreeMap<String, String>,
    /// What each deployment of an app says.
    says: BTreeMap<(String, u64), u64>,
}

/// A change.
#[derive(Debug, Clone)]
enum Change {
    CreateTenant(String),
    Quota(String, u64),
    DeleteTenant(String),
    CreateToken(String),
    RevokeToken(String),
    Deploy(String, u64),
    /// An older deployment of an app answers again.
    Rollback(String, u64),
    DeleteApp(String),
    Config {
        deploy: bool,
        value: String,
    },
    SetSecret {
        deploy: bool,
        value: String,
    },
    DeleteSecret,
    /// A domain that is new, or the options of one.
    Domain(String, bool),
    DeleteDomain(String),
    Route(Option<(String, String)>),
    RotateKey,
}

impl Change {
    /// One that changes something of this world.
    fn random(dice: &mut Dice, world: &World, hidden: &Hidden, number: u64) -> Self {
        let name = format!("n{number}");
        let tenant = world.tenants.keys().next().cloned();
        let token = world.tokens.first().cloned();
        let app = world.apps.keys().find(|app| *app != ENV).cloned();
        let older = app.clone().and_then(|name| {
            let app = &world.apps[&name];
            let older = app.active - 1;
            (older + app.deployments > hidden.numbers[&name]).then_some((name, older))
        });
        let deploy = dice.roll(2) == 0;
        let has_secret = world.apps[ENV].secrets.contains_key("S");
        let domain = world.domains.iter().next();
        let domain = domain.map(|(name, redirect)| (name.clone(), *redirect));
        match (dice.roll(17), tenant, token, app) {
            (0, ..) => Self::CreateTenant(name),
            (1, Some(tenant), ..) => Self::Quota(tenant, number),
            (2, Some(tenant), ..) => Self::DeleteTenant(tenant),
            (3, ..) => Self::CreateToken(name),
            (4, _, Some(token), _) => Self::RevokeToken(token),
            (5, _, _, Some(app)) => Self::DeleteApp(app),
            (6, ..) => Self::Config {
                deploy,
                value: name,
            },
            (7, ..) => Self::SetSecret {
                deploy,
                value: name,
            },
            (8, ..) if has_secret => Self::DeleteSecret,
            (9, ..) => Self::RotateKey,
            (10, ..) => Self::Domain(format!("{name}.example"), deploy),
            (13, ..) if let Some((domain, redirect)) = domain => Self::Domain(domain, !redirect),
            (14, ..) if let Some((domain, _)) = domain => Self::DeleteDomain(domain),
            (15, ..) if deploy && world.route.is_some() => Self::Route(None),
            (15 | 16, ..) => Self::Route(Some((format!("/{name}"), format!("/to/{number}")))),
            (11 | 12, ..) if let Some((app, number)) = older => Self::Rollback(app, number),
            _ => Self::Deploy(format!("a{}", dice.roll(2)), number),
        }
    }

    /// The request that asks for it.
    fn request(&self, hidden: &Hidden, digest: &str) -> (&'static str, String, Value) {
        let tenant = |name: &str| format!("/v1/tenants/{name}");
        let of_env = |rest: &str| format!("/v1/tenants/default/apps/{ENV}/{rest}");
        match self {
            Self::CreateTenant(name) => ("PUT", tenant(name), Value::Null),
            Self::Quota(name, apps) => (
                "PATCH",
                tenant(name),
                json!({"quotas": {"apps": apps % 10_000}}),
            ),
            Self::DeleteTenant(name) => ("DELETE", tenant(name), Value::Null),
            Self::CreateToken(label) => {
                let body = json!({"role": "read", "label": label});
                ("POST", "/v1/tenants/default/tokens".to_owned(), body)
            }
            Self::RevokeToken(label) => {
                let id = &hidden.ids[label];
                (
                    "DELETE",
                    format!("/v1/tenants/default/tokens/{id}"),
                    Value::Null,
                )
            }
            Self::Deploy(app, _) => {
                let path = format!("/v1/tenants/default/apps/{app}/deployments");
                ("POST", path, json!({"digest": digest}))
            }
            Self::Rollback(app, number) => {
                let path = format!("/v1/tenants/default/apps/{app}/rollback");
                ("POST", path, json!({"to": number}))
            }
            Self::DeleteApp(app) => (
                "DELETE",
                format!("/v1/tenants/default/apps/{app}"),
                Value::Null,
            ),
            Self::Config { deploy, value } => {
                let body = json!({"values": {"C": value}, "deploy": deploy});
                ("PATCH", of_env("config"), body)
            }
            Self::SetSecret { deploy, value } => {
                let body = json!({"value": value, "deploy": deploy});
                ("PUT", of_env("secrets/S"), body)
            }
            Self::DeleteSecret => ("DELETE", of_env("secrets/S"), Value::Null),
            Self::Domain(name, redirect) => (
                "PUT",
                format!("/v1/tenants/default/domains/{name}"),
                json!({"https_redirect": redirect}),
            ),
            Self::DeleteDomain(name) => (
                "DELETE",
                format!("/v1/tenants/default/domains/{name}"),
                Value::Null,
            ),
            Self::Route(route) => {
                let routes = route.iter().map(|(path, to)| {
                    json!({"host": format!("{ENV}.localhost"), "path": path, "redirect": {"to": to, "keep_path": false}})
                });
                let routes: Vec<_> = routes.collect();
                ("PUT", of_env("routes"), json!({"routes": routes}))
            }
            Self::RotateKey => ("POST", "/v1/secret-key/rotate".to_owned(), Value::Null),
        }
    }

    /// What it makes of a world.
    fn apply(&self, world: &mut World, hidden: &mut Hidden, secrets: &mut BTreeMap<u64, String>) {
        let mut redeploy = |world: &mut World, secrets: &BTreeMap<u64, String>| {
            let number = hidden.numbers.entry(ENV.to_owned()).or_default();
            *number += 1;
            let app = world.apps.get_mut(ENV).unwrap();
            (app.active, app.deployments) = (*number, KEPT.min(app.deployments + 1));
            let mut env = app.config.clone();
            let opened = app.secrets.iter();
            env.extend(opened.map(|(name, version)| (name.clone(), secrets[version].clone())));
            world.env = env;
        };
        match self {
            Self::CreateTenant(name) => {
                world.tenants.insert(name.clone(), 100);
            }
            Self::Quota(name, apps) => {
                world.tenants.insert(name.clone(), apps % 10_000);
            }
            Self::DeleteTenant(name) => {
                world.tenants.remove(name);
            }
            Self::CreateToken(label) => {
                world.tokens.push(label.clone());
                world.tokens.sort();
            }
            Self::RevokeToken(label) => world.tokens.retain(|token| token != label),
            Self::Deploy(app, says) => {
                let number = hidden.numbers.entry(app.clone()).or_default();
                *number += 1;
                hidden.says.insert((app.clone(), *number), *says);
                let app = world.apps.entry(app.clone()).or_default();
                (app.active, app.deployments) = (*number, KEPT.min(app.deployments + 1));
                app.says = Some(*says);
            }
            Self::Rollback(name, number) => {
                let app = world.apps.get_mut(name).unwrap();
                app.active = *number;
                app.says = hidden.says.get(&(name.clone(), *number)).copied();
            }
            Self::DeleteApp(app) => {
                world.apps.remove(app);
            }
            Self::Config { deploy, value } => {
                let app = world.apps.get_mut(ENV).unwrap();
                app.config.insert("C".to_owned(), value.clone());
                if *deploy {
                    redeploy(world, secrets);
                }
            }
            Self::SetSecret { deploy, value } => {
                let version = hidden.versions.entry(ENV.to_owned()).or_default();
                *version += 1;
                secrets.insert(*version, value.clone());
                let app = world.apps.get_mut(ENV).unwrap();
                app.secrets.insert("S".to_owned(), *version);
                if *deploy {
                    redeploy(world, secrets);
                }
            }
            Self::DeleteSecret => {
                world.apps.get_mut(ENV).unwrap().secrets.remove("S");
                redeploy(world, secrets);
            }
            Self::Domain(name, redirect) => {
                world.domains.insert(name.clone(), *redirect);
            }
            Self::DeleteDomain(name) => {
                world.domains.remove(name);
            }
            Self::Route(route) => world.route.clone_from(route),
            Self::RotateKey => {}
        }
    }

    /// Whether what it does is to be done once, with a key.
    fn is_once(&self) -> bool {
        matches!(self, Self::CreateToken(_) | Self::Deploy(..))
    }
}

/// Sends a request with an idempotency key; none when the node died before it had answered.
async fn send(
    node: &Node,
    (method, path, body): &(&'static str, String, Value),
    key: Option<&str>,
) -> Option<Answer> {
    let mut request = Request::builder()
        .method(*method)
        .uri(path)
        .header("host", node.admin.addr.to_string())
        .header("authorization", format!("Bearer {}", node.admin.token))
        .header("content-type", "application/json");
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let body = if body.is_null() {
        empty()
    } else {
        full(body.to_string())
    };
    let request = request.body(body).unwrap();
    let sent = async {
        let mut connection = Connection::h1(node.admin.addr).await?;
        anyhow::Ok(connection.call(request).await?)
    };
    let what = format!("the answer to {method} {path}");
    within(Duration::from_secs(60), &what, sent).await.ok()
}

/// The world as the node shows it.
async fn observe(node: &Node) -> World {
    let mut world = World::default();
    for tenant in node.admin.list("/v1/tenants?limit=1000").await {
        let name = tenant["tenant"].as_str().unwrap();
        if name != "default" {
            let apps = tenant["quotas"]["apps"].as_u64().unwrap();
            world.tenants.insert(name.to_owned(), apps);
        }
    }
    for token in node
        .admin
        .list("/v1/tenants/default/tokens?limit=1000")
        .await
    {
        world
            .tokens
            .push(token["label"].as_str().unwrap().to_owned());
    }
    world.tokens.sort();
    for app in node.admin.list("/v1/apps?limit=1000").await {
        let name = app["app"].as_str().unwrap().to_owned();
        let path = format!("/v1/tenants/default/apps/{name}");
        let config = node.admin.get(&format!("{path}/config")).await;
        let secrets = node.admin.list(&format!("{path}/secrets")).await;
        let says = match name.as_str() {
            ENV => None,
            other => {
                let text = node.get(other, "/").await.text();
                let number = text.strip_prefix("number ");
                let number = number.unwrap_or_else(|| panic!("{other} answers: {text}"));
                Some(number.parse().unwrap())
            }
        };
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let seen = App {
            active: app["deployment"].as_u64().unwrap(),
            deployments: app["deployments"].as_u64().unwrap(),
            says,
            config: serde_json::from_value(config["values"].clone()).unwrap(),
            secrets: secrets
                .iter()
                .map(|s| (text(&s["name"]), s["version"].as_u64().unwrap()))
                .collect(),
        };
        let listed = node
            .admin
            .list(&format!("{path}/deployments?limit=1000"))
            .await;
        assert_eq!(listed.len() as u64, seen.deployments, "{name}");
        world.apps.insert(name, seen);
    }
    for domain in node
        .admin
        .list("/v1/tenants/default/domains?limit=1000")
        .await
    {
        let name = domain["domain"].as_str().unwrap().to_owned();
        let redirect = domain["options"]["https_redirect"].as_bool().unwrap();
        world.domains.insert(name, redirect);
    }
    let path = format!("/v1/tenants/default/apps/{ENV}/routes");
    let routes = node.admin.get(&path).await;
    if let Some(route) = routes["routes"].as_array().unwrap().first() {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (path, to) = (text(&route["path"]), text(&route["redirect"]["to"]));
        // What is stored is served.
        let answer = node.get(ENV, &path).await;
        assert_eq!(answer.status, 308, "{path}: {}", answer.text());
        world.route = Some((path, to));
    }
    let answer = node.get(ENV, "/env").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.text();
    let lines = text.lines().filter_map(|line| line.split_once('='));
    world.env = lines
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    world
}

/// Lines of the audit log that say that something was done.
async fn done(node: &Node) -> u64 {
    let mut count = 0;
    let mut after = String::new();
    loop {
        let page = node
            .admin
            .get(&format!("/v1/audit?limit=1000{after}"))
            .await;
        let items = page["items"].as_array().unwrap();
        let done = items.iter().filter(|line| line["outcome"] == "done");
        count += done.filter(|line| line["who"] != "node").count() as u64;
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return count,
        }
    }
}

/// Looks at the data folder of a daemon that does not run.
fn doctor(start: &Start, round: u32) {
    let output = Command::new(EXE)
        .args(["doctor", "--store", "--json", "--data"])
        .arg(start.data())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "round {round}: {said} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(report["problems"], json!([]), "round {round}");
}

/// The model of one client.
struct Client {
    world: World,
    hidden: Hidden,
    /// Values of secrets by their versions.
    secrets: BTreeMap<u64, String>,
    /// Changes that were acknowledged, as far as the audit log has them.
    done: u64,
    number: u64,
}

impl Client {
    /// A node with the app that shows what it sees.
    async fn begin(node: &Node) -> Self {
        node.deploy(ENV, probe()).done().await;
        let app = App {
            active: 1,
            deployments: 1,
            ..App::default()
        };
        Self {
            world: World {
                apps: [(ENV.to_owned(), app)].into(),
                ..World::default()
            },
            hidden: Hidden {
                numbers: [(ENV.to_owned(), 1)].into(),
                ..Hidden::default()
            },
            secrets: BTreeMap::new(),
            done: done(node).await,
            number: 0,
        }
    }

    /// Takes a change as made.
    fn made(&mut self, change: &Change, answer: Option<&Answer>) {
        change.apply(&mut self.world, &mut self.hidden, &mut self.secrets);
        self.done += 1;
        if let (Change::CreateToken(label), Some(answer)) = (change, answer) {
            let token: Value = serde_json::from_slice(&answer.body).unwrap();
            let id = token["id"].as_str().unwrap().to_owned();
            self.hidden.ids.insert(label.clone(), id);
        }
    }

    /// Makes one change after the other until the node dies in the middle of one: that one, and its request.
    async fn work(
        &mut self,
        node: &Node,
        dice: &mut Dice,
    ) -> (Change, (&'static str, String, Value)) {
        loop {
            self.number += 1;
            let change = Change::random(dice, &self.world, &self.hidden, self.number);
            let mut digest = String::new();
            if let Change::Deploy(_, says) = &change {
                match self.upload(node, *says).await {
                    Some(uploaded) => digest = uploaded,
                    // It died in the upload, which shows in nothing but the audit log.
                    None => return (Change::RotateKey, ("GET", String::new(), Value::Null)),
                }
            }
            let request = change.request(&self.hidden, &digest);
            let key = change.is_once().then(|| format!("key-{}", self.number));
            match send(node, &request, key.as_deref()).await {
                Some(answer) if answer.status.is_success() => self.made(&change, Some(&answer)),
                Some(answer) => panic!("{change:?}: {}", answer.text()),
                None => return (change, request),
            }
        }
    }

    async fn upload(&mut self, node: &Node, says: u64) -> Option<String> {
        let component = full(saying(&format!("number {says}")));
        let path = "/v1/tenants/default/components";
        let upload = node
            .admin
            .try_call("POST", path, "application/wasm", component);
        let answer = upload.await.ok()?;
        assert_eq!(answer.status, 201, "{}", answer.text());
        self.done += 1;
        let upload: Value = serde_json::from_slice(&answer.body).unwrap();
        Some(upload["digest"].as_str().unwrap().to_owned())
    }

    /// Compares the node with the model, given the change that was under way.
    async fn settle(
        &mut self,
        node: &Node,
        under_way: Option<&(Change, (&'static str, String, Value))>,
        round: u32,
    ) {
        let seen = observe(node).await;
        let lines = done(node).await;
        let Some((change, request)) = under_way else {
            assert_eq!(seen, self.world, "round {round}");
            return;
        };
        let mut after = self.world.clone();
        let (mut hidden, mut secrets) = (self.hidden.clone(), self.secrets.clone());
        change.apply(&mut after, &mut hidden, &mut secrets);
        let shows = after != self.world;
        let applied = seen == after && (shows || lines > self.done);
        let absent = seen == self.world && (shows || lines == self.done);
        assert!(
            applied || absent,
            "round {round}: {change:?} is half made\nseen   {seen:?}\nbefore {:?}\nafter  {after:?}",
            self.world
        );
        // The audit log has what there is: no change without its line, no line without its change.
        assert_eq!(
            lines,
            self.done + u64::from(applied),
            "round {round}: {change:?}, applied: {applied}"
        );
        if applied {
            self.made(change, None);
        }
        if change.is_once() {
            self.again(node, change, request, applied, round).await;
        }
    }

    /// Sends the change that was under way again with its key: it is made once, whatever became of it.
    async fn again(
        &mut self,
        node: &Node,
        change: &Change,
        request: &(&'static str, String, Value),
        applied: bool,
        round: u32,
    ) {
        if let Change::Deploy(_, says) = change {
            // What no deployment uses is gone after a restart.
            self.upload(node, *says).await.unwrap();
        }
        let key = format!("key-{}", self.number);
        let answer = send(node, request, Some(&key)).await.unwrap();
        let text = answer.text();
        match (applied, answer.status.as_u16()) {
            (true, 201) => assert!(
                answer.headers.contains_key("idempotency-replayed"),
                "{text}"
            ),
            (true, 409) => assert_eq!(answer.problem(), "idempotency-answer-lost"),
            (false, 201) => self.made(change, Some(&answer)),
            _ => panic!("round {round}: {change:?} again: {text}"),
        }
        if applied && let Change::CreateToken(label) = change {
            let tokens = node
                .admin
                .list("/v1/tenants/default/tokens?limit=1000")
                .await;
            let token = tokens
                .iter()
                .find(|token| token["label"] == **label)
                .unwrap();
            let id = token["id"].as_str().unwrap().to_owned();
            self.hidden.ids.insert(label.clone(), id);
        }
        assert_eq!(
            observe(node).await,
            self.world,
            "round {round}: {change:?} again"
        );
        // A refusal to answer again is a line of its own, but no change.
        self.done = done(node).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_at_any_moment_of_any_change_keeps_its_word() {
    let mut dice = Dice::new("CLOISTER_CRASH_SEED");
    let node = Node::start(EXE).await;
    let mut client = Client::begin(&node).await;
    let mut start = node.stop().await;
    let mut under_way = None;
    for round in 0..rounds() {
        doctor(&start, round);
        let node = start.node().await;
        client.settle(&node, under_way.as_ref(), round).await;
        let pid = node.pid();
        let dies = Duration::from_millis(1 + dice.roll(400));
        let killer = tokio::spawn(async move {
            tokio::time::sleep(dies).await;
            process::kill(pid);
        });
        under_way = Some(client.work(&node, &mut dice).await);
        killer.await.unwrap();
        start = node.kill();
    }
    doctor(&start, rounds());
    let node = start.node().await;
    client.settle(&node, under_way.as_ref(), rounds()).await;
    println!("{} changes were acknowledged", client.done);
}
