//! The tokens that `login` keeps: one for each node, in a file of the user's own.
//!
//! `$XDG_CONFIG_HOME/cloister/credentials.json`, or the same in `~/.config`. Nobody but the user may read it.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use platform_model::{Secret, secret};
use serde::{Deserialize, Serialize};

/// Why tokens are not read or kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialsError {
    /// There is no place for them.
    #[error("there is no place to keep tokens: set HOME or XDG_CONFIG_HOME, or use CLOISTER_TOKEN")]
    Home,
    /// The file cannot be read or written.
    #[error("cannot use the tokens in {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others can read the file.
    #[error("others can read the tokens in {path}: run `chmod 600 {path}`, and `cloister login` with a new token", path = path.display())]
    Open {
        /// The file.
        path: PathBuf,
    },
    /// The file is not what `login` writes.
    #[error("{} is not a file of tokens: remove it, and use `cloister login` again", path.display())]
    Content {
        /// The file.
        path: PathBuf,
    },
}

/// What is kept for a node.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    #[serde(serialize_with = "secret::expose")]
    token: Secret,
}

/// The content of the file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    /// By the node's URL.
    nodes: BTreeMap<String, Entry>,
}

/// The tokens of this user.
#[derive(Debug)]
pub(crate) struct Credentials {
    path: PathBuf,
    content: Content,
}

impl Credentials {
    /// Those of the environment's user.
    ///
    /// # Errors
    /// When there is no place for them, or what is there cannot be used.
    pub(crate) fn read() -> Result<Self, CredentialsError> {
        let path = path().ok_or(CredentialsError::Home)?;
        Self::at(&path)
    }

    fn at(path: &Path) -> Result<Self, CredentialsError> {
        let failed = |source| CredentialsError::File {
            path: path.to_owned(),
            source,
        };
        let path = path.to_owned();
        let mode = match std::fs::metadata(&path) {
            Ok(file) => file.permissions().mode(),
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                let content = Content::default();
                return Ok(Self { path, content });
            }
            Err(error) => return Err(failed(error)),
        };
        if mode & 0o077 != 0 {
            return Err(CredentialsError::Open { path });
        }
        let text = std::fs::read(&path).map(Secret::from_bytes);
        let text = text.map_err(failed)?;
        let content = text
            .as_ref()
            .and_then(|text| serde_json::from_str(text.expose()).ok());
        match content {
            Some(content) => Ok(Self { path, content }),
            None => Err(CredentialsError::Content { path }),
        }
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The token for a node.
    pub(crate) fn token(&self, url: &str) -> Option<&Secret> {
        self.content.nodes.get(key(url)).map(|entry| &entry.token)
    }

    /// Keeps a token for a node, in place of the one that it has.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn keep(&mut self, url: &str, token: Secret) -> Result<(), CredentialsError> {
        self.content
            .nodes
            .insert(key(url).to_owned(), Entry { token });
        self.write()
    }

    /// Forgets the token for a node; whether there was one.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn forget(&mut self, url: &str) -> Result<bool, CredentialsError> {
        let was = self.content.nodes.remove(key(url)).is_some();
        if was {
            self.write()?;
        }
        Ok(was)
    }

    /// Replaces the file as a whole, so that a reader never sees half of it.
    fn write(&self) -> Result<(), CredentialsError> {
        let write = || {
            let folder = self.path.parent().unwrap_or(Path::new("."));
            let mut builder = std::fs::DirBuilder::new();
            builder.recursive(true).mode(0o700).create(folder)?;
            // It is made with mode 0600.
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            serde_json::to_writer_pretty(&mut file, &self.content)?;
            file.write_all(b"\n")?;
            file.as_file().sync_all()?;
            file.persist(&self.path)?;
            Ok(())
        };
        write().map_err(|source| CredentialsError::File {
            path: self.path.clone(),
            source,
        })
    }
}

/// A URL with and without the slash at its end is the same node.
fn key(url: &str) -> &str {
    url.trim_end_matches('/')
}

fn path() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let config = set("XDG_CONFIG_HOME").map(PathBuf::from);
    let config = config.filter(|path| path.is_absolute());
    let folder = config.or_else(|| Some(Path::new(&set("HOME")?).join(".config")))?;
    Some(folder.join("cloister/credentials.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_kept_for_each_node_and_for_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cloister/credentials.json");
        let mut kept = Credentials::at(&path).unwrap();
        assert!(kept.token("http://a").is_none());
        kept.keep("http://a/", Secret::new("one")).unwrap();
        kept.keep("http://b", Secret::new("two")).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let mut kept = Credentials::at(&path).unwrap();
        assert_eq!(kept.token("http://a").unwrap().expose(), "one");
        assert!(kept.forget("http://a").unwrap() && !kept.forget("http://a").unwrap());
        let kept = Credentials::at(&path).unwrap();
        assert!(kept.token("http://a").is_none() && kept.token("http://b/").is_some());
    }

    #[test]
    fn what_others_can_read_or_nobody_wrote_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials.json");
        let mode =
            |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        std::fs::write(&path, r#"{"nodes": {}}"#).unwrap();
        mode(0o640);
        let error = Credentials::at(&path).unwrap_err();
        assert!(matches!(error, CredentialsError::Open { .. }), "{error}");
        mode(0o600);
        assert!(Credentials::at(&path).is_ok());
        std::fs::write(&path, "x").unwrap();
        let error = Credentials::at(&path).unwrap_err();
        assert!(matches!(error, CredentialsError::Content { .. }), "{error}");
    }
}
