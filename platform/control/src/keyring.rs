//! The keys that seal values, and where they are kept: the file `secret-key` of the data folder, or `CLOISTER_KEY`.
//!
//! In a rotation the file has the new key before the old one, until everything is sealed with the new: ended anywhere in it,
//! the node finds both and goes on.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use platform_model::Secret;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

use crate::data_dir::{DataDirError, replace_file};
use crate::sealing::{KeyError, Keys};

/// The file in the data folder.
pub const FILE: &str = "secret-key";

/// The variable of the node's environment.
pub const VARIABLE: &str = "CLOISTER_KEY";

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The file.
    #[error(transparent)]
    File(#[from] DataDirError),
    /// Others may read the file.
    #[error("{} can be read by others (mode {mode:o}): make it yours alone with chmod 600, and rotate the key if it was read", .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// What should be keys is none.
    #[error("{place}: {source}: give 64 hexadecimal digits a key, as from `openssl rand -hex 32`")]
    Malformed {
        /// The file or the variable.
        place: String,
        /// What is wrong with it.
        source: KeyError,
    },
    /// There are sealed values, and no key.
    #[error(
        "the state has sealed values and there is no key for them: restore the file {FILE} of the data folder, or set {VARIABLE}"
    )]
    Lost,
    /// There are sealed values, and other keys.
    #[error(
        "none of the sealed values is sealed with the key that there is: put the key before this one into {VARIABLE}, behind it and a comma, or restore the file {FILE} of the data folder"
    )]
    Others,
    /// The keys are not the node's to change.
    #[error(
        "the key comes from {VARIABLE}: start cloisterd with the new key before the old one in it, separated by a comma"
    )]
    Foreign,
    /// There is no randomness.
    #[error("the system gives no random bytes: {0}")]
    Random(#[from] getrandom::Error),
}

/// The keys of a node.
#[derive(Debug)]
pub struct Keyring {
    path: PathBuf,
    foreign: bool,
    /// Read-locked by what seals, until it is stored: no value is stored that was sealed with a key that is gone.
    keys: Arc<RwLock<Arc<Keys>>>,
}

/// Keys to seal with; a rotation waits until they are let go.
pub type Sealing = OwnedRwLockReadGuard<Arc<Keys>>;

impl Keyring {
    /// Reads the keys of the data folder `root`, or makes one where there is none and nothing is sealed yet: `sealed` has the ids
    /// of the keys that values are sealed with. `variable` is the content of [`VARIABLE`].
    ///
    /// # Errors
    /// When there are no keys, or others altogether, or the file cannot be read or written.
    pub fn open(
        root: &Path,
        variable: Option<&Secret>,
        sealed: &[String],
    ) -> Result<Self, KeyringError> {
        let path = root.join(FILE);
        let keys = match read(root, variable)? {
            Some(keys) if sealed.is_empty() || sealed.iter().any(|id| keys.has(id)) => keys,
            Some(_) => return Err(KeyringError::Others),
            None if !sealed.is_empty() => return Err(KeyringError::Lost),
            None => {
                let keys = Keys::random()?;
                write(&path, &keys)?;
                keys
            }
        };
        Ok(Self {
            path,
            foreign: variable.is_some(),
            keys: Arc::new(RwLock::new(Arc::new(keys))),
        })
    }

    /// The keys as they are now, to open with.
    pub async fn keys(&self) -> Arc<Keys> {
        Arc::clone(&*self.keys.read().await)
    }

    /// The keys to seal with: to be held until what was sealed is stored.
    pub async fn sealing(&self) -> Sealing {
        Arc::clone(&self.keys).read_owned().await
    }

    /// Makes a new key that seals from now on; the ones before it still open. When this returns, nothing is on its way that
    /// was sealed with them.
    ///
    /// # Errors
    /// When the file cannot be written, or the keys come from the environment.
    pub async fn begin_rotation(&self) -> Result<(), KeyringError> {
        if self.foreign {
            return Err(KeyringError::Foreign);
        }
        let mut keys = self.keys.write().await;
        let new = keys.with_new()?;
        write(&self.path, &new)?;
        *keys = Arc::new(new);
        Ok(())
    }

    /// Forgets all keys but the one that seals: everything is sealed with it. Those of the environment are left, as they are
    /// somebody else's.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn end_rotation(&self) -> Result<(), KeyringError> {
        if self.foreign {
            return Ok(());
        }
        let mut keys = self.keys.write().await;
        let only = keys.only_current();
        write(&self.path, &only)?;
        *keys = Arc::new(only);
        Ok(())
    }
}

/// Reads the keys of a data folder, without changing anything; none where there are none.
///
/// # Errors
/// When they are there and cannot be read.
pub fn read(root: &Path, variable: Option<&Secret>) -> Result<Option<Keys>, KeyringError> {
    let file = read_file(&root.join(FILE))?;
    let Some(text) = variable else {
        return Ok(file);
    };
    let keys = Keys::read(text.expose()).map_err(|source| KeyringError::Malformed {
        place: VARIABLE.to_owned(),
        source,
    })?;
    Ok(Some(match file {
        Some(file) => keys.and_older(&file),
        None => keys,
    }))
}

