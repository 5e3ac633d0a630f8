//! The kinds of things that the node remembers, each a type of its own, above whatever store keeps them.
//!
//! One file a kind: what a record holds and under which key it lies. What may be done to it, and what must hold between
//! records, is the engine's. Keys are parts joined by `/`, the first of which is the kind; names have no `/`, so no key can
//! be taken for another. Values are JSON.
//!
//! | key | record |
//! |---|---|
//! | `tenant/T` | [`TenantRecord`] |
//! | `usage/T` | [`UsageRecord`] |
//! | `component/T/DIGEST` | [`ComponentRecord`] |
//! | `app/T/A` | [`AppRecord`] |
//! | `deployment/T/A/NUMBER` | [`DeploymentRecord`] |
//! | `last/T/A` | [`LastRecord`] |
//! | `settings/T/A` | [`SettingsRecord`] |
//! | `history/T/A/PLACE` | [`HistoryRecord`] |
//! | `canary/T/A` | [`CanaryRecord`] |
//! | `secret/T/A/NAME/VERSION` | [`SecretRecord`] |
//! | `token/T/ID` | [`TokenRecord`] |
//! | `routes/T/A` | [`RoutesRecord`] |
//! | `domain/T/DOMAIN` | [`DomainRecord`] |
//! | `domain-owner/DOMAIN` | [`DomainOwnerRecord`] |
//! | `certificate/T/DOMAIN` | [`CertificateRecord`] |
//! | `issuance/T/DOMAIN` | [`IssuanceRecord`] |
//! | `acme-account/ID` | [`AcmeAccountRecord`] |
//! | `audit/PLACE` | [`AuditRecord`] |
//! | `tenant-audit/T/PLACE` | [`TenantAuditRecord`] |
//! | `idempotency/T/TOKEN/KEY` | [`IdempotencyRecord`] |

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use platform_model::List;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{MetadataStore, Revision, StoreError, Versioned};

mod app;
mod audit;
mod change;
mod component;
mod deployment;
mod domain;
mod format1;
mod idempotency;
mod release;
mod route;
mod settings;
mod tenant;
mod token;
mod usage;

pub use app::{AppRecord, LastRecord};
pub use audit::{AuditId, AuditRecord, TenantAuditRecord};
pub use change::Change;
pub use component::ComponentRecord;
pub use deployment::DeploymentRecord;
pub use domain::{
    AcmeAccountRecord, CertificateRecord, DomainOwnerRecord, DomainRecord, IssuanceRecord,
};
pub use idempotency::{IdempotencyRecord, OnceKey};
pub use release::{CanaryRecord, HistoryRecord};
pub use route::RoutesRecord;
pub use settings::{SecretHead, SecretRecord, SettingsRecord};
pub use tenant::TenantRecord;
pub use token::TokenRecord;
pub use usage::UsageRecord;

pub(super) use format1::migrate;

/// How often a change is planned again because somebody else was there first.
const ATTEMPTS: usize = 32;

/// Records that are read at once by what reads all of a kind.
const PAGE: usize = 256;

/// A kind of record.
pub trait Record: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// First part of its keys.
    const KIND: &'static str;

    /// The key that the record lies under.
    fn key(&self) -> Key<Self>;
}

/// The key of a record of one kind.
pub struct Key<R> {
    text: String,
    kind: PhantomData<fn() -> R>,
}

impl<R: Record> Key<R> {
    /// The key of these parts. None of them may have a `/`.
    fn of(parts: &[&str]) -> Self {
        let mut text = R::KIND.to_owned();
        for part in parts {
            text.push('/');
            text.push_str(part);
        }
        let kind = PhantomData;
        Self { text, kind }
    }

    /// The key as the store has it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// How the keys of several records of one kind start.
pub struct Prefix<R> {
    text: String,
    kind: PhantomData<fn() -> R>,
}

impl<R: Record> Prefix<R> {
    /// All keys of the kind.
    #[must_use]
    pub fn all() -> Self {
        Self::of(&[])
    }

    /// The keys whose first parts are these. None of them may have a `/`.
    fn of(parts: &[&str]) -> Self {
        let Key { mut text, kind } = Key::<R>::of(parts);
        text.push('/');
        Self { text, kind }
    }

    /// The prefix as the store has it: it ends in `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl<R> fmt::Debug for Key<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<R> fmt::Debug for Prefix<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}*", self.text)
    }
}

/// A record with the write that it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored<R> {
    /// The record.
    pub record: R,
    /// When it was written.
    pub revision: Revision,
}

/// Some records in the order of their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<R> {
    /// The records.
    pub items: Vec<Stored<R>>,
    /// Where the next page starts; none at the end.
    pub next: Option<String>,
}

impl<R> Page<R> {
    /// The page as the API shows it.
    pub(crate) fn list<T>(self, show: impl FnMut(R) -> T) -> List<T> {
        let records = self.items.into_iter().map(|stored| stored.record);
        List {
            items: records.map(show).collect(),
            next: self.next,
        }
    }
}

/// The records in a store. Clones are the same ones.
#[derive(Debug, Clone)]
pub struct Records {
    store: Arc<dyn MetadataStore>,
    /// Held by the one change of this process that is being made: changes of one process do not make each other fail.
    /// What other hosts change meanwhile is found by preconditions.
    turn: Arc<Mutex<()>>,
}

