//! The folder of quickstart's node: a temporary one, or one that stays and is kept out of repositories.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::QuickstartError;
use crate::args::QuickstartArgs;

/// The folder that stays, from where quickstart is called.
const DEFAULT: &str = ".cloister/quickstart";

/// A folder that exists. A temporary one is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    data: PathBuf,
    log: PathBuf,
    _temporary: Option<TempDir>,
}

impl Folder {
    /// Makes the folder that the arguments ask for.
    pub(super) fn open(args: &QuickstartArgs) -> Result<Self, QuickstartError> {
        if let Some(data) = &args.data {
            return Self::at(data, None);
        }
        if args.once {
            let wrong = |source| QuickstartError::Folder {
                path: std::env::temp_dir(),
                source,
            };
            let temporary = tempfile::Builder::new()
                .prefix("cloister-")
                .tempdir()
                .map_err(wrong)?;
            let data = temporary.path().join("data");
            return Self::at(&data, Some(temporary));
        }
        let data = Path::new(DEFAULT);
        let folder = Self::at(data, None)?;
        if let Some(parent) = data.parent() {
            ignore(parent)?;
        }
        Ok(folder)
    }

    fn at(data: &Path, temporary: Option<TempDir>) -> Result<Self, QuickstartError> {
        let wrong = |source| QuickstartError::Folder {
            path: data.to_owned(),
            source,
        };
        fs::create_dir_all(data).map_err(wrong)?;
        // Absolute: the node need not be where this process is.
        let data = fs::canonicalize(data).map_err(wrong)?;
        Ok(Self {
            log: data.join("node.log"),
            data,
            _temporary: temporary,
        })
    }

    /// The node's data, an absolute path.
    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    /// The node's own log.
    pub(super) fn log(&self) -> &Path {
        &self.log
    }
}

/// Keeps a folder out of whatever repository it is in.
fn ignore(folder: &Path) -> Result<(), QuickstartError> {
    let path = folder.join(".gitignore");
    if path.exists() {
        return Ok(());
    }
    fs::write(&path, "*\n").map_err(|source| QuickstartError::Folder { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(once: bool, data: Option<PathBuf>) -> QuickstartArgs {
        QuickstartArgs {
            once,
            data,
            listen: None,
            admin: None,
        }
    }

    #[test]
    fn a_temporary_folder_goes() {
        let folder = Folder::open(&args(true, None)).unwrap();
        let data = folder.data().to_owned();
        assert!(data.is_dir() && data.is_absolute());
        drop(folder);
        assert!(!data.exists());
    }

    #[test]
    fn a_folder_that_was_named_stays() {
        let temporary = tempfile::tempdir().unwrap();
        let data = temporary.path().join("a/b");
        drop(Folder::open(&args(true, Some(data.clone()))).unwrap());
        assert!(data.is_dir());
        ignore(temporary.path()).unwrap();
        ignore(temporary.path()).unwrap();
        assert_eq!(
            fs::read_to_string(temporary.path().join(".gitignore")).unwrap(),
            "*\n"
        );
        let file = temporary.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(Folder::open(&args(true, Some(file.join("x")))).is_err());
    }
}