fn read_file(path: &Path) -> Result<Option<Keys>, KeyringError> {
    let failed = |e| DataDirError::from_io(path, e);
    let text = match fs::read_to_string(path) {
        Ok(text) => Secret::new(text),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e).into()),
    };
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        let path = path.to_owned();
        return Err(KeyringError::Exposed { path, mode });
    }
    let keys = Keys::read(text.expose()).map_err(|source| KeyringError::Malformed {
        place: path.display().to_string(),
        source,
    })?;
    Ok(Some(keys))
}

fn write(path: &Path, keys: &Keys) -> Result<(), KeyringError> {
    let text = keys.text();
    replace_file(path, text.expose().as_bytes(), 0o600)
        .map_err(|e| DataDirError::from_io(path, e).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sealing::Place;

    const PLACE: Place<'_> = Place(&["x"]);

    /// The ids of the keys that the folder has, or one that it has not.
    fn ids(folder: &Path) -> Vec<String> {
        let keys = read(folder, None).ok().flatten();
        vec![keys.map_or("gone".to_owned(), |keys| keys.current().to_owned())]
    }

    #[tokio::test]
    async fn other_keys_are_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let sealed = ["of another".to_owned()];
        let one = Secret::new("11".repeat(32));
        let error = Keyring::open(folder.path(), Some(&one), &sealed).unwrap_err();
        assert!(matches!(error, KeyringError::Others), "{error}");
        assert!(Keyring::open(folder.path(), Some(&one), &[]).is_ok());
    }

    #[tokio::test]
    async fn a_key_is_made_once_and_is_the_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let first = Keyring::open(folder.path(), None, &[]).unwrap();
        let path = folder.path().join(FILE);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = Keyring::open(folder.path(), None, &ids(folder.path())).unwrap();
        assert_eq!(first.keys().await.current(), again.keys().await.current());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Keyring::open(folder.path(), None, &ids(folder.path())).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[tokio::test]
    async fn a_key_that_is_gone_is_not_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let error = Keyring::open(folder.path(), None, &ids(folder.path())).unwrap_err();
        assert!(matches!(error, KeyringError::Lost), "{error}");
        assert!(!folder.path().join(FILE).exists());
        fs::write(folder.path().join(FILE), "hunter2").unwrap();
        fs::set_permissions(folder.path().join(FILE), fs::Permissions::from_mode(0o600)).unwrap();
        let error = Keyring::open(folder.path(), None, &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("openssl") && !error.contains("hunter2"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_rotation_may_end_anywhere() {
        let folder = tempfile::tempdir().unwrap();
        let value = Secret::new("hunter2");
        let (sealed, old) = {
            let keyring = Keyring::open(folder.path(), None, &[]).unwrap();
            let sealed = keyring.keys().await.seal(PLACE, &value).unwrap();
            let old = keyring.keys().await.current().to_owned();
            keyring.begin_rotation().await.unwrap();
            (sealed, old)
        };
        // As after kill -9.
        let keyring = Keyring::open(folder.path(), None, &ids(folder.path())).unwrap();
        let keys = keyring.keys().await;
        assert!(keys.has_older() && keys.current() != old);
        assert_eq!(keys.open(PLACE, &sealed).unwrap(), value);
        keyring.end_rotation().await.unwrap();
        let keyring = Keyring::open(folder.path(), None, &ids(folder.path())).unwrap();
        assert!(keyring.keys().await.open(PLACE, &sealed).is_err());
    }

    #[tokio::test]
    async fn a_rotation_waits_for_what_is_being_sealed() {
        let folder = tempfile::tempdir().unwrap();
        let keyring = Arc::new(Keyring::open(folder.path(), None, &[]).unwrap());
        let sealing = keyring.sealing().await;
        let rotating = Arc::clone(&keyring);
        let mut rotation = tokio::spawn(async move { rotating.begin_rotation().await });
        let early = tokio::time::timeout(std::time::Duration::from_millis(50), &mut rotation).await;
        assert!(early.is_err());
        drop(sealing);
        rotation.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn the_environment_comes_first_and_the_file_still_opens() {
        let folder = tempfile::tempdir().unwrap();
        let value = Secret::new("hunter2");
        let sealed = {
            let keyring = Keyring::open(folder.path(), None, &[]).unwrap();
            keyring.keys().await.seal(PLACE, &value).unwrap()
        };
        let variable = Keys::random().unwrap().text();
        let keyring = Keyring::open(folder.path(), Some(&variable), &ids(folder.path())).unwrap();
        let keys = keyring.keys().await;
        assert_eq!(keys.open(PLACE, &sealed).unwrap(), value);
        assert_ne!(keys.current(), sealed.key);
        let error = keyring.begin_rotation().await.unwrap_err();
        assert!(matches!(error, KeyringError::Foreign), "{error}");
    }
}
