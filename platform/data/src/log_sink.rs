//! Where the output of components goes, and what is told of their requests: the border to whoever stores it.

use std::time::Duration;

use platform_model::{Access, AppName, DeploymentId, LogStream, TenantName};

/// Longest path that is told of, in bytes; a longer one is cut.
const MAX_PATH: usize = 1024;

/// Bytes that a component wrote, or a line of the node about it. Not split into lines.
#[derive(Debug, Clone, Copy)]
pub struct LogRecord<'a> {
    /// The tenant.
    pub tenant: &'a TenantName,
    /// The app.
    pub app: &'a AppName,
    /// The deployment.
    pub deployment: DeploymentId,
    /// The id of the request that wrote it; none outside of a request.
    pub request: Option<&'a str>,
    /// Standard output, standard error, or the node itself.
    pub stream: LogStream,
    /// What was written, at most 128 KiB: any bytes, lines cut anywhere. Lines of the node are whole, without line end.
    pub bytes: &'a [u8],
    /// The deployment's limit: bytes of a line, beyond which it becomes several.
    pub line_bytes: u32,
}

/// A request that ended.
#[derive(Debug, Clone, Copy)]
pub struct AccessRecord<'a> {
    /// The tenant.
    pub tenant: &'a TenantName,
    /// The app.
    pub app: &'a AppName,
    /// The deployment that answered.
    pub deployment: DeploymentId,
    /// The id of the request.
    pub request: &'a str,
    /// The method.
    pub method: &'a str,
    /// The path, without the query.
    pub path: &'a str,
    /// The status of the answer; none where the client went away before there was one.
    pub status: Option<u16>,
    /// Whether the whole answer was handed to the connection.
    pub complete: bool,
    /// Bytes of the request's body that were read.
    pub bytes_in: u64,
    /// Bytes of the response's body that were handed to the connection.
    pub bytes_out: u64,
    /// From the end of the request's head to the end of the response.
    pub duration: Duration,
    /// The address of the client.
    pub client: &'a str,
    /// Requests of the deployment that ended before this one and were not told of, as there were too many.
    pub untold: u64,
}

impl AccessRecord<'_> {
    /// What a line of the log says.
    #[must_use]
    pub fn to_access(&self) -> Access {
        let end = self.path.floor_char_boundary(MAX_PATH);
        let duration = self.duration.as_micros();
        Access {
            method: self.method.to_owned(),
            path: self.path.get(..end).unwrap_or_default().to_owned(),
            status: self.status,
            complete: self.complete,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            duration_us: u64::try_from(duration).unwrap_or(u64::MAX),
            client: self.client.to_owned(),
        }
    }
}

/// Takes the output of components, and what is told of their requests.
///
/// Called from the task that serves a VM or a connection: an implementation copies what it needs and returns at once.
/// What it has no room for it drops.
pub trait LogSink: Send + Sync + 'static {
    /// Takes one record of output.
    fn write(&self, record: LogRecord<'_>);

    /// Takes one request that ended. By default nobody wants to know.
    fn access(&self, record: AccessRecord<'_>) {
        let _ = record;
    }
}

/// Forgets everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoLogs;

impl LogSink for NoLogs {
    fn write(&self, _: LogRecord<'_>) {}
}
