//! A line that a component wrote, as it is stored and given out: one JSON object a line.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::DeploymentId;

/// Where a line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// The component's standard output.
    Stdout,
    /// The component's standard error.
    Stderr,
    /// The node itself: lines that were dropped, a trap, a VM that was restored.
    System,
}

/// One line of an app's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// When it reached the node.
    #[serde(with = "time::serde::rfc3339")]
    pub time: OffsetDateTime,
    /// The deployment that wrote it.
    pub deployment: DeploymentId,
    /// The id of the request during which it was written, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Where it comes from.
    pub stream: LogStream,
    /// The text without its line end. Bytes that are not UTF-8 are replaced.
    pub line: String,
}
