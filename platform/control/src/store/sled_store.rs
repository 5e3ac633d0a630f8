//! [`MetadataStore`] on sled, for one host.
//!
//! One tree. A value has eight bytes before it: the number of the write that it comes from, which is its revision. Two keys
//! are the store's own, and have no `/` as all others do: `commits`, which counts the writes, and `format`.
//!
//! Writes go one after the other: each is one atomic batch, then flushed, then noted in `state.json`.

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sled::{Batch, Db, IVec};

use super::manifest::{FORMAT, Manifest, OpenError};
use super::transaction::{MAX_OPERATIONS, Operation, Precondition, Transaction};
use super::{MetadataStore, Revision, StoreError, Versioned};

mod open;

/// Key of the number of writes.
const COMMITS: &[u8] = b"commits";

/// Key of the format.
const FORMAT_KEY: &[u8] = b"format";

/// Bytes of the revision before each value.
const REVISION: usize = size_of::<u64>();

/// Room that a write must find on the disk, in bytes: a failed write would put the database out of use.
const ROOM: u64 = 8 << 20;

/// Memory that sled may use for what it has read, in bytes.
const CACHE: u64 = 16 << 20;

/// The metadata of one host.
#[derive(Debug)]
pub struct SledStore {
    folder: PathBuf,
    db: Db,
    writer: Mutex<Writer>,
}

/// What one write at a time has.
#[derive(Debug)]
struct Writer {
    /// Writes so far.
    commits: u64,
    /// Why no more can be made, once one has failed halfway.
    failed: Option<String>,
}

impl SledStore {
    /// Opens the store in `folder`, which must exist; a store that is not there is created, one of an older format is
    /// brought to this one. Every record is read once, so that damage is found now.
    ///
    /// # Errors
    /// [`OpenError`]; sled's own panics about damaged files are caught and become one.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        open::open(folder)
    }

    /// Waits for the turn to write.
    fn writer(&self) -> Result<MutexGuard<'_, Writer>, StoreError> {
        // A panic in a write leaves the counter as it was: the next write finds out whether sled still works.
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        match &writer.failed {
            Some(why) => Err(self.failure(why)),
            None => Ok(writer),
        }
    }

    /// Makes one write: all of the batch or nothing, on the disk when this returns.
    fn write(&self, writer: &mut Writer, mut batch: Batch) -> Result<(), StoreError> {
        self.check_room()?;
        let commits = writer.commits + 1;
        batch.insert(COMMITS, &commits.to_be_bytes());
        let manifest = Manifest {
            format: FORMAT,
            commits,
        };
        let staged = manifest.stage(&self.folder).map_err(|e| self.failure(e))?;
        let written = self
            .db
            .apply_batch(batch)
            .and_then(|()| self.db.flush())
            .map_err(|e| e.to_string())
            .and_then(|_| Manifest::publish(&staged, &self.folder).map_err(|e| e.to_string()));
        match written {
            Ok(()) => {
                writer.commits = commits;
                Ok(())
            }
            Err(why) => {
                let failure = self.failure(&why);
                writer.failed = Some(why);
                Err(failure)
            }
        }
    }

    /// Refuses a write that the disk might not have room for.
    fn check_room(&self) -> Result<(), StoreError> {
        let stat = rustix::fs::statvfs(&self.folder).map_err(|e| self.failure(e))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free < ROOM {
            return Err(StoreError::DiskFull {
                path: self.folder.clone(),
                free,
            });
        }
        Ok(())
    }

    fn failure(&self, why: impl ToString) -> StoreError {
        StoreError::Failed {
            path: self.folder.clone(),
            why: why.to_string(),
        }
    }

    /// Whether a precondition holds; the key that it does not hold for.
    fn holds(&self, precondition: &Precondition) -> Result<(), StoreError> {
        let (key, holds) = match precondition {
            Precondition::Absent(key) => (key, self.get(key)?.is_none()),
            Precondition::At(key, revision) => {
                let found = self.get(key)?;
                (key, found.is_some_and(|found| found.revision == *revision))
            }
            Precondition::Empty(prefix) => {
                let first = self.db.scan_prefix(prefix).keys().next();
                (
                    prefix,
                    first.transpose().map_err(|e| self.failure(e))?.is_none(),
                )
            }
        };
        if holds {
            Ok(())
        } else {
            let key = key.clone();
            Err(StoreError::Conflict { key })
        }
    }

    /// Operations as sled has them.
    fn batch(&self, operations: &[Operation], revision: u64) -> Result<Batch, StoreError> {
        let mut batch = Batch::default();
        for operation in operations {
            match operation {
                Operation::Put(key, value) => batch.insert(key.as_str(), envelope(revision, value)),
                Operation::Delete(key) => batch.remove(key.as_str()),
                Operation::DeletePrefix(prefix) => {
                    for key in self.db.scan_prefix(prefix).keys() {
                        batch.remove(key.map_err(|e| self.failure(e))?);
                    }
                }
            }
        }
        Ok(batch)
    }
}

/// A value with its revision, as sled has it.
fn envelope(revision: u64, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(REVISION + value.len());
    bytes.extend_from_slice(&revision.to_be_bytes());
    bytes.extend_from_slice(value);
    bytes
}

/// The revision and the value in what sled has; none where it has no revision.
fn unwrap(bytes: &[u8]) -> Option<(Revision, &[u8])> {
    let (revision, value) = bytes.split_first_chunk::<REVISION>()?;
    Some((Revision(u64::from_be_bytes(*revision)), value))
}

/// A value of the database as the trait gives it.
fn versioned(key: &[u8], bytes: &IVec) -> Result<Versioned, StoreError> {
    let (revision, value) = unwrap(bytes).ok_or_else(|| StoreError::Damaged {
        key: String::from_utf8_lossy(key).into_owned(),
    })?;
    let value = value.to_vec();
    Ok(Versioned { value, revision })
}

impl MetadataStore for SledStore {
    fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        let found = self.db.get(key).map_err(|e| self.failure(e))?;
        found
            .map(|value| versioned(key.as_bytes(), &value))
            .transpose()
    }

    fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Versioned)>, StoreError> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after.as_bytes()),
            _ => Bound::Included(prefix.as_bytes()),
        };
        let mut found = Vec::new();
        let range = self.db.range::<&[u8], _>((start, Bound::Unbounded));
        for entry in range.take(limit) {
            let (key, value) = entry.map_err(|e| self.failure(e))?;
            if !key.starts_with(prefix.as_bytes()) {
                break;
            }
            let versioned = versioned(&key, &value)?;
            let key = String::from_utf8_lossy(&key).into_owned();
            found.push((key, versioned));
        }
        Ok(found)
    }

    fn commit(&self, transaction: &Transaction) -> Result<Revision, StoreError> {
        let (preconditions, operations) = (transaction.preconditions(), transaction.operations());
        let size = preconditions.len().max(operations.len());
        if size > MAX_OPERATIONS {
            return Err(StoreError::TooLarge(size));
        }
        let mut writer = self.writer()?;
        for precondition in preconditions {
            self.holds(precondition)?;
        }
        let revision = writer.commits + 1;
        let batch = self.batch(operations, revision)?;
        self.write(&mut writer, batch)?;
        Ok(Revision(revision))
    }
}

#[cfg(test)]
mod tests;