impl Records {
    /// The records in `store`.
    #[must_use]
    pub fn new(store: Arc<dyn MetadataStore>) -> Self {
        let turn = Arc::default();
        Self { store, turn }
    }

    /// A record.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn get<R: Record>(&self, key: &Key<R>) -> Result<Option<Stored<R>>, StoreError> {
        let found = self.store.get(key.as_str())?;
        found
            .map(|versioned| decode(key.as_str(), &versioned))
            .transpose()
    }

    /// At most `limit` records, from the cursor `after` on: the [`Page::next`] of the page before. A cursor that nobody
    /// gave starts at the place in the order that it names.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn page<R: Record>(
        &self,
        prefix: &Prefix<R>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<R>, StoreError> {
        let start = prefix.as_str();
        let after = after.map(|after| format!("{start}{after}"));
        let mut found = self.store.scan(start, after.as_deref(), limit + 1)?;
        let more = found.len() > limit;
        found.truncate(limit);
        let last = found.last().and_then(|(key, _)| key.strip_prefix(start));
        let next = last.filter(|_| more).map(str::to_owned);
        let items = found
            .iter()
            .map(|(key, versioned)| decode(key, versioned))
            .collect::<Result<_, _>>()?;
        Ok(Page { items, next })
    }

    /// All records with a prefix. They are read page by page: what is changed meanwhile may be old or new.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn all<R: Record>(&self, prefix: &Prefix<R>) -> Result<Vec<R>, StoreError> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let page = self.page(prefix, after.as_deref(), PAGE)?;
            all.extend(page.items.into_iter().map(|stored| stored.record));
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(all),
            }
        }
    }

    /// Makes a change: `plan` reads what it depends on and says what is to be written. Where somebody else changed what it
    /// read, it is called again. What it returns, with the revision of what was written, if anything was.
    ///
    /// # Errors
    /// What `plan` returns, without anything being changed; or what the store says of the commit.
    pub fn change<T, E: From<StoreError>>(
        &self,
        mut plan: impl FnMut(&mut Change<'_>) -> Result<T, E>,
    ) -> Result<(T, Option<Revision>), E> {
        // Nothing is behind the lock that a panic could leave half changed.
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = ATTEMPTS;
        loop {
            let mut change = Change::new(self);
            let planned = plan(&mut change)?;
            let transaction = change.into_transaction();
            if transaction.operations().is_empty() {
                return Ok((planned, None));
            }
            left -= 1;
            match self.store.commit(&transaction) {
                Ok(revision) => return Ok((planned, Some(revision))),
                Err(StoreError::Conflict { .. }) if left > 0 => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Reads a record.
fn decode<R: Record>(key: &str, versioned: &Versioned) -> Result<Stored<R>, StoreError> {
    let record = serde_json::from_slice(&versioned.value).map_err(|_| StoreError::Damaged {
        key: key.to_owned(),
    })?;
    let revision = versioned.revision;
    Ok(Stored { record, revision })
}

/// Writes a record.
fn encode<R: Record>(record: &R) -> Result<(Key<R>, Vec<u8>), StoreError> {
    let key = record.key();
    match serde_json::to_vec(record) {
        Ok(value) => Ok((key, value)),
        // A record that is no JSON could not be read again either.
        Err(_) => Err(StoreError::Damaged { key: key.text }),
    }
}

/// Whether a value is the record that its key says.
pub(super) fn is_record(key: &str, value: &[u8]) -> bool {
    let kind = key.split('/').next().unwrap_or_default();
    KINDS
        .iter()
        .any(|(known, reads)| *known == kind && reads(key, value))
}

/// Whether a value is a record of the kind and lies under its key.
fn reads<R: Record>(key: &str, value: &[u8]) -> bool {
    serde_json::from_slice::<R>(value).is_ok_and(|record| record.key().as_str() == key)
}

/// Tells whether the value under a key is of one kind.
type Reads = fn(&str, &[u8]) -> bool;

/// Every kind.
const KINDS: &[(&str, Reads)] = &[
    (TenantRecord::KIND, reads::<TenantRecord>),
    (UsageRecord::KIND, reads::<UsageRecord>),
    (ComponentRecord::KIND, reads::<ComponentRecord>),
    (AppRecord::KIND, reads::<AppRecord>),
    (DeploymentRecord::KIND, reads::<DeploymentRecord>),
    (LastRecord::KIND, reads::<LastRecord>),
    (SettingsRecord::KIND, reads::<SettingsRecord>),
    (HistoryRecord::KIND, reads::<HistoryRecord>),
    (CanaryRecord::KIND, reads::<CanaryRecord>),
    (SecretRecord::KIND, reads::<SecretRecord>),
    (TokenRecord::KIND, reads::<TokenRecord>),
    (AuditRecord::KIND, reads::<AuditRecord>),
    (TenantAuditRecord::KIND, reads::<TenantAuditRecord>),
    (IdempotencyRecord::KIND, reads::<IdempotencyRecord>),
    (RoutesRecord::KIND, reads::<RoutesRecord>),
    (DomainRecord::KIND, reads::<DomainRecord>),
    (DomainOwnerRecord::KIND, reads::<DomainOwnerRecord>),
    (CertificateRecord::KIND, reads::<CertificateRecord>),
    (IssuanceRecord::KIND, reads::<IssuanceRecord>),
    (AcmeAccountRecord::KIND, reads::<AcmeAccountRecord>),
];

#[cfg(test)]
mod tests;
