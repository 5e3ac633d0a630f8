//! Uploaded components on disk, by digest.
//!
//! An upload is written to a temporary file, hashed on its way, synced, and renamed to the name of its digest: a file
//! with such a name is whole. The file says nothing about who may use it; that is in the store.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use platform_model::Digest;
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;

use crate::data_dir::sync_dir_of;

/// How the name of an unfinished upload starts.
const UPLOAD: &str = "upload-";

/// The folder of the components.
#[derive(Debug)]
pub struct Components {
    folder: PathBuf,
    uploads: AtomicU64,
}

impl Components {
    /// The components in `folder`. Uploads that a node before this one did not finish are removed.
    ///
    /// # Errors
    /// When the folder cannot be read or written.
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(UPLOAD) {
                fs::remove_file(entry.path())?;
            }
        }
        let uploads = AtomicU64::new(0);
        Ok(Self { folder, uploads })
    }

    /// The file of a component.
    #[must_use]
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(format!("{}.wasm", digest.hex()))
    }

    /// Begins an upload.
    ///
    /// # Errors
    /// When the temporary file cannot be made.
    pub async fn upload(&self) -> io::Result<Upload> {
        let number = self.uploads.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("{UPLOAD}{number}"));
        let file = File::create(&path).await?;
        Ok(Upload {
            file,
            temporary: Temporary(path),
            hash: Sha256::new(),
            size: 0,
        })
    }

    /// Removes every component that `keep` does not want; tells how many.
    ///
    /// # Errors
    /// When the folder cannot be read or written.
    pub fn collect(&self, keep: impl Fn(&Digest) -> bool) -> io::Result<usize> {
        let mut removed = 0;
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(UPLOAD) {
                continue;
            }
            let digest = name
                .strip_suffix(".wasm")
                .and_then(|hex| Digest::from_hex(hex).ok());
            if !digest.is_some_and(|digest| keep(&digest)) {
                fs::remove_file(entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// The temporary file of an upload; removed unless it was renamed.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // It is not there where the upload was finished.
        let _ = fs::remove_file(&self.0);
    }
}

/// A component that is arriving. Dropped before it is finished, it leaves nothing.
#[derive(Debug)]
pub struct Upload {
    file: File,
    temporary: Temporary,
    hash: Sha256,
    size: u64,
}

impl Upload {
    /// Bytes so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// When they cannot be written.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        self.file.write_all(bytes).await
    }

    /// Ends the upload: the component is on the disk under its digest.
    ///
    /// # Errors
    /// When it cannot be synced or renamed.
    pub async fn finish(mut self, components: &Components) -> io::Result<(Digest, u64)> {
        self.file.flush().await?;
        self.file.sync_all().await?;
        let digest = Digest::from_sha256(self.hash.finalize().into());
        let to = components.path(&digest);
        let from = self.temporary;
        tokio::task::spawn_blocking(move || rename(&from.0, &to)).await??;
        Ok((digest, self.size))
    }
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_dir_of(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[tokio::test]
    async fn an_upload_ends_under_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        let components = Components::open(folder.path().to_owned()).unwrap();
        let mut upload = components.upload().await.unwrap();
        upload.write(b"ab").await.unwrap();
        upload.write(b"c").await.unwrap();
        let (digest, size) = upload.finish(&components).await.unwrap();
        assert_eq!(size, 3);
        // SHA-256 of "abc", from FIPS 180.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest.hex(), abc);
        assert_eq!(names(folder.path()), [format!("{abc}.wasm")]);
        assert_eq!(components.collect(|kept| *kept == digest).unwrap(), 0);
        assert_eq!(components.collect(|_| false).unwrap(), 1);
        assert!(names(folder.path()).is_empty());
    }

    #[tokio::test]
    async fn what_was_not_finished_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let components = Components::open(folder.path().to_owned()).unwrap();
        let mut upload = components.upload().await.unwrap();
        upload.write(b"abc").await.unwrap();
        drop(upload);
        assert!(names(folder.path()).is_empty());
        // As a crash leaves it.
        fs::write(folder.path().join("upload-7"), "x").unwrap();
        Components::open(folder.path().to_owned()).unwrap();
        assert!(names(folder.path()).is_empty());
    }
}
