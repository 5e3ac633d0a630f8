//! A daemon in a process of its own, as operators run it: a data folder, two ports, a token.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, Once, Weak};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::admin::{Admin, Deploy};
use crate::client::{self, Answer};
use crate::process;
use crate::wait::{SOON, until, within};

/// Lines of a node's own log that a failing test prints.
const TAIL: usize = 60;

type Log = Mutex<Vec<String>>;

/// What the nodes of this process wrote, for the message of a test that fails.
static LOGS: Mutex<Vec<(u32, Weak<Log>)>> = Mutex::new(Vec::new());

/// A running daemon. It ends when this is dropped, and with the test process in any case.
#[derive(Debug)]
pub struct Node {
    /// Where apps are served.
    pub listen: SocketAddr,
    /// Where apps are served over TLS, where that was asked for.
    pub listen_tls: Option<SocketAddr>,
    /// The admin API.
    pub admin: Admin,
    /// Where just the metrics are, where that was asked for.
    pub metrics: Option<SocketAddr>,
    child: Child,
    log: Arc<Log>,
    start: Start,
    data: PathBuf,
}

/// How a daemon is to be started.
#[derive(Debug, Clone)]
pub struct Start {
    exe: PathBuf,
    wrapper: Vec<String>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    stdout: Option<PathBuf>,
    data: PathBuf,
    /// Removes the folder with the last node on it.
    _folder: Option<Arc<TempDir>>,
}

/// A daemon that ended instead of serving.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to its standard error.
    pub said: String,
}

impl Start {
    /// With a fresh data folder. `exe` is the test binary that plays every role of the node:
    /// `env!("CARGO_BIN_EXE_cloister-node")`.
    ///
    /// # Panics
    /// When there is no KVM, or no place for the folder.
    #[must_use]
    pub fn new(exe: &str) -> Self {
        let kvm = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm");
        if let Err(error) = kvm {
            panic!("these tests run real VMs and /dev/kvm cannot be opened: {error}");
        }
        let folder = tempfile::Builder::new()
            .prefix("cloister-test-")
            .tempdir()
            .unwrap();
        Self {
            exe: exe.into(),
            wrapper: Vec::new(),
            args: Vec::new(),
            env: Vec::new(),
            stdout: None,
            data: folder.path().join("data"),
            _folder: Some(Arc::new(folder)),
        }
    }

    /// With a program before the daemon that ends in `exec "$@"` of it, such as `unshare`.
    #[must_use]
    pub fn wrapped(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// With more arguments.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|&word| word.to_owned()));
        self
    }

    /// With a variable in the daemon's environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With its standard output in this file, which is nowhere otherwise.
    #[must_use]
    pub fn stdout(mut self, file: &Path) -> Self {
        self.stdout = Some(file.to_owned());
        self
    }

    /// On this data folder.
    #[must_use]
    pub fn on(mut self, data: &Path) -> Self {
        data.clone_into(&mut self.data);
        self
    }

    /// The data folder.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The data folder as the daemon sees it, which may have file systems of its own.
    fn seen_by(&self, pid: u32) -> PathBuf {
        match self.wrapper.is_empty() {
            true => self.data.clone(),
            false => format!("/proc/{pid}/root{}", self.data.display()).into(),
        }
    }

