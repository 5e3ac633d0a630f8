//! Errors of the command line, how they are shown and the exit codes.

use std::path::PathBuf;
use std::process::ExitCode;

use platform_control::check::CheckError;
use platform_model::Problem;
use platform_model::api::DeployRequestError;
use platform_model::token::TokenRequestError;
use sdk_client::ClientError;

use crate::credentials::CredentialsError;
use crate::manifest::ManifestError;
use crate::quickstart::QuickstartError;
use crate::terminal::{Terminal, Tone, printable};

/// The exit codes. They are stable: scripts may rely on them.
pub mod exit {
    /// What was asked for is done.
    pub const OK: u8 = 0;
    /// It failed in a way that has no code of its own.
    pub const FAILURE: u8 = 1;
    /// The command line is wrong.
    pub const USAGE: u8 = 2;
    /// The app, tenant or deployment does not exist.
    pub const NOT_FOUND: u8 = 3;
    /// The token is missing, wrong or not enough.
    pub const AUTH: u8 = 4;
    /// The node does not answer.
    pub const UNREACHABLE: u8 = 5;
    /// The node refused: the component, a name, a limit or the state of things does not allow it.
    pub const REFUSED: u8 = 6;
    /// This host cannot run a node: see `cloister doctor`.
    pub const HOST: u8 = 7;

    /// The table that `--help` shows.
    pub const HELP: &str = "\
Exit codes:
  0  done
  1  failed
  2  the command line is wrong
  3  no such app, tenant or deployment
  4  the token is missing, wrong or not enough
  5  the node does not answer
  6  the node refused (component, name, limit or state)
  7  this host cannot run a node (see `cloister doctor`)";
}

