//! Where the output of components goes: the border to whoever stores it.

use platform_model::{AppName, DeploymentId, LogStream, TenantName};

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
}

/// Takes the output of components.
///
/// Called from the task that serves a VM: an implementation copies what it needs and returns at once. What it has no
/// room for it drops.
pub trait LogSink: Send + Sync + 'static {
    /// Takes one record.
    fn write(&self, record: LogRecord<'_>);
}

/// Forgets everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoLogs;

impl LogSink for NoLogs {
    fn write(&self, _: LogRecord<'_>) {}
}
