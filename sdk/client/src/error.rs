//! What can go wrong between a client and a node, and whose turn it is then.

use std::path::PathBuf;

use platform_model::Problem;

/// An operation did not happen, or its answer did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL of the node cannot be used.
    #[error("{url:?} is not the URL of a node ({reason}): give one such as http://127.0.0.1:7381")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The token has characters that no token has.
    #[error(
        "the token has characters that cannot be sent: it is the one line of the node's file admin-token"
    )]
    Token,
    /// The HTTP client itself could not be made.
    #[error("the HTTP client cannot be made")]
    Setup(#[source] reqwest::Error),
    /// Nothing answers at the URL.
    #[error("no node answers at {url}: is it running, and is that the address of its admin API?")]
    Unreachable {
        /// The node's URL.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The connection ended before the answer was complete. Whether the operation happened is not known.
    #[error(
        "the connection to {url} broke before the answer was complete: look at the node's own log"
    )]
    Interrupted {
        /// The node's URL.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The answer did not come in time. Whether the operation happened is not known.
    #[error("no answer from {url} in time: the node is busy, or it hangs")]
    Timeout {
        /// The node's URL.
        url: String,
    },
    /// The node refused the operation and said why.
    #[error("{}", .0.detail)]
    Refused(Box<Problem>),
    /// Whatever answers is not a node of this version.
    #[error(
        "{url} answered {status} with something that is not of the admin API ({reason}): is that the address of a node's admin API?"
    )]
    Unexpected {
        /// The URL that was asked.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The component cannot be read.
    #[error("cannot read {}", path.display())]
    Component {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not one that can be uploaded.
    #[error("{} is {what}, not a file with a component", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
}

impl ClientError {
    /// The node's explanation, where it gave one.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            _ => None,
        }
    }

    /// The HTTP status of the answer, where there was one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused(problem) => Some(problem.status),
            Self::Unexpected { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether what was named does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(problem) if problem.status == 404)
    }

    /// Whether the token is missing, wrong or not enough.
    #[must_use]
    pub fn is_auth(&self) -> bool {
        // A quota is no question of the token, though its status is the same.
        let quota = self
            .problem()
            .is_some_and(|problem| problem.code == "quota-exceeded");
        matches!(self, Self::Token) || matches!(self.status(), Some(401 | 403)) && !quota
    }

    /// Whether the node could not be reached, or went away.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Interrupted { .. } | Self::Timeout { .. }
        )
    }
}