/// A command did not do what was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The node, or the way to it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The token's file cannot be read.
    #[error("cannot read the token in {}", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file that was named cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The tokens that `login` keeps.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// Standard input cannot be read.
    #[error("cannot read standard input")]
    Input(#[source] std::io::Error),
    /// Standard input has no value that can be used.
    #[error("{0}")]
    NoValue(String),
    /// The token that is to be made cannot be.
    #[error("{0}")]
    Token(#[from] TokenRequestError),
    /// What is to be deployed cannot be.
    #[error("{0}")]
    Request(#[from] DeployRequestError),
    /// The manifest, or what it names.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The async runtime cannot be started.
    #[error("the async runtime cannot be started")]
    Runtime(#[source] std::io::Error),
    /// Standard output cannot be written.
    #[error("cannot write the output")]
    Output(#[source] std::io::Error),
    /// A value cannot be written as JSON.
    #[error("cannot write the output as JSON")]
    Json(#[from] serde_json::Error),
    /// Checks of `doctor` failed; they are on standard output already.
    #[error("{0} of the checks failed: this host cannot run a node as it is")]
    Doctor(usize),
    /// The data of a node cannot be looked at.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The data of a node is not as it should be; what was found is on standard output already.
    #[error("{0} thing(s) are not as they should be: restore the folder from a backup")]
    Store(usize),
    /// Quickstart.
    #[error(transparent)]
    Quickstart(QuickstartError),
}

impl From<QuickstartError> for CliError {
    /// What quickstart's own node says is told as what any node says.
    fn from(error: QuickstartError) -> Self {
        match error {
            QuickstartError::Client(error) => Self::Client(error),
            QuickstartError::Output(error) => Self::Output(error),
            other => Self::Quickstart(other),
        }
    }
}

impl CliError {
    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Client(error) => client_code(error),
            Self::TokenFile { .. } | Self::Credentials(_) => exit::AUTH,
            Self::Manifest(ManifestError::Build { .. } | ManifestError::Write { .. }) => {
                exit::FAILURE
            }
            Self::Manifest(ManifestError::Secrets { .. }) => exit::REFUSED,
            Self::Request(_) | Self::Manifest(_) | Self::Token(_) | Self::NoValue(_) => exit::USAGE,
            Self::Doctor(_) => exit::HOST,
            Self::Quickstart(QuickstartError::Host(_)) => exit::HOST,
            Self::Quickstart(_)
            | Self::Check(_)
            | Self::Store(_)
            | Self::Input(_)
            | Self::File { .. }
            | Self::Runtime(_)
            | Self::Output(_)
            | Self::Json(_) => exit::FAILURE,
        }
    }

    /// What to do next, where the message does not say it.
    fn hint(&self) -> Option<String> {
        let Self::Client(error) = self else {
            return None;
        };
        let code = error.problem().map(|problem| problem.code.as_str());
        let text = match code.unwrap_or_default() {
            "scope-insufficient" | "role-insufficient" => {
                "`cloister whoami` shows what the token may; whoever administers the node or the tenant makes another with `cloister token create`"
            }
            "tenant-not-found" => {
                "`cloister tenant list` lists the tenants, `cloister tenant create` creates one; both take a token of the node"
            }
            "token-not-found" => "`cloister token list` has the ids",
            "secret-not-found" => "`cloister secret list` has the names",
            "domain-not-found" => "`cloister domain list` lists the domains of the tenant",
            "domain-proof-failed" => {
                "`cloister domain show` has what proves it; a record that is new may take a while to be seen"
            }
            "quota-exceeded" => "`cloister tenant quotas` shows what there is, and changes it",
            _ => Self::hint_by_exit(error)?,
        };
        Some(text.to_owned())
    }

    /// What to do next, by the exit code.
    fn hint_by_exit(error: &ClientError) -> Option<&'static str> {
        Some(match client_code(error) {
            exit::AUTH => {
                "`cloister login` keeps a token; or give the node's with --token-file DIR/admin-token or CLOISTER_TOKEN; DIR is the --data of the node"
            }
            exit::NOT_FOUND => {
                "`cloister apps` lists the apps of every tenant; --tenant names another tenant"
            }
            exit::UNREACHABLE => {
                "`cloister quickstart` starts a node here; --url or CLOISTER_URL names another (DIR/endpoints.json has its \"admin\")"
            }
            _ => return None,
        })
    }

    /// The innermost cause, where it is not the message itself.
    fn cause(&self) -> Option<String> {
        let mut error: &dyn std::error::Error = self;
        while let Some(source) = error.source() {
            error = source;
        }
        let text = error.to_string();
        (!self.to_string().contains(&text)).then_some(text)
    }

    /// The error as RFC 9457 has it: the node's own where it comes from there.
    fn problem(&self) -> Problem {
        if let Self::Client(ClientError::Refused(problem)) = self {
            return (**problem).clone();
        }
        let (code, title) = match self.code() {
            exit::USAGE => ("usage", "Wrong usage"),
            exit::AUTH => ("token", "No usable token"),
            exit::UNREACHABLE => ("node-unreachable", "The node does not answer"),
            exit::HOST => ("host-not-ready", "This host cannot run a node"),
            _ => ("failed", "The command failed"),
        };
        let detail = match self.cause() {
            Some(cause) => format!("{self} ({cause})"),
            None => self.to_string(),
        };
        let status = match self {
            Self::Client(error) => error.status().unwrap_or(0),
            _ => 0,
        };
        Problem::new(status, code, title, detail)
    }

    /// Says on standard error what went wrong, and gives the exit code. A reader of the output that went away (as in
    /// `cloister logs | head`) is no error.
    pub(crate) fn report(&self, terminal: &Terminal) -> ExitCode {
        if matches!(self, Self::Output(source) if source.kind() == std::io::ErrorKind::BrokenPipe) {
            return ExitCode::SUCCESS;
        }
        if terminal.json {
            if let Ok(json) = serde_json::to_string(&self.problem()) {
                terminal.say(&json);
            }
            return ExitCode::from(self.code());
        }
        terminal.say(&format!(
            "{} {}",
            terminal.paint_err(Tone::Bad, "error:"),
            printable(&self.to_string())
        ));
        if let Some(cause) = self.cause() {
            terminal.say(&format!("  cause: {}", printable(&cause)));
        }
        if let Self::Client(ClientError::Refused(problem)) = self {
            let request = problem
                .request_id
                .as_ref()
                .map(|id| format!(", request {id}"))
                .unwrap_or_default();
            let line = format!("  code:  {}{request}", problem.code);
            terminal.say(&terminal.paint_err(Tone::Dim, &printable(&line)));
        }
        if let Some(hint) = self.hint() {
            terminal.say(&format!(
                "  {}  {hint}",
                terminal.paint_err(Tone::Strong, "hint:")
            ));
        }
        ExitCode::from(self.code())
    }
}

/// The exit code for an error of the client.
fn client_code(error: &ClientError) -> u8 {
    match error {
        ClientError::Url { .. } => exit::USAGE,
        error if error.is_auth() => exit::AUTH,
        error if error.is_not_found() => exit::NOT_FOUND,
        error if error.is_unreachable() => exit::UNREACHABLE,
        ClientError::Refused(problem) if problem.status < 500 => exit::REFUSED,
        _ => exit::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, code: &str) -> CliError {
        let problem = Problem::new(status, code, "Title", "what happened");
        CliError::Client(ClientError::Refused(Box::new(problem)))
    }

    #[test]
    fn codes_by_status() {
        for (status, code) in [
            (400, exit::REFUSED),
            (401, exit::AUTH),
            (403, exit::AUTH),
            (404, exit::NOT_FOUND),
            (409, exit::REFUSED),
            (413, exit::REFUSED),
            (422, exit::REFUSED),
            (500, exit::FAILURE),
            (503, exit::FAILURE),
        ] {
            assert_eq!(refused(status, "x").code(), code, "{status}");
        }
        let url = ClientError::Url {
            url: "x".to_owned(),
            reason: "y".to_owned(),
        };
        assert_eq!(CliError::Client(url).code(), exit::USAGE);
        let timeout = ClientError::Timeout {
            url: "x".to_owned(),
        };
        assert_eq!(CliError::Client(timeout).code(), exit::UNREACHABLE);
        assert_eq!(CliError::Doctor(2).code(), exit::HOST);
    }

    #[test]
    fn every_code_is_in_the_help() {
        for code in exit::OK..=exit::HOST {
            assert!(exit::HELP.contains(&format!("\n  {code}  ")), "{code}");
        }
    }

    #[test]
    fn a_refusal_keeps_the_problem_of_the_node() {
        let problem = refused(409, "tenant-not-empty").problem();
        assert_eq!(
            (problem.status, problem.code.as_str()),
            (409, "tenant-not-empty")
        );
        assert_eq!(problem.detail, "what happened");
    }

    #[test]
    fn the_innermost_cause_is_told() {
        let source = std::io::Error::new(std::io::ErrorKind::NotFound, "no such file");
        let error = CliError::TokenFile {
            path: "t".into(),
            source,
        };
        assert_eq!(error.cause().as_deref(), Some("no such file"));
        assert!(error.problem().detail.ends_with("(no such file)"));
        assert_eq!(refused(404, "x").cause(), None);
        assert!(
            refused(404, "x")
                .hint()
                .is_some_and(|hint| hint.contains("cloister apps"))
        );
    }
}