    fn spawn(&self) -> (Child, Arc<Log>) {
        let mut words = self.wrapper.iter().map(String::as_str);
        let exe = self.exe.to_str().unwrap();
        let mut command = match words.next() {
            Some(first) => {
                let mut command = Command::new(first);
                command.args(words).arg(exe);
                command
            }
            None => Command::new(exe),
        };
        command.args(["__node", "--admin", "127.0.0.1:0", "--data"]);
        command.arg(&self.data).args(&self.args);
        if !self.args.iter().any(|arg| arg == "--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        // The binary ends when this pipe does: no daemon outlives its tests.
        command
            .env("CLOISTER_TEST_STDIN", "1")
            .stdin(Stdio::piped());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        let stdout = self
            .stdout
            .as_ref()
            .map(|file| std::fs::File::create(file).unwrap());
        command
            .stdout(stdout.map_or_else(Stdio::null, Stdio::from))
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        let log = Arc::new(Log::default());
        let lines = BufReader::new(child.stderr.take().unwrap()).split(b'\n');
        let keep = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                keep.lock()
                    .unwrap()
                    .push(String::from_utf8_lossy(&line).into_owned());
            }
        });
        LOGS.lock()
            .unwrap()
            .push((child.id(), Arc::downgrade(&log)));
        print_logs_on_panic();
        (child, log)
    }

    /// Starts the daemon and waits until it serves.
    ///
    /// # Panics
    /// When it ends instead, or does neither in time.
    pub async fn node(self) -> Node {
        match self.try_node().await {
            Ok(node) => node,
            Err(ended) => panic!("the node ended with {}: {}", ended.status, ended.said),
        }
    }

    /// Starts the daemon and waits until it serves.
    ///
    /// # Errors
    /// When it ends instead.
    ///
    /// # Panics
    /// When it does neither in time.
    pub async fn try_node(self) -> Result<Node, Ended> {
        // A file that an earlier daemon left tells nothing about this one.
        let endpoints = self.data.join("endpoints.json");
        let old = std::fs::read(&endpoints).ok();
        let written = std::fs::metadata(&endpoints)
            .and_then(|m| m.modified())
            .ok();
        let (mut child, log) = self.spawn();
        let data = self.seen_by(child.id());
        let endpoints = data.join("endpoints.json");
        let begin = Instant::now();
        let found = loop {
            if let Some(status) = child.try_wait().unwrap() {
                // The reader of its standard error needs a moment to the end of it.
                tokio::time::sleep(Duration::from_millis(200)).await;
                let said = log.lock().unwrap().join("\n");
                return Err(Ended { status, said });
            }
            // The time first: a daemon that starts removes the file, and what was read before that is not its own.
            let changed = std::fs::metadata(&endpoints)
                .and_then(|m| m.modified())
                .ok();
            let now = std::fs::read(&endpoints).ok();
            let fresh = now != old || changed != written;
            let found = now
                .filter(|_| fresh)
                .and_then(|b| serde_json::from_slice(&b).ok());
            if let Some(found) = found {
                break found;
            }
            assert!(
                begin.elapsed() < SOON,
                "waited {SOON:?} in vain for {}",
                endpoints.display()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let found: serde_json::Value = found;
        let address = |name: &str| found[name].as_str().unwrap().parse::<SocketAddr>().unwrap();
        let token = std::fs::read_to_string(data.join("admin-token")).unwrap();
        let token = token.trim().to_owned();
        Ok(Node {
            listen: address("listen"),
            admin: Admin {
                addr: address("admin"),
                token,
            },
            listen_tls: found["listen_tls"]
                .as_str()
                .map(|text| text.parse().unwrap()),
            metrics: found["metrics"].as_str().map(|text| text.parse().unwrap()),
            child,
            log,
            start: self,
            data,
        })
    }

    /// Starts a daemon that is to end by itself with a failure, and gives what it said.
    ///
    /// # Panics
    /// When it serves.
    pub async fn refused(self) -> Ended {
        match self.try_node().await {
            Ok(node) => panic!("the node serves on {}", node.listen),
            Err(ended) => {
                assert!(!ended.status.success(), "{ended:?}");
                assert!(!ended.said.contains("panicked"), "{}", ended.said);
                ended
            }
        }
    }
}

impl Node {
    /// Starts a daemon on a fresh data folder: see [`Start::new`].
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start(exe: &str) -> Self {
        Start::new(exe).node().await
    }

    /// The daemon's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its data folder, as the test can reach it.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// What the daemon and its workers wrote to standard error so far.
    ///
    /// # Panics
    /// When a reader panicked.
    #[must_use]
    pub fn said(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// A deploy for the default tenant unless told otherwise: `.done().await` ends it.
    #[must_use]
    pub fn deploy<'a>(&'a self, app: &str, component: &'a [u8]) -> Deploy<'a> {
        self.admin.deploy(app, component)
    }

    /// `GET`s a path of an app of the default tenant, over a connection of its own.
    ///
    /// # Panics
    /// When there is no whole answer in time.
    pub async fn get(&self, app: &str, path: &str) -> Answer {
        let what = format!("the answer to GET {path} of {app}");
        within(Duration::from_secs(100), &what, self.try_get(app, path))
            .await
            .unwrap_or_else(|error| panic!("{what}: {error:#}"))
    }

    /// `GET`s a path of an app of the default tenant, over a connection of its own.
    ///
    /// # Errors
    /// When there is no whole answer: the connection or the body was cut.
    pub async fn try_get(&self, app: &str, path: &str) -> anyhow::Result<Answer> {
        client::get(self.listen, &format!("{app}.localhost"), path).await
    }

    /// Waits until an app answers 200 to `GET /hello`, as it does again after its VM was lost.
    ///
    /// # Panics
    /// When it does not in time.
    pub async fn served_again(&self, app: &str, limit: Duration) {
        let what = format!("{app} to answer again");
        until(limit, &what, || async {
            let answer = self.try_get(app, "/hello").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
    }

    /// Lines of an app's log, of the default tenant, that hold `text`; waits until there are `count`.
    ///
    /// # Panics
    /// When there are not, in time.
    pub async fn logged(&self, app: &str, text: &str, count: usize) -> Vec<serde_json::Value> {
        let path = format!("/v1/tenants/default/apps/{app}/logs?tail=10000");
        let what = format!("{count} lines with {text:?} in the log of {app}");
        until(SOON, &what, || async {
            let answer = self
                .admin
                .call("GET", &path, "application/json", client::empty())
                .await;
            let text_of = answer.text();
            let lines = text_of
                .lines()
                .map(|line| serde_json::from_str(line).unwrap());
            let found: Vec<serde_json::Value> = lines
                .filter(|line: &serde_json::Value| {
                    line["line"].as_str().is_some_and(|l| l.contains(text))
                })
                .collect();
            (found.len() >= count).then_some(found)
        })
        .await
    }

    /// Asks the daemon to end, and waits for it.
    ///
    /// # Panics
    /// When it does not end in time.
    pub async fn terminate(&mut self) -> ExitStatus {
        process::terminate(self.pid());
        self.ended(SOON).await
    }

    /// Waits for the daemon's end.
    ///
    /// # Panics
    /// When it does not end in time.
    pub async fn ended(&mut self, limit: Duration) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                begin.elapsed() < limit,
                "waited {limit:?} in vain for the node's end"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Kills the daemon at once, and gives what starts it again on the same data.
    ///
    /// # Panics
    /// When it cannot be killed.
    #[must_use]
    pub fn kill(mut self) -> Start {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.start.clone()
    }

    /// Ends the daemon as an operator does, and gives what starts it again on the same data.
    ///
    /// # Panics
    /// When it does not end, or not well.
    pub async fn stop(mut self) -> Start {
        let status = self.terminate().await;
        assert!(
            status.success(),
            "the node ended with {status}: {}",
            self.said()
        );
        self.start.clone()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes a test that fails print what its nodes wrote.
fn print_logs_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            before(info);
            let Ok(logs) = LOGS.try_lock() else { return };
            for (pid, log) in logs
                .iter()
                .filter_map(|(pid, log)| Some((pid, log.upgrade()?)))
            {
                if let Ok(lines) = log.try_lock() {
                    eprintln!("--- the end of what node {pid} wrote");
                    for line in lines.iter().skip(lines.len().saturating_sub(TAIL)) {
                        eprintln!("{line}");
                    }
                }
            }
        }));
    });
}
