//! A line of an app's log, as it is stored and given out: one JSON object a line.

use std::fmt;
use std::str::FromStr;

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
    /// A request that was answered.
    Access,
}

impl LogStream {
    /// Every stream.
    pub const ALL: [Self; 4] = [Self::Stdout, Self::Stderr, Self::System, Self::Access];

    /// The word for it in JSON and on command lines.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::System => "system",
            Self::Access => "access",
        }
    }
}

impl fmt::Display for LogStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a text names no stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no stream: give stdout, stderr, system or access, or several with commas between them"
)]
pub struct LogStreamError(String);

impl FromStr for LogStream {
    type Err = LogStreamError;

    fn from_str(text: &str) -> Result<Self, LogStreamError> {
        let known = Self::ALL.into_iter().find(|stream| stream.as_str() == text);
        known.ok_or_else(|| LogStreamError(text.chars().take(40).collect()))
    }
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
    /// What `line` says of a request, for programs; with the stream `access` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
}

/// A request that was answered, or whose client went away before it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Access {
    /// The method.
    pub method: String,
    /// The path, without the query: queries hold what is nobody else's business.
    pub path: String,
    /// The status of the answer; none where the client went away before there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Whether the whole answer was handed to the connection. It was cut off otherwise.
    pub complete: bool,
    /// Bytes of the request's body that were read.
    pub bytes_in: u64,
    /// Bytes of the response's body that were handed to the connection.
    pub bytes_out: u64,
    /// From the end of the request's head to the end of the response, in microseconds.
    pub duration_us: u64,
    /// The address of the client.
    pub client: String,
}

impl fmt::Display for Access {
    /// `GET /path 200 512B 1.234ms 192.0.2.1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.method, self.path)?;
        match self.status {
            Some(status) => write!(f, "{status}")?,
            None => f.write_str("-")?,
        }
        if !self.complete {
            f.write_str(" cut off")?;
        }
        let (ms, us) = (self.duration_us / 1000, self.duration_us % 1000);
        write!(f, " {}B {ms}.{us:03}ms {}", self.bytes_out, self.client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        Access {
            method: "GET".to_owned(),
            path: "/a".to_owned(),
            status: Some(200),
            complete: true,
            bytes_in: 0,
            bytes_out: 512,
            duration_us: 1034,
            client: "192.0.2.1".to_owned(),
        }
    }

    #[test]
    fn a_request_as_text() {
        assert_eq!(access().to_string(), "GET /a 200 512B 1.034ms 192.0.2.1");
        let gone = Access {
            status: None,
            complete: false,
            ..access()
        };
        assert_eq!(gone.to_string(), "GET /a - cut off 512B 1.034ms 192.0.2.1");
    }

    #[test]
    fn json_has_only_what_there_is() {
        let line = LogLine {
            time: OffsetDateTime::UNIX_EPOCH,
            deployment: DeploymentId(1),
            request: None,
            stream: LogStream::Stdout,
            line: "x".to_owned(),
            access: None,
        };
        let json = serde_json::to_string(&line).unwrap();
        assert_eq!(
            json,
            r#"{"time":"1970-01-01T00:00:00Z","deployment":1,"stream":"stdout","line":"x"}"#
        );
        let line = LogLine {
            stream: LogStream::Access,
            access: Some(access()),
            ..line
        };
        let json = serde_json::to_string(&line).unwrap();
        assert_eq!(serde_json::from_str::<LogLine>(&json).unwrap(), line);
    }

    #[test]
    fn words_of_streams_are_those_of_json() {
        for stream in LogStream::ALL {
            let json = serde_json::to_string(&stream).unwrap();
            assert_eq!(json, format!("\"{stream}\""));
            assert_eq!(stream.as_str().parse(), Ok(stream));
        }
        assert!("STDOUT".parse::<LogStream>().is_err());
    }
}
