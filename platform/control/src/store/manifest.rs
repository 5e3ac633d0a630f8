//! `state.json` beside the database: which format the state has, and how many writes were acknowledged.
//!
//! The database alone cannot tell a file that lost its end from one that never had it: it would open at an earlier
//! state and forget deployments in silence. So each write counts up a number in the database, and the number that was
//! reached is kept here as well. A database that is behind this file has lost writes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::data_dir;

/// The format that this version writes, and the newest that it reads.
pub const FORMAT: u32 = 2;

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A newer node wrote it.
    #[error("the state in {} has format {found}, this cloisterd knows formats up to {FORMAT}: use the newer cloisterd that wrote it", .path.display())]
    Newer {
        /// Its folder.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// It is not what was written.
    #[error("the state in {} is damaged ({why}): restore that folder from a backup, or move it away to start with an empty node and deploy the apps again", .path.display())]
    Damaged {
        /// Its folder.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The system does not let it be read or written.
    #[error("cannot open the state in {}: see to it that cloisterd's user may write there and that the disk has room", .path.display())]
    Io {
        /// Its folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The content of `state.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// Format of the whole state.
    pub(super) format: u32,
    /// Writes that the database has at the least.
    pub(super) commits: u64,
}

/// The file, in the store's folder.
fn path(folder: &Path) -> PathBuf {
    folder.join("state.json")
}

impl Manifest {
    /// Reads the file; none where there is no state yet.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>, OpenError> {
        /// What every format has.
        #[derive(Deserialize)]
        struct AnyFormat {
            format: u32,
        }
        let damaged = |e: serde_json::Error| OpenError::Damaged {
            path: folder.to_owned(),
            why: format!("state.json: {e}"),
        };
        let text = match fs::read(path(folder)) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                let path = folder.to_owned();
                return Err(OpenError::Io { path, source });
            }
        };
        let AnyFormat { format } = serde_json::from_slice(&text).map_err(damaged)?;
        if format > FORMAT {
            return Err(OpenError::Newer {
                path: folder.to_owned(),
                found: format,
            });
        }
        serde_json::from_slice(&text).map(Some).map_err(damaged)
    }

    /// Writes the new file beside the old one: what can run out of room is done with this.
    pub(super) fn stage(self, folder: &Path) -> io::Result<PathBuf> {
        let text = serde_json::to_vec(&self)?;
        data_dir::stage_file(&path(folder), &text, 0o600)
    }

    /// Puts what [`Manifest::stage`] wrote in the place of the old file.
    pub(super) fn publish(staged: &Path, folder: &Path) -> io::Result<()> {
        data_dir::publish_file(staged, &path(folder))
    }
}
