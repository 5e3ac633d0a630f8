//! What the node remembers.
//!
//! ```text
//! engine ── records: typed, one file a kind ── MetadataStore: keys, values, transactions ── sled
//!                                                                                       └── etcd, for many hosts
//! ```
//!
//! [`MetadataStore`] is the contract with whatever keeps the bytes: a small ordered map with transactions, which is what
//! etcd offers and what [`SledStore`] keeps on the disk of one host. [`records`] says which kinds of things there are,
//! once, above it. A write that was answered with `Ok` is on the disk: it survives the process being killed and the
//! power going away.

use std::fmt;
use std::path::{Path, PathBuf};

mod manifest;
pub mod records;
mod sled_store;
mod transaction;

pub use manifest::{FORMAT, OpenError};
pub use records::{Change, Records};
pub use sled_store::SledStore;
pub use transaction::{MAX_OPERATIONS, Operation, Precondition, Transaction};

/// The format of the state in a folder, as it says it itself; none where there is none.
///
/// # Errors
/// When it cannot be read, or is newer than this version knows.
pub fn format_of(folder: &Path) -> Result<Option<u32>, OpenError> {
    let manifest = manifest::Manifest::read(folder)?;
    Ok(manifest.map(|manifest| manifest.format))
}

/// When a value was written: the number of the write, which counts up over the whole store. A later write has a higher
/// one. It is the ETag of what the API gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A value with the write that it comes from.
#[derive(Clone, PartialEq, Eq)]
pub struct Versioned {
    /// The value.
    pub value: Vec<u8>,
    /// When it was written.
    pub revision: Revision,
}

impl fmt::Debug for Versioned {
    /// Without the value, which may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {}", self.value.len(), self.revision)
    }
}

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no room for the write; nothing was changed.
    #[error("the disk of the data folder is full ({} bytes are free in {}): make room and try again", .free, .path.display())]
    DiskFull {
        /// The store's folder.
        path: PathBuf,
        /// Bytes that are free.
        free: u64,
    },
    /// A record cannot be read.
    #[error("the record {key} of the store is damaged: restore the data folder from a backup")]
    Damaged {
        /// Key of the record.
        key: String,
    },
    /// The disk failed: the node must be started again before it can write.
    #[error("the store in {} has failed ({why}): look after the disk, then start cloisterd again", .path.display())]
    Failed {
        /// The store's folder.
        path: PathBuf,
        /// What the disk or the database said.
        why: String,
    },
    /// A precondition does not hold: somebody else was there first. Nothing was changed.
    #[error("{key} was changed by somebody else in the meantime: look at it again")]
    Conflict {
        /// The key, or the start of the keys, that is not as it was expected to be.
        key: String,
    },
    /// The transaction has more operations than a store has to take. Nothing was changed.
    #[error(
        "a change of {0} records at once is more than the {MAX_OPERATIONS} that are possible: change fewer"
    )]
    TooLarge(usize),
}

/// Keeps bytes: an ordered map from keys to values with transactions.
///
/// Made so that etcd can be behind it: reads are of one key or of a bounded range, a commit is one compare-and-swap
/// (`mod_revision` for [`Precondition::At`], 0 for [`Precondition::Absent`], a range compare for
/// [`Precondition::Empty`]), and no call sees a state that a commit has half made. Nothing else holds over several calls:
/// what is read and then written needs a precondition.
///
/// Every method may wait for the disk or the network: call them where blocking is allowed. Keys are UTF-8 and not empty.
pub trait MetadataStore: fmt::Debug + Send + Sync + 'static {
    /// The value of a key.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError>;

    /// At most `limit` of the keys that start with `prefix`, in the order of their bytes, with their values; only those
    /// that come after the key `after`, where one is given.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Versioned)>, StoreError>;

    /// Makes all of a transaction, or nothing. It is on the disk when this answers `Ok`, and all that it wrote has the
    /// revision that is answered.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] where a precondition does not hold. Nothing was changed after any error but
    /// [`StoreError::Failed`], after which the store takes no more writes and the next start finds the transaction made
    /// or not made.
    fn commit(&self, transaction: &Transaction) -> Result<Revision, StoreError>;
}
