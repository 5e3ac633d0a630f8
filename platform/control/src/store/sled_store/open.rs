//! Opens the database: finds damage, brings an older format to this one, and never opens at less than was acknowledged.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;

use sled::{Batch, Db};

use super::{
    CACHE, COMMITS, FORMAT, FORMAT_KEY, Manifest, OpenError, SledStore, StoreError, Writer,
    envelope, unwrap,
};
use crate::store::records;

/// Opens the store in a folder.
pub(super) fn open(folder: &Path) -> Result<SledStore, OpenError> {
    let manifest = Manifest::read(folder)?;
    let opened = catch_unwind(AssertUnwindSafe(|| open_and_read(folder)));
    let (db, content) = match opened {
        Ok(opened) => opened?,
        Err(panic) => return Err(damaged(folder, panic_text(panic.as_ref()))),
    };
    let promised = manifest.map_or(0, |manifest| manifest.commits);
    if content.commits < promised {
        let has = content.commits;
        let why =
            format!("it has {has} of the {promised} writes that were made: the rest was cut off");
        return Err(damaged(folder, why));
    }
    let store = SledStore {
        folder: folder.to_owned(),
        db,
        writer: Mutex::new(Writer {
            commits: content.commits,
            failed: None,
        }),
    };
    let noted = manifest.map(|manifest| manifest.format);
    if content.format == Some(FORMAT) {
        // An earlier node ended after the first write of this format and before it was noted.
        if noted != Some(FORMAT) {
            store.write_manifest()?;
        }
    } else if noted == Some(FORMAT) {
        let why = format!("the database does not say that it has format {FORMAT}");
        return Err(damaged(folder, why));
    } else {
        let old = !content.old.is_empty();
        let new = records::migrate(content.old).map_err(|why| damaged(folder, why))?;
        store.write_all(new)?;
        if old {
            tracing::info!(format = FORMAT, "the state was brought to a newer format");
        }
    }
    Ok(store)
}

/// What is in a database.
#[derive(Default)]
struct Content {
    /// Its format; none where it does not say it: format 1 did not, and a new one does not.
    format: Option<u32>,
    /// Writes so far.
    commits: u64,
    /// The records of a format before this one. Those of this one were only looked at.
    old: Vec<(String, Vec<u8>)>,
}

/// Opens sled and reads every record.
fn open_and_read(folder: &Path) -> Result<(Db, Content), OpenError> {
    let database = |e: sled::Error| match e {
        sled::Error::Io(source) if is_of_the_system(&source) => OpenError::Io {
            path: folder.to_owned(),
            source,
        },
        sled::Error::Corruption { .. } => damaged(folder, "sled finds its file corrupt".to_owned()),
        other => damaged(folder, other.to_string()),
    };
    let db = sled::Config::new()
        .path(folder.join("sled"))
        .cache_capacity(CACHE)
        // Every write flushes by itself.
        .flush_every_ms(None)
        .mode(sled::Mode::LowSpace)
        .open()
        .map_err(database)?;
    let mut content = Content::default();
    let unreadable = |key: &[u8]| {
        let key = String::from_utf8_lossy(key);
        damaged(folder, format!("the record {key:?} cannot be read"))
    };
    let number = |key: &[u8]| {
        let value = db.get(key).map_err(database)?;
        let value = value.map(|value| value.as_ref().try_into().map(u64::from_be_bytes));
        value.transpose().map_err(|_| unreadable(key))
    };
    content.commits = number(COMMITS)?.unwrap_or(0);
    content.format = match number(FORMAT_KEY)? {
        None => None,
        Some(format) if format == u64::from(FORMAT) => Some(FORMAT),
        Some(newer) => {
            return Err(OpenError::Newer {
                path: folder.to_owned(),
                found: u32::try_from(newer).unwrap_or(u32::MAX),
            });
        }
    };
    for entry in db.iter() {
        let (key, value) = entry.map_err(database)?;
        if [COMMITS, FORMAT_KEY].contains(&key.as_ref()) {
            continue;
        }
        let text = std::str::from_utf8(&key).map_err(|_| unreadable(&key))?;
        if content.format.is_none() {
            content.old.push((text.to_owned(), value.to_vec()));
        } else if !is_readable(text, &value, content.commits) {
            return Err(unreadable(&key));
        }
    }
    Ok((db, content))
}

/// Whether a value has a revision that was reached, and is what its key says.
fn is_readable(key: &str, bytes: &[u8], commits: u64) -> bool {
    unwrap(bytes).is_some_and(|(revision, value)| {
        (1..=commits).contains(&revision.0) && records::is_record(key, value)
    })
}

impl SledStore {
    /// Gives the database this format, and all these records, in one write.
    fn write_all(&self, records: Vec<(String, Vec<u8>)>) -> Result<(), OpenError> {
        let failed = |e: StoreError| OpenError::Io {
            path: self.folder.clone(),
            source: match e {
                StoreError::DiskFull { .. } => std::io::ErrorKind::StorageFull.into(),
                other => std::io::Error::other(other.to_string()),
            },
        };
        let mut writer = self.writer().map_err(failed)?;
        let revision = writer.commits + 1;
        let mut batch = Batch::default();
        batch.insert(FORMAT_KEY, &u64::from(FORMAT).to_be_bytes());
        for (key, value) in records {
            batch.insert(key.as_str(), envelope(revision, &value));
        }
        self.write(&mut writer, batch).map_err(failed)
    }

    /// Writes `state.json` where a write of an earlier node did not come to it.
    fn write_manifest(&self) -> Result<(), OpenError> {
        let failed = |source| OpenError::Io {
            path: self.folder.clone(),
            source,
        };
        let commits = match self.writer() {
            Ok(writer) => writer.commits,
            Err(error) => return Err(failed(std::io::Error::other(error.to_string()))),
        };
        let format = FORMAT;
        let staged = Manifest { format, commits }
            .stage(&self.folder)
            .map_err(failed)?;
        Manifest::publish(&staged, &self.folder).map_err(failed)
    }
}

fn damaged(folder: &Path, why: String) -> OpenError {
    OpenError::Damaged {
        path: folder.to_owned(),
        why,
    }
}

/// Whether an error is about permissions or room; any other that sled has when it opens is about the content.
fn is_of_the_system(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(
        error.kind(),
        PermissionDenied | ReadOnlyFilesystem | StorageFull | QuotaExceeded
    )
}

/// What a panic said, on one line.
fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("sled cannot read it");
    text.lines().next().unwrap_or_default().to_owned()
}
