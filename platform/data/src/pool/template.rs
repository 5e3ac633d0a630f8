//! A deployment's template on the disk: the memory of a VM that has loaded its component. It is a cache: without it a VM
//! boots. It belongs to one tenant, whose guest wrote it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use sandbox_channel::VmId;
use tokio::sync::Mutex;

/// Ending of a template's name.
const ENDING: &str = "template";

/// Where a template is, or will be.
#[derive(Debug)]
pub(crate) struct TemplateFile {
    path: Option<PathBuf>,
    /// Held by who boots a VM to write it.
    pub(crate) seed: Mutex<()>,
}

/// A template that is being written. Dropped before it is kept, it goes.
#[derive(Debug)]
pub(crate) struct Unfinished {
    path: PathBuf,
    kept: PathBuf,
    file: Option<File>,
}

impl TemplateFile {
    /// In `folder`, for one artifact and tenant. Without a folder there are no templates.
    pub(crate) fn new(folder: Option<&Path>, tenant: &str, artifact: &Path) -> Self {
        let name = |folder: &Path| {
            let artifact = artifact.file_stem()?.to_str()?;
            Some(folder.join(format!("{tenant}.{artifact}.{ENDING}")))
        };
        TemplateFile {
            path: folder.and_then(name),
            seed: Mutex::default(),
        }
    }

    /// Its file's name, for telling which ones are in use.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The template, if there is one.
    pub(crate) fn open(&self) -> Option<File> {
        File::open(self.path.as_ref()?).ok()
    }

    /// It is of no use.
    pub(crate) fn remove(&self) {
        if let Some(path) = &self.path {
            // One that is gone already is gone.
            let _ = std::fs::remove_file(path);
        }
    }

    /// Begins to write it, by this VM. `Ok(None)`: there are none.
    pub(crate) fn create(&self, vm: VmId) -> io::Result<Option<Unfinished>> {
        let Some(kept) = &self.path else {
            return Ok(None);
        };
        let path = kept.with_extension(format!("{}.tmp", vm.0));
        // A file of its own: one that a node before this one has left may still be written to.
        let _ = std::fs::remove_file(&path);
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        Ok(Some(Unfinished {
            path,
            kept: kept.clone(),
            file: Some(file),
        }))
    }
}

impl Unfinished {
    /// The file that the worker writes.
    pub(crate) fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// It is written: from now on VMs begin with it. It need not survive a crash of the host whole, so it is synced.
    pub(crate) async fn keep(mut self) -> io::Result<()> {
        let Some(file) = self.file.take() else {
            return Ok(());
        };
        let (from, to) = (self.path.clone(), self.kept.clone());
        let kept = tokio::task::spawn_blocking(move || {
            file.sync_data()?;
            std::fs::rename(from, to)
        });
        kept.await.map_err(io::Error::other)?
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // One that was kept is not there under this name.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Removes from `folder` what is no template of `used`.
pub(crate) fn clean(folder: &Path, used: &dyn Fn(&Path) -> bool) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if !used(&path) {
            let _ = std::fs::remove_file(path);
        }
    }
}
