//! A transaction: what must hold, and what is written then. Only a description; the store makes it.

use std::fmt;

use super::Revision;

/// Most operations that a transaction may have. etcd takes 128 by default.
pub const MAX_OPERATIONS: usize = 100;

/// What must hold for a transaction to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// There is no such key.
    Absent(String),
    /// The value of the key is the one that was written then.
    At(String, Revision),
    /// No key starts with this.
    Empty(String),
}

/// What a transaction does.
#[derive(Clone, PartialEq, Eq)]
pub enum Operation {
    /// Gives a key a value.
    Put(String, Vec<u8>),
    /// Removes a key, where it is there.
    Delete(String),
    /// Removes every key that starts with this.
    DeletePrefix(String),
}

impl fmt::Debug for Operation {
    /// Without values, which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(key, value) => write!(f, "put {key} ({} bytes)", value.len()),
            Self::Delete(key) => write!(f, "delete {key}"),
            Self::DeletePrefix(prefix) => write!(f, "delete {prefix}*"),
        }
    }
}

/// Preconditions and operations. No key may be touched by two operations: etcd refuses it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    preconditions: Vec<Precondition>,
    operations: Vec<Operation>,
}

impl Transaction {
    /// Demands something.
    pub fn require(&mut self, precondition: Precondition) {
        if !self.preconditions.contains(&precondition) {
            self.preconditions.push(precondition);
        }
    }

    /// Gives a key a value; the last one counts.
    pub fn put(&mut self, key: impl Into<String>, value: Vec<u8>) {
        let key = key.into();
        self.forget(&key);
        self.operations.push(Operation::Put(key, value));
    }

    /// Removes a key.
    pub fn delete(&mut self, key: impl Into<String>) {
        let key = key.into();
        self.forget(&key);
        self.operations.push(Operation::Delete(key));
    }

    /// Removes all keys that start with `prefix`.
    pub fn delete_prefix(&mut self, prefix: impl Into<String>) {
        let prefix = prefix.into();
        self.operations.retain(|operation| match operation {
            Operation::Put(key, _) | Operation::Delete(key) | Operation::DeletePrefix(key) => {
                !key.starts_with(&prefix)
            }
        });
        self.operations.push(Operation::DeletePrefix(prefix));
    }

    /// What must hold.
    #[must_use]
    pub fn preconditions(&self) -> &[Precondition] {
        &self.preconditions
    }

    /// What is done then.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Takes out what was to be done to a key.
    fn forget(&mut self, other: &str) {
        self.operations.retain(|operation| match operation {
            Operation::Put(key, _) | Operation::Delete(key) => key != other,
            Operation::DeletePrefix(_) => true,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_touched_once() {
        let mut transaction = Transaction::default();
        transaction.put("a/1", vec![1]);
        transaction.put("a/1", vec![2]);
        transaction.delete("b");
        transaction.put("b", vec![3]);
        assert_eq!(
            transaction.operations(),
            [
                Operation::Put("a/1".to_owned(), vec![2]),
                Operation::Put("b".to_owned(), vec![3])
            ]
        );
        transaction.delete_prefix("a/");
        assert_eq!(transaction.operations().len(), 2);
        transaction.require(Precondition::Absent("x".to_owned()));
        transaction.require(Precondition::Absent("x".to_owned()));
        assert_eq!(transaction.preconditions().len(), 1);
    }

    #[test]
    fn values_are_not_shown() {
        let mut transaction = Transaction::default();
        transaction.put("secret/x", b"hunter2".to_vec());
        let text = format!("{transaction:?}");
        assert!(
            text.contains("secret/x") && !text.contains("hunter"),
            "{text}"
        );
    }
}
