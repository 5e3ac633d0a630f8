//! Records over a real store: pages, and changes that others get in the way of.

use std::sync::atomic::{AtomicU32, Ordering};

use platform_model::TenantName;
use time::OffsetDateTime;

use super::*;
use crate::store::SledStore;

fn records() -> (tempfile::TempDir, Records) {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    (folder, Records::new(Arc::new(store)))
}

fn tenant(name: &str) -> TenantRecord {
    TenantRecord::new(name.parse().unwrap(), OffsetDateTime::UNIX_EPOCH)
}

fn put(records: &Records, names: &[&str]) {
    for name in names {
        let put = |change: &mut Change<'_>| change.put(&tenant(name));
        records.change(put).unwrap();
    }
}

#[test]
fn pages_follow_each_other_until_the_end() {
    let (_folder, records) = records();
    put(&records, &["a", "b", "b-c", "d"]);
    let names = |page: &Page<TenantRecord>| -> Vec<String> {
        let items = page.items.iter();
        items.map(|item| item.record.tenant.to_string()).collect()
    };
    let all = Prefix::all();
    let first = records.page(&all, None, 3).unwrap();
    assert_eq!(
        (names(&first), first.next.as_deref()),
        (vec!["a".into(), "b".into(), "b-c".into()], Some("b-c"))
    );
    let second = records.page(&all, first.next.as_deref(), 3).unwrap();
    assert_eq!((names(&second), second.next), (vec!["d".into()], None));
    // As many as there are is the end too.
    assert_eq!(records.page(&all, None, 4).unwrap().next, None);
    assert_eq!(records.all(&all).unwrap().len(), 4);
    // Whatever a client says is only a place among the keys of the kind.
    let odd = records.page(&all, Some("../usage"), 9).unwrap();
    assert_eq!(odd.items.len(), 4);
}

#[test]
fn a_change_sees_what_it_has_planned() {
    let (_folder, records) = records();
    put(&records, &["a"]);
    let name: TenantName = "a".parse().unwrap();
    let key = TenantRecord::at(&name);
    let plan = |change: &mut Change<'_>| {
        change.delete(&key);
        assert_eq!(change.get(&key)?, None);
        assert!(change.stored(&key)?.is_some());
        change.put(&tenant("a"))?;
        assert!(change.get(&key)?.is_some());
        change.delete_all(&Prefix::<TenantRecord>::all());
        assert_eq!(change.get(&key)?, None);
        Ok::<_, StoreError>(())
    };
    let (_, revision) = records.change(plan).unwrap();
    assert!(revision.is_some());
    assert!(records.get(&key).unwrap().is_none());
}

#[test]
fn a_change_that_writes_nothing_has_no_revision() {
    let (_folder, records) = records();
    let key = TenantRecord::at(&TenantName::default());
    let read = records.change(|change| change.get(&key)).unwrap();
    assert_eq!(read, (None, None));
}

/// Another host that gets in between, as often as it is told.
#[derive(Debug)]
struct Meddler {
    store: SledStore,
    left: AtomicU32,
}

impl MetadataStore for Meddler {
    fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        self.store.get(key)
    }

    fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Versioned)>, StoreError> {
        self.store.scan(prefix, after, limit)
    }

    fn commit(&self, transaction: &crate::store::Transaction) -> Result<Revision, StoreError> {
        let took = |left: u32| left.checked_sub(1);
        if self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, took)
            .is_ok()
        {
            let (key, mut usage) = (
                UsageRecord::at(&TenantName::default()),
                UsageRecord::none(&TenantName::default()),
            );
            let before = self.store.get(key.as_str())?;
            let before =
                before.map(|found| serde_json::from_slice::<UsageRecord>(&found.value).unwrap());
            usage.apps = before.map_or(0, |before| before.apps) + 10;
            let mut other = crate::store::Transaction::default();
            other.put(key.as_str(), serde_json::to_vec(&usage).unwrap());
            self.store.commit(&other)?;
        }
        self.store.commit(transaction)
    }
}

#[test]
fn a_change_is_planned_again_on_what_somebody_else_made() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    let meddler = Meddler {
        store,
        left: AtomicU32::new(3),
    };
    let records = Records::new(Arc::new(meddler));
    let key = UsageRecord::at(&TenantName::default());
    let plan = |change: &mut Change<'_>| {
        let before = change.get(&key)?;
        let mut usage = before.unwrap_or_else(|| UsageRecord::none(&TenantName::default()));
        usage.apps += 1;
        change.put(&usage)
    };
    records.change(plan).unwrap();
    assert_eq!(records.get(&key).unwrap().unwrap().record.apps, 31);
}

#[test]
fn a_change_that_somebody_else_is_always_before_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    let meddler = Meddler {
        store,
        left: AtomicU32::new(u32::MAX),
    };
    let records = Records::new(Arc::new(meddler));
    let key = UsageRecord::at(&TenantName::default());
    let plan = |change: &mut Change<'_>| {
        change.get(&key)?;
        change.put(&UsageRecord::none(&TenantName::default()))
    };
    let error = records.change(plan).unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
}

#[test]
fn changes_of_one_process_do_not_make_each_other_fail() {
    let (_folder, records) = records();
    let key = UsageRecord::at(&TenantName::default());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..8 {
                    let plan = |change: &mut Change<'_>| {
                        let before = change.get(&key)?;
                        let mut usage =
                            before.unwrap_or_else(|| UsageRecord::none(&TenantName::default()));
                        usage.apps += 1;
                        change.put(&usage)
                    };
                    records.change(plan).unwrap();
                }
            });
        }
    });
    assert_eq!(records.get(&key).unwrap().unwrap().record.apps, 64);
}
