//! The node's data folder: where things lie in it, and the lock that keeps a second node out.
//!
//! ```text
//! DIR/lock              held while a node runs; holds its process id
//! DIR/admin-token       the token of the admin API (0600)
//! DIR/secret-key        the key that seals secrets (0600)
//! DIR/endpoints.json    where the node listens, while it runs
//! DIR/store/            metadata: state.json and the files of sled
//! DIR/components/       uploaded components, DIGEST.wasm; upload-* while they arrive
//! DIR/artifacts/        compiled components
//! DIR/templates/        memory of VMs that have loaded a component; a cache
//! DIR/logs/TENANT/APP/  what components wrote
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another node runs on it.
    #[error("another cloisterd{} uses the data folder {}: stop it, or give another folder with --data", process(.pid), .dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// The other node's process, as far as the lock file tells it.
        pid: Option<u32>,
    },
    /// Its file system is mounted read-only, or its permissions forbid writing.
    #[error("{} cannot be written: give cloisterd a data folder that its user may write", .path.display())]
    NotWritable {
        /// What could not be written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no room.
    #[error("the disk is full, {} cannot be written: make room for the data folder, then start cloisterd again", .path.display())]
    Full {
        /// What could not be written.
        path: PathBuf,
    },
    /// Anything else.
    #[error("{} cannot be used as, or in, the data folder", .path.display())]
    Io {
        /// What failed.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn process(pid: &Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})"))
        .unwrap_or_default()
}

impl DataDirError {
    /// Tells by the system's error what is wrong with `path`.
    pub fn from_io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::NotWritable { path, source }
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path },
            _ => Self::Io { path, source },
        }
    }
}

/// A data folder that is this process's alone, as long as this value lives.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Creates the folder where it is not there, and locks it.
    ///
    /// # Errors
    /// When another node has it, or when it cannot be written.
    pub fn open(root: &Path) -> Result<Self, DataDirError> {
        create_dir(root)?;
        let root = fs::canonicalize(root).map_err(|e| DataDirError::from_io(root, e))?;
        let lock = take_lock(&root)?;
        let dir = Self { root, _lock: lock };
        for folder in [
            dir.store(),
            dir.components(),
            dir.artifacts(),
            dir.templates(),
            dir.logs(),
        ] {
            create_dir(&folder)?;
        }
        dir.probe()?;
        Ok(dir)
    }

    /// Writes and removes a small file: a folder that cannot be written is found now, not at the first deploy.
    fn probe(&self) -> Result<(), DataDirError> {
        let path = self.root.join("probe");
        let written = fs::write(&path, [0; 4096]).and_then(|()| fs::remove_file(&path));
        written.map_err(|e| {
            // What could be written of it must not stay.
            let _ = fs::remove_file(&path);
            DataDirError::from_io(&path, e)
        })
    }

    /// The folder itself, absolute.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Metadata.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// Uploaded components.
    #[must_use]
    pub fn components(&self) -> PathBuf {
        self.root.join("components")
    }

    /// The folder of templates: what the data plane keeps of VMs that have loaded a component.
    #[must_use]
    pub fn templates(&self) -> PathBuf {
        self.root.join("templates")
    }

    /// Compiled components.
    #[must_use]
    pub fn artifacts(&self) -> PathBuf {
        self.root.join("artifacts")
    }

    /// What components wrote.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Writes a file of the folder as a whole: it has its old content or all of the new, even after a crash.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_file(&self, name: &str, content: &[u8], mode: u32) -> Result<(), DataDirError> {
        let path = self.root.join(name);
        replace_file(&path, content, mode).map_err(|e| DataDirError::from_io(&path, e))
    }

    /// Reads a file of the folder; none where it is not there.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn read_file(&self, name: &str) -> Result<Option<Vec<u8>>, DataDirError> {
        let path = self.root.join(name);
        match fs::read(&path) {
            Ok(content) => Ok(Some(content)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(DataDirError::from_io(&path, e)),
        }
    }
}

/// Creates a folder that only this user may enter, with those above it.
fn create_dir(path: &Path) -> Result<(), DataDirError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => io::ErrorKind::NotADirectory.into(),
            _ => e,
        })
        .map_err(|e| DataDirError::from_io(path, e))
}

/// How long a lock is waited for. A node that was killed may have been about to start a process: until that has become what
/// it is to be it holds what the node held.
const LOCK_WAIT: Duration = Duration::from_secs(1);
const LOCK_TRY: Duration = Duration::from_millis(5);

/// Locks `root/lock`. The lock ends with the process, however that ends.
fn take_lock(root: &Path) -> Result<File, DataDirError> {
    let path = root.join("lock");
    let failed = |e: io::Error| DataDirError::from_io(&path, e);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.mode(0o600).open(&path).map_err(failed)?;
    match lock_soon(&file) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let pid = file
                .read_to_string(&mut text)
                .ok()
                .and_then(|_| text.trim().parse().ok());
            return Err(DataDirError::InUse {
                dir: root.to_owned(),
                pid,
            });
        }
        Err(e) => return Err(failed(e.into())),
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(failed)?;
    Ok(file)
}

/// Locks a file, waiting a while.
fn lock_soon(file: &File) -> Result<(), Errno> {
    let began = Instant::now();
    loop {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if began.elapsed() < LOCK_WAIT => std::thread::sleep(LOCK_TRY),
            done => return done,
        }
    }
}

/// Replaces a file by way of a temporary one beside it: written, synced, renamed, and the folder synced.
pub(crate) fn replace_file(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let staged = stage_file(path, content, mode)?;
    publish_file(&staged, path)
}

/// Writes and syncs the temporary file of [`replace_file`]; what can run out of room happens here.
pub(crate) fn stage_file(path: &Path, content: &[u8], mode: u32) -> io::Result<PathBuf> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let staged = path.with_file_name(name);
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&staged)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(&staged);
    }
    written.map(|()| staged)
}

/// Renames what [`stage_file`] wrote, and syncs the folder.
pub(crate) fn publish_file(staged: &Path, path: &Path) -> io::Result<()> {
    fs::rename(staged, path)?;
    sync_dir_of(path)
}

/// Syncs the folder that `path` lies in, so that a rename in it survives a crash of the machine.
pub(crate) fn sync_dir_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_node_is_kept_out_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataDir::open(folder.path()).unwrap();
        let text = DataDir::open(folder.path()).unwrap_err().to_string();
        assert!(text.contains("another cloisterd (process "), "{text}");
        assert!(text.contains("--data"), "{text}");
        drop(first);
        DataDir::open(folder.path()).unwrap();
    }

    #[test]
    fn who_is_about_to_let_go_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataDir::open(folder.path()).unwrap();
        let gone = std::thread::spawn(move || {
            std::thread::sleep(LOCK_WAIT / 10);
            drop(first);
        });
        DataDir::open(folder.path()).unwrap();
        gone.join().unwrap();
    }

    #[test]
    fn a_folder_that_is_a_file_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(
            DataDir::open(file.path()),
            Err(DataDirError::Io { .. })
        ));
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(folder.path()).unwrap();
        assert_eq!(dir.read_file("x").unwrap(), None);
        dir.write_file("x", b"one", 0o600).unwrap();
        dir.write_file("x", b"2", 0o600).unwrap();
        assert_eq!(dir.read_file("x").unwrap().unwrap(), b"2");
        assert!(!dir.root().join("x.new").exists());
    }
}
