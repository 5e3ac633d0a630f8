//! The node as a child process: started, waited for, stopped.

use std::fs::{self, File};
use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use platform_model::Endpoints;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::{QuickstartError, role};
use crate::quickstart::folder::Folder;
use crate::quickstart::signals::Signals;
use crate::terminal::{Terminal, printable};

/// How long a node may take to be ready. One with no apps takes some ten milliseconds, one with many restores them.
const START: Duration = Duration::from_secs(60);

/// How often its file is looked for.
const POLL: Duration = Duration::from_millis(5);

/// How long it may take to stop: more than it gives the requests that are under way.
const STOP: Duration = Duration::from_secs(45);

/// How much of the log is shown when it ends by itself, in lines.
const LOG_LINES: usize = 12;

/// A node that runs.
#[derive(Debug)]
pub(super) struct Node {
    child: Child,
    data: PathBuf,
    log: PathBuf,
    began: Instant,
    /// What `endpoints.json` was before: a node that was killed leaves its own behind.
    old: Option<Mark>,
}

/// What a node that is ready says.
#[derive(Debug)]
pub(super) struct Ready {
    /// Where it listens.
    pub(super) endpoints: Endpoints,
    /// The token of its admin API.
    pub(super) token: String,
    /// How long it took from its start.
    pub(super) after: Duration,
}

/// What tells one file of a name from the next.
type Mark = (u64, i64, i64);

impl Node {
    /// Starts this executable as a node. It has no standard input, and its own log goes to a file.
    pub(super) fn spawn(
        folder: &Folder,
        listen: SocketAddr,
        admin: SocketAddr,
    ) -> Result<Self, QuickstartError> {
        let file = |source| QuickstartError::Folder {
            path: folder.log().to_owned(),
            source,
        };
        let log = File::create(folder.log()).map_err(file)?;
        let old = mark(&folder.data().join("endpoints.json"));
        let exe = std::env::current_exe().map_err(QuickstartError::Spawn)?;
        let began = Instant::now();
        let child = Command::new(exe)
            .args([role::NAME, &std::process::id().to_string()])
            .arg("--data")
            .arg(folder.data())
            .args([
                "--listen",
                &listen.to_string(),
                "--admin",
                &admin.to_string(),
            ])
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(file)?)
            .stderr(log)
            // Ctrl-C is for quickstart, which then stops the node.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(QuickstartError::Spawn)?;
        Ok(Self {
            child,
            data: folder.data().to_owned(),
            log: folder.log().to_owned(),
            began,
            old,
        })
    }

    /// Its process id; none after its end.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Its data folder.
    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    /// Waits until it says where it listens, or ends.
    pub(super) async fn ready(&mut self) -> Result<Ready, QuickstartError> {
        let path = self.data.join("endpoints.json");
        let old = self.old;
        let written = async {
            let mut poll = tokio::time::interval(POLL);
            loop {
                poll.tick().await;
                if mark(&path).is_some_and(|mark| Some(mark) != old) {
                    return;
                }
            }
        };
        let began = self.began;
        match tokio::time::timeout(START, self.or_end(written)).await {
            Ok(ended) => ended?,
            Err(_) => {
                return Err(QuickstartError::NotReady {
                    after: START,
                    log: self.log(),
                });
            }
        }
        let after = began.elapsed();
        // The file is put in its place whole, so it can be read as soon as it is there.
        let endpoints =
            serde_json::from_str(&read(&path)?).map_err(|source| QuickstartError::File {
                path: path.clone(),
                source,
            })?;
        let token = read(&self.data.join("admin-token"))?.trim().to_owned();
        Ok(Ready {
            endpoints,
            token,
            after,
        })
    }

    /// Does something as long as the node runs.
    pub(super) async fn or_end<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<T, QuickstartError> {
        tokio::select! {
            // What has ended well is not spoilt by a node that ends after it.
            biased;
            done = work => Ok(done),
            ended = self.ended() => Err(ended),
        }
    }

    /// Waits for the node to end by itself.
    pub(super) async fn ended(&mut self) -> QuickstartError {
        match self.child.wait().await {
            Ok(status) => QuickstartError::Ended {
                status,
                log: self.log(),
            },
            Err(error) => QuickstartError::Spawn(error),
        }
    }

    /// Asks the node to stop, and waits until requests under way are answered and it has. A signal meanwhile is passed
    /// on: the node then cuts them off.
    pub(super) async fn stop(
        mut self,
        signals: &mut Signals,
        terminal: &Terminal,
    ) -> Result<(), QuickstartError> {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            return Ok(());
        };
        let _shown = terminal.spinner("stopping the node");
        // It may have ended by itself meanwhile: waiting for it tells.
        let ask = || {
            let _ = kill_process(pid, Signal::TERM);
        };
        ask();
        let stopped = async {
            loop {
                tokio::select! {
                    status = self.child.wait() => return status,
                    () = signals.next() => ask(),
                }
            }
        };
        match tokio::time::timeout(STOP, stopped).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(self.unclean(status)),
            Ok(Err(error)) => Err(QuickstartError::Unclean(error.to_string())),
            Err(_) => {
                let _ = self.child.kill().await;
                let text = format!("it was killed after {} s", STOP.as_secs());
                Err(QuickstartError::Unclean(text))
            }
        }
    }

    fn unclean(&self, status: ExitStatus) -> QuickstartError {
        QuickstartError::Unclean(format!("{status}{}", super::log_says(&self.log())))
    }

    /// The last lines of its log, indented.
    fn log(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        let last = lines
            .get(lines.len().saturating_sub(LOG_LINES)..)
            .unwrap_or_default();
        let shown: Vec<_> = last
            .iter()
            .map(|line| format!("  | {}", printable(line)))
            .collect();
        shown.join("\n")
    }
}

fn mark(path: &Path) -> Option<Mark> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.ino(), meta.mtime(), meta.mtime_nsec()))
}

fn read(path: &Path) -> Result<String, QuickstartError> {
    fs::read_to_string(path).map_err(|source| QuickstartError::Folder {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_replaced_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let (path, next) = (folder.path().join("a"), folder.path().join("b"));
        assert_eq!(mark(&path), None);
        fs::write(&path, "same").unwrap();
        let old = mark(&path);
        assert_eq!(mark(&path), old);
        fs::write(&next, "same").unwrap();
        fs::rename(&next, &path).unwrap();
        assert_ne!(mark(&path), old);
    }
}
