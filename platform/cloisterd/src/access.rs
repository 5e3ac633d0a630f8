//! The access log: where requests are told of when they have ended.
//!
//! Into the log of their app, and as one JSON object a line to standard output. The latter has a thread and a bounded
//! queue of its own: a pipe that nobody reads holds up neither requests nor logs.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Builder;

use platform_control::logs::Logs;
use platform_data::{AccessRecord, LogRecord, LogSink};
use platform_model::{Access, AppName, DeploymentId, TenantName};
use serde::Serialize;
use time::OffsetDateTime;

use crate::options::AccessLog;

/// Lines that wait for standard output.
const QUEUE: usize = 4096;

/// Hands output to the logs, and requests to wherever they are wanted.
#[derive(Debug)]
pub(crate) struct Sinks {
    logs: Logs,
    to_app: bool,
    stdout: Option<Lines>,
}

impl Sinks {
    /// # Errors
    /// When no thread can be made.
    pub(crate) fn new(logs: Logs, access: AccessLog) -> io::Result<Self> {
        let stdout = match access {
            AccessLog::Stdout | AccessLog::Both => Some(Lines::start(io::stdout())?),
            AccessLog::Off | AccessLog::App => None,
        };
        Ok(Self {
            logs,
            to_app: matches!(access, AccessLog::App | AccessLog::Both),
            stdout,
        })
    }
}

impl LogSink for Sinks {
    fn write(&self, record: LogRecord<'_>) {
        self.logs.write(record);
    }

    fn access(&self, record: AccessRecord<'_>) {
        if self.to_app {
            self.logs.access(record);
        }
        if let Some(stdout) = &self.stdout {
            stdout.take(record);
        }
    }
}

/// One line.
#[derive(Debug, Serialize)]
struct Line {
    #[serde(with = "time::serde::rfc3339")]
    time: OffsetDateTime,
    tenant: TenantName,
    app: AppName,
    deployment: DeploymentId,
    request: String,
    #[serde(flatten)]
    access: Access,
}

/// Lines on their way to a writer.
#[derive(Debug)]
struct Lines {
    queue: SyncSender<Line>,
    dropped: Arc<AtomicU64>,
}

impl Lines {
    fn start(writer: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, lines) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&dropped);
        Builder::new()
            .name("access".to_owned())
            .spawn(move || write(&lines, &told, writer))?;
        Ok(Self { queue, dropped })
    }

    fn take(&self, record: AccessRecord<'_>) {
        let line = Line {
            time: OffsetDateTime::now_utc(),
            tenant: record.tenant.clone(),
            app: record.app.clone(),
            deployment: record.deployment,
            request: record.request.to_owned(),
            access: record.to_access(),
        };
        if self.queue.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Writes lines until nobody sends any, or the writer fails.
fn write(lines: &Receiver<Line>, dropped: &AtomicU64, writer: impl Write) {
    let mut writer = BufWriter::new(writer);
    while let Ok(first) = lines.recv() {
        for line in std::iter::once(first).chain(lines.try_iter().take(QUEUE)) {
            // Times of now, numbers and texts are always JSON.
            let mut json = serde_json::to_vec(&line).unwrap_or_default();
            json.push(b'\n');
            if let Err(error) = writer.write_all(&json) {
                return tracing::warn!(%error, "the access log on standard output ends");
            }
        }
        if let Err(error) = writer.flush() {
            return tracing::warn!(%error, "the access log on standard output ends");
        }
        let dropped = dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            tracing::warn!(
                dropped,
                "requests are missing in the access log on standard output: it is read too slowly"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::time::Duration;

    use super::*;

    fn record<'a>(tenant: &'a TenantName, app: &'a AppName) -> AccessRecord<'a> {
        AccessRecord {
            tenant,
            app,
            deployment: DeploymentId(3),
            request: "r-1",
            method: "GET",
            path: "/a\"b",
            status: Some(200),
            complete: true,
            bytes_in: 1,
            bytes_out: 2,
            duration: Duration::from_micros(3),
            client: "192.0.2.1",
            untold: 0,
        }
    }

    #[test]
    fn a_line_has_everything_flat() {
        let (reader, writer) = io::pipe().unwrap();
        let lines = Lines::start(writer).unwrap();
        let (tenant, app) = ("acme".parse().unwrap(), "shop".parse().unwrap());
        lines.take(record(&tenant, &app));
        let mut line = String::new();
        BufReader::new(reader).read_line(&mut line).unwrap();
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        for (name, value) in [
            ("tenant", "acme".into()),
            ("app", "shop".into()),
            ("deployment", 3.into()),
            ("request", "r-1".into()),
            ("method", "GET".into()),
            ("path", "/a\"b".into()),
            ("status", 200.into()),
            ("duration_us", 3.into()),
            ("client", serde_json::Value::from("192.0.2.1")),
        ] {
            assert_eq!(json[name], value, "{line}");
        }
    }

    #[test]
    fn a_pipe_that_nobody_reads_blocks_nobody() {
        let (reader, writer) = io::pipe().unwrap();
        let lines = Lines::start(writer).unwrap();
        let (tenant, app) = ("acme".parse().unwrap(), "shop".parse().unwrap());
        for _ in 0..QUEUE * 3 {
            lines.take(record(&tenant, &app));
        }
        assert!(lines.dropped.load(Ordering::Relaxed) > 0);
        drop(reader);
    }
}
