//! Whether a data folder is in itself as it should be: looked at from outside, while no node runs on it.
//!
//! Every record leads where it says, what is counted is what there is, components are what they are called, and what is
//! sealed opens. It changes nothing but what opening the database itself does.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use platform_model::Secret;
use serde::Serialize;

use crate::data_dir::{DataDir, DataDirError};
use crate::keyring::{self, KeyringError};
use crate::store::{FORMAT, OpenError, Records, SledStore, StoreError};

mod files;
mod hosts;
mod records;
mod sealed;

use records::Content;

/// Why a folder could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It is no data folder.
    #[error("{} has no state of a node in it: give the --data of the node", .0.display())]
    NoState(PathBuf),
    /// It is of an older node.
    #[error("the state in {} has format {found}, and this looks at format {FORMAT}: start cloisterd once, which brings it to that", .path.display())]
    Older {
        /// The folder.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The folder.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The store does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keys cannot be read.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// A file cannot be read.
    #[error("cannot read {}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The record or the file.
    pub what: String,
    /// What is wrong with it.
    pub why: String,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Records that were looked at.
    pub records: u64,
    /// Components that were looked at.
    pub components: u64,
    /// Sealed values that were looked at.
    pub sealed: u64,
    /// What is wrong.
    pub problems: Vec<Finding>,
    /// What a node that was killed has left, and the next start removes. It harms nobody.
    pub leftovers: Vec<Finding>,
}

impl Report {
    fn problem(&mut self, what: impl Into<String>, why: impl Into<String>) {
        let (what, why) = (what.into(), why.into());
        self.problems.push(Finding { what, why });
    }

    fn leftover(&mut self, what: impl Into<String>, why: impl Into<String>) {
        let (what, why) = (what.into(), why.into());
        self.leftovers.push(Finding { what, why });
    }
}

/// Looks at a data folder. `variable` is the content of [`keyring::VARIABLE`], where it is set.
///
/// # Errors
/// When a node runs on the folder, or it cannot be looked at.
pub fn check(root: &Path, variable: Option<&Secret>) -> Result<Report, CheckError> {
    if !root.join("store/state.json").is_file() {
        return Err(CheckError::NoState(root.to_owned()));
    }
    let dir = DataDir::open(root)?;
    if let Some(found) = crate::store::format_of(&dir.store())?
        && found < FORMAT
    {
        let path = dir.store();
        return Err(CheckError::Older { path, found });
    }
    let records = Records::new(Arc::new(SledStore::open(&dir.store())?));
    let content = Content::read(&records)?;
    let mut report = Report {
        records: content.count(),
        ..Report::default()
    };
    records::check(&content, &mut report);
    files::check(&dir.components(), &content, &mut report)?;
    match keyring::read(dir.root(), variable) {
        Ok(keys) => sealed::check(keys.as_ref(), &content, &mut report),
        Err(KeyringError::File(error)) => return Err(error.into()),
        Err(error) => report.problem(keyring::FILE, error.to_string()),
    }
    Ok(report)
}

/// The names of the files in a folder.
fn names(folder: &Path) -> Result<Vec<String>, CheckError> {
    let failed = |source| CheckError::File {
        path: folder.to_owned(),
        source,
    };
    let entries = fs::read_dir(folder).map_err(failed)?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names: Vec<_> = names.collect::<io::Result<_>>().map_err(failed)?;
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests;
