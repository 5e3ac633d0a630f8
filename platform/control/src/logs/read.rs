//! Reading an app's log: what was written, and what comes.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use platform_model::LogLine;
use tokio::sync::broadcast;

use super::file::{CURRENT, PREVIOUS};

/// What an app's log had when it was opened.
#[derive(Debug, Default)]
pub struct History {
    /// The files, the older first, and how much of each is to be read.
    files: Vec<(File, u64)>,
}

impl History {
    /// Opens the files of a log as they are now; what is written or moved afterwards does not change them.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let mut files = Vec::new();
        for name in [PREVIOUS, CURRENT] {
            match File::open(folder.join(name)) {
                Ok(file) => {
                    let length = file.metadata()?.len();
                    files.push((file, length));
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Self { files })
    }

    /// The last `tail` lines as they are stored, one JSON object a line. Waits for the disk: call it where blocking
    /// is allowed.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn last_lines(self, tail: usize) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        for (file, length) in self.files {
            file.take(length).read_to_end(&mut content)?;
        }
        // What a node that was killed left of a line is no JSON.
        let whole = |line: &&[u8]| serde_json::from_slice::<LogLine>(line).is_ok();
        let mut lines: Vec<&[u8]> = content
            .split_inclusive(|byte| *byte == b'\n')
            .rev()
            .filter(|line| line.ends_with(b"\n"))
            .filter(whole)
            .take(tail)
            .collect();
        lines.reverse();
        Ok(lines.concat())
    }
}

/// Gives an app's lines as they are written.
#[derive(Debug)]
pub struct Follower {
    pub(super) lines: broadcast::Receiver<Arc<[u8]>>,
}

impl Follower {
    /// The next line as it is stored. A follower that is too slow misses lines: those go on being stored. None when
    /// the app is deleted or the node stops.
    pub async fn next(&mut self) -> Option<Arc<[u8]>> {
        loop {
            match self.lines.recv().await {
                Ok(line) => return Some(line),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}
