//! A node to test, and a client that says exactly the bytes that it is given.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use platform_data::{
    AccessRecord, DataConfig, DataPlane, LogRecord, LogSink, Observe, RouteTable, Target,
};
use platform_model::{Access, Digest, Isolation, Limits, Scale};

/// Keeps what is logged.
#[derive(Default)]
pub struct Logs(
    pub Mutex<Vec<(Option<String>, String)>>,
    pub Mutex<Vec<(String, Access)>>,
);

impl LogSink for Logs {
    fn write(&self, record: LogRecord<'_>) {
        let line = (
            record.request.map(str::to_owned),
            String::from_utf8_lossy(record.bytes).into_owned(),
        );
        self.0.lock().unwrap().push(line);
    }

    fn access(&self, record: AccessRecord<'_>) {
        let line = (record.request.to_owned(), record.to_access());
        self.1.lock().unwrap().push(line);
    }
}

/// A data plane with the apps that were asked for.
pub struct Node {
    pub runtime: tokio::runtime::Runtime,
    pub plane: DataPlane,
    pub logs: Arc<Logs>,
    folder: tempfile::TempDir,
    table: Mutex<RouteTable>,
}

impl Node {
    /// A node without apps.
    pub fn new() -> Self {
        Self::seen(Observe::default())
    }

    /// A node without apps, whose requests are seen so.
    pub fn seen(observe: Observe) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let logs = Arc::new(Logs::default());
        let sink: Arc<dyn LogSink> = Arc::<Logs>::clone(&logs);
        let config = DataConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            listen_tls: Some("127.0.0.1:0".parse().unwrap()),
            worker: std::env::current_exe().unwrap(),
            logs: sink,
            observe,
            templates: None,
        };
        let plane = runtime
            .block_on(async { DataPlane::start(config) })
            .unwrap();
        Node {
            runtime,
            plane,
            logs,
            folder: tempfile::tempdir().unwrap(),
            table: Mutex::default(),
        }
    }

    /// A node with the app `app.localhost` of the default tenant.
    pub fn with_app(limits: Limits) -> Self {
        Self::seen_with_app(limits, Observe::default())
    }

    /// A node with the app `app.localhost` of the default tenant, whose requests are seen so.
    pub fn seen_with_app(limits: Limits, observe: Observe) -> Self {
        let node = Self::seen(observe);
        let target = node.target("default", "app", 1, limits, &["127.0.0.1"], "");
        node.publish("app.localhost", target);
        node
    }

    /// A target whose artifact holds `text`.
    pub fn target(
        &self,
        tenant: &str,
        app: &str,
        deployment: u64,
        limits: Limits,
        allow: &[&str],
        text: &str,
    ) -> Arc<Target> {
        let artifact = self
            .folder
            .path()
            .join(format!("{tenant}-{app}-{deployment}"));
        std::fs::write(&artifact, text).unwrap();
        Arc::new(Target {
            tenant: tenant.parse().unwrap(),
            app: app.parse().unwrap(),
            deployment: platform_model::DeploymentId(deployment),
            artifact,
            digest: Digest::from_sha256([0; 32]),
            env: BTreeMap::new(),
            allow_hosts: allow.iter().map(|host| host.parse().unwrap()).collect(),
            limits,
            isolation: Isolation::default(),
            scale: Scale::default(),
        })
    }

    /// Leads a host to a target, beside those that are there.
    pub fn publish(&self, host: &str, target: Arc<Target>) {
        self.route(|table| table.insert(host, target));
    }

    /// Changes the table and publishes it.
    pub fn route(&self, change: impl FnOnce(&mut RouteTable)) {
        let mut table = self.table.lock().unwrap();
        change(&mut table);
        let _runtime = self.runtime.enter();
        self.plane.publish(table.clone());
    }

    pub fn address(&self) -> SocketAddr {
        self.plane.local_addr()
    }

    /// A connection.
    pub fn connect(&self) -> Connection {
        Connection::new(self.address())
    }

    /// The answer to a GET of `app.localhost`, on a connection of its own.
    pub fn get(&self, path: &str) -> Answer {
        self.get_at("app.localhost", path)
    }

    /// The answer to a GET.
    pub fn get_at(&self, host: &str, path: &str) -> Answer {
        let mut connection = self.connect();
        connection.say(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        connection.answer("GET")
    }

    /// The answer to bytes, on a connection of their own.
    pub fn raw(&self, bytes: &str) -> Answer {
        let mut connection = self.connect();
        connection.say(bytes);
        connection.answer("GET")
    }
}

/// A client's connection.
pub struct Connection {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

/// A response.
#[derive(Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// The connection ended before the response did.
    pub cut: bool,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
            .collect()
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// The code of the problem that it is.
    pub fn code(&self) -> String {
        assert_eq!(
            self.field("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let problem: platform_model::Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem.status, self.status);
        problem.code
    }
}

impl Connection {
    pub fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        stream.set_nodelay(true).unwrap();
        Connection {
            stream,
            buffer: Vec::new(),
        }
    }

    pub fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    fn more(&mut self) -> bool {
        let mut piece = [0; 65536];
        match self.stream.read(&mut piece) {
            Ok(0) => false,
            Ok(count) => {
                self.buffer.extend_from_slice(&piece[..count]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            // A child that ends sends a signal.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => true,
            Err(error) => panic!("nothing came: {error}"),
        }
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                return Some(line);
            }
            if !self.more() {
                return None;
            }
        }
    }

    fn fields(&mut self) -> Option<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Some(fields);
            }
            let (name, value) = line.split_once(':').unwrap();
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            if !self.more() {
                return None;
            }
        }
        Some(self.buffer.drain(..count).collect())
    }

    /// The head of the next response, interim ones too.
    pub fn head(&mut self) -> Option<Answer> {
        let line = self.line()?;
        let status = line
            .split(' ')
            .nth(1)
            .unwrap_or_else(|| panic!("no status line: {line}"))
            .parse()
            .unwrap();
        let fields = self.fields()?;
        Some(Answer {
            status,
            fields,
            ..Answer::default()
        })
    }

    /// The next response, read as the rules of HTTP say.
    pub fn answer(&mut self, method: &str) -> Answer {
        let Some(mut answer) = self.head() else {
            return Answer {
                cut: true,
                ..Answer::default()
            };
        };
        if method == "HEAD" || answer.status == 204 || answer.status == 304 || answer.status < 200 {
            return answer;
        }
        if answer.field("transfer-encoding") == Some("chunked") {
            answer.cut = self.chunks(&mut answer).is_none();
        } else if let Some(length) = answer
            .field("content-length")
            .map(|length| length.parse::<usize>().unwrap())
        {
            match self.exactly(length) {
                Some(body) => answer.body = body,
                None => answer.cut = true,
            }
        } else {
            while self.more() {}
            answer.body = std::mem::take(&mut self.buffer);
        }
        answer
    }

    fn chunks(&mut self, answer: &mut Answer) -> Option<()> {
        loop {
            let size = usize::from_str_radix(&self.line()?, 16).unwrap();
            if size == 0 {
                answer.trailers = self.fields()?;
                return Some(());
            }
            answer.body.extend(self.exactly(size)?);
            self.exactly(2)?;
        }
    }

    /// Whether the server closes without saying more.
    pub fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.more()
    }
}

/// Waits until something is so.
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "not within 20 s: {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}
