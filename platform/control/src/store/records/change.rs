//! A change while it is planned: what it has read, which must still hold when it is made, and what it will write.

use super::{Key, Prefix, Record, Records, Stored, decode, encode};
use crate::store::transaction::{Operation, Precondition, Transaction};
use crate::store::{Revision, StoreError};

/// A change that is being planned. Whatever is read through it is a precondition: the change is only made on the state that
/// it was planned on.
#[derive(Debug)]
pub struct Change<'a> {
    records: &'a Records,
    transaction: Transaction,
}

impl<'a> Change<'a> {
    pub(super) fn new(records: &'a Records) -> Self {
        let transaction = Transaction::default();
        Self {
            records,
            transaction,
        }
    }

    pub(super) fn into_transaction(self) -> Transaction {
        self.transaction
    }

    /// The records, to read what need not stay as it is: nothing is a precondition.
    #[must_use]
    pub fn records(&self) -> &'a Records {
        self.records
    }

    /// Whether nothing is to be written so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.transaction.operations().is_empty()
    }

    /// A record, as this change leaves it so far.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn get<R: Record>(&mut self, key: &Key<R>) -> Result<Option<R>, StoreError> {
        let pending = self.transaction.operations().iter().rev();
        for operation in pending {
            match operation {
                Operation::Put(put, value) if put == key.as_str() => {
                    let record = serde_json::from_slice(value);
                    return record.map(Some).map_err(|_| StoreError::Damaged {
                        key: key.as_str().to_owned(),
                    });
                }
                Operation::Delete(deleted) if deleted == key.as_str() => return Ok(None),
                Operation::DeletePrefix(prefix) if key.as_str().starts_with(prefix) => {
                    return Ok(None);
                }
                _ => {}
            }
        }
        Ok(self.stored(key)?.map(|stored| stored.record))
    }

    /// A record as it is stored, whatever this change does to it, with its revision.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn stored<R: Record>(&mut self, key: &Key<R>) -> Result<Option<Stored<R>>, StoreError> {
        let found = self.records.store.get(key.as_str())?;
        let text = key.as_str().to_owned();
        self.transaction.require(match &found {
            Some(versioned) => Precondition::At(text, versioned.revision),
            None => Precondition::Absent(text),
        });
        found
            .map(|versioned| decode(key.as_str(), &versioned))
            .transpose()
    }

    /// Demands that there is no record with this prefix.
    pub fn require_empty<R: Record>(&mut self, prefix: &Prefix<R>) {
        let prefix = prefix.as_str().to_owned();
        self.transaction.require(Precondition::Empty(prefix));
    }

    /// Demands that a record is still the one that was read elsewhere.
    pub fn require<R: Record>(&mut self, key: &Key<R>, revision: Revision) {
        let key = key.as_str().to_owned();
        self.transaction.require(Precondition::At(key, revision));
    }

    /// Writes a record.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn put<R: Record>(&mut self, record: &R) -> Result<(), StoreError> {
        let (key, value) = encode(record)?;
        self.transaction.put(key.as_str(), value);
        Ok(())
    }

    /// Removes a record, where it is there.
    pub fn delete<R: Record>(&mut self, key: &Key<R>) {
        self.transaction.delete(key.as_str());
    }

    /// Removes every record with this prefix.
    pub fn delete_all<R: Record>(&mut self, prefix: &Prefix<R>) {
        self.transaction.delete_prefix(prefix.as_str());
    }
}
