//! The store on disk: what it remembers over a restart, what it lets pass, and how it meets damage.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use platform_model::{DeploymentId, Digest, Limits};
use time::OffsetDateTime;

use super::*;
use crate::store::Records;
use crate::store::records::{
    AppRecord, ComponentRecord, DeploymentRecord, LastRecord, Prefix, Record as _, TenantRecord,
    UsageRecord,
};

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

fn record(tenant: &str, app: &str, number: u64) -> DeploymentRecord {
    DeploymentRecord {
        tenant: tenant.parse().unwrap(),
        app: app.parse().unwrap(),
        deployment: DeploymentId(number),
        digest: Digest::from_sha256([7; 32]),
        env: BTreeMap::from([("A".to_owned(), "b".to_owned())]),
        config: BTreeMap::new(),
        secrets: BTreeMap::new(),
        allow_hosts: vec!["example.com:443".parse().unwrap()],
        limits: Limits::default(),
        isolation: platform_model::Isolation::default(),
        scale: platform_model::Scale::default(),
        health: None,
        imports: None,
        growth: platform_model::Growth::default(),
        created_at: now(),
    }
}

/// Opens a store, fills it with deployments, and closes it.
fn filled(deployments: u64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    for number in 1..=deployments {
        let mut record = record("acme", "shop", number);
        record.env.insert("PADDING".to_owned(), "x".repeat(4000));
        put(&store, &[(record.key().as_str(), &json(&record))]);
    }
    folder
}

fn json(record: &impl serde::Serialize) -> String {
    serde_json::to_string(record).unwrap()
}

/// Writes values that need not be records; the revision.
fn put(store: &SledStore, values: &[(&str, &str)]) -> Revision {
    let mut transaction = Transaction::default();
    for (key, value) in values {
        transaction.put(*key, value.as_bytes().to_vec());
    }
    store.commit(&transaction).unwrap()
}

fn keys(store: &SledStore, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let found = store.scan(prefix, after, limit).unwrap();
    found.into_iter().map(|(key, _)| key).collect()
}

#[test]
fn what_was_written_is_there_after_a_restart_with_its_revision() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (record("acme", "shop", 1), record("acme", "shop", 2));
    let (first, second) = {
        let store = SledStore::open(folder.path()).unwrap();
        let first = put(&store, &[(a.key().as_str(), &json(&a))]);
        let second = put(&store, &[(b.key().as_str(), &json(&b))]);
        (first, second)
    };
    assert!(first < second);
    let store = SledStore::open(folder.path()).unwrap();
    let found = store.get(a.key().as_str()).unwrap().unwrap();
    assert_eq!(found.revision, first);
    assert_eq!(found.value, json(&a).into_bytes());
    assert_eq!(store.get("deployment/acme/shop/3").unwrap(), None);
    let found = store.scan("deployment/", None, 10).unwrap();
    assert_eq!(found[1].1.revision, second);
    // Revisions go on.
    assert!(put(&store, &[("tenant/x", "{}")]) > second);
}

#[test]
fn scans_have_an_order_a_start_and_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    put(
        &store,
        &[
            ("a/1", ""),
            ("a/2", ""),
            ("a/3", ""),
            ("a-b/1", ""),
            ("b/1", ""),
        ],
    );
    assert_eq!(keys(&store, "a/", None, 10), ["a/1", "a/2", "a/3"]);
    assert_eq!(keys(&store, "a/", None, 2), ["a/1", "a/2"]);
    assert_eq!(keys(&store, "a/", Some("a/1"), 10), ["a/2", "a/3"]);
    // A key that is not there is a place in the order too; one before the prefix is the start.
    assert_eq!(keys(&store, "a/", Some("a/11"), 10), ["a/2", "a/3"]);
    assert_eq!(keys(&store, "a/", Some("a"), 10), ["a/1", "a/2", "a/3"]);
    assert!(keys(&store, "a/", Some("b"), 10).is_empty());
    assert!(keys(&store, "c/", None, 10).is_empty());
}

#[test]
fn a_transaction_is_made_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    let first = put(&store, &[("a/1", "x"), ("b/1", "y")]);
    let cases = [
        (Precondition::Absent("c/1".to_owned()), true),
        (Precondition::Absent("a/1".to_owned()), false),
        (Precondition::At("a/1".to_owned(), first), true),
        (
            Precondition::At("a/1".to_owned(), Revision(first.0 + 1)),
            false,
        ),
        (Precondition::At("c/1".to_owned(), first), false),
        (Precondition::Empty("c/".to_owned()), true),
        (Precondition::Empty("b/".to_owned()), false),
    ];
    for (number, (precondition, holds)) in cases.into_iter().enumerate() {
        let mut transaction = Transaction::default();
        let key = format!("made/{number}");
        transaction.put(&key, b"1".to_vec());
        transaction.require(precondition.clone());
        let committed = store.commit(&transaction);
        assert_eq!(committed.is_ok(), holds, "{precondition:?}");
        assert_eq!(
            store.get(&key).unwrap().is_some(),
            holds,
            "{precondition:?}"
        );
        if !holds {
            assert!(matches!(committed, Err(StoreError::Conflict { .. })));
        }
    }
    let mut transaction = Transaction::default();
    transaction.delete("a/1");
    transaction.delete("nothing/1");
    transaction.delete_prefix("made/");
    transaction.put("a/2", Vec::new());
    store.commit(&transaction).unwrap();
    assert_eq!(keys(&store, "a/", None, 10), ["a/2"]);
    assert!(keys(&store, "made/", None, 10).is_empty());
}

#[test]
fn a_transaction_that_etcd_would_refuse_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    let mut transaction = Transaction::default();
    for number in 0..=MAX_OPERATIONS {
        transaction.put(format!("a/{number}"), Vec::new());
    }
    let error = store.commit(&transaction).unwrap_err();
    assert!(matches!(error, StoreError::TooLarge(101)), "{error}");
    assert!(keys(&store, "a/", None, 1).is_empty());
}

/// What the first version wrote: values without revisions, no usage, a last number that does not say whose it is.
fn format_1() -> (tempfile::TempDir, u64) {
    let folder = tempfile::tempdir().unwrap();
    let db = sled::open(folder.path().join("sled")).unwrap();
    let tenant = r#"{"tenant":"acme","created_at":"2026-01-02T03:04:05Z"}"#;
    let app = r#"{"tenant":"acme","app":"shop","active":2,"last":2,"deployments":2,"created_at":"2026-01-02T03:04:05Z"}"#;
    let digest = Digest::from_sha256([7; 32]);
    let component = format!(
        r#"{{"tenant":"acme","digest":"{digest}","size":1000,"uploaded_at":"2026-01-02T03:04:05Z"}}"#
    );
    let deployment = |number| json(&record("acme", "shop", number));
    let entries = [
        ("tenant/acme".to_owned(), tenant.to_owned()),
        ("app/acme/shop".to_owned(), app.to_owned()),
        (format!("component/acme/{}", digest.hex()), component),
        (
            record("acme", "shop", 1).key().as_str().to_owned(),
            deployment(1),
        ),
        (
            record("acme", "shop", 2).key().as_str().to_owned(),
            deployment(2),
        ),
        ("last/acme/gone".to_owned(), "7".to_owned()),
    ];
    let commits = entries.len() as u64;
    for (key, value) in entries {
        db.insert(key, value.as_bytes()).unwrap();
    }
    db.insert(COMMITS, &commits.to_be_bytes()).unwrap();
    db.flush().unwrap();
    let state = format!(r#"{{"format":1,"commits":{commits}}}"#);
    fs::write(folder.path().join("state.json"), state).unwrap();
    (folder, commits)
}

fn check_migrated(folder: &Path, commits: u64) {
    let records = Records::new(Arc::new(SledStore::open(folder).unwrap()));
    let tenant = "acme".parse().unwrap();
    let stored = records.get(&TenantRecord::at(&tenant)).unwrap().unwrap();
    assert_eq!(stored.revision, Revision(commits + 1));
    assert_eq!(stored.record.quotas, platform_model::Quotas::default());
    let usage = records.get(&UsageRecord::at(&tenant)).unwrap().unwrap();
    let usage = usage.record;
    assert_eq!(
        (usage.apps, usage.deployments, usage.disk_bytes),
        (1, 2, 1000)
    );
    let apps = records.all::<AppRecord>(&Prefix::all()).unwrap();
    assert_eq!(apps[0].active, DeploymentId(2));
    let deployments = records.all::<DeploymentRecord>(&Prefix::all()).unwrap();
    assert_eq!(
        deployments,
        [record("acme", "shop", 1), record("acme", "shop", 2)]
    );
    let components = records.all::<ComponentRecord>(&Prefix::all()).unwrap();
    assert_eq!((components.len(), components[0].size), (1, 1000));
    let gone = LastRecord::at(&tenant, &"gone".parse().unwrap());
    assert_eq!(
        records.get(&gone).unwrap().unwrap().record.last,
        DeploymentId(7)
    );
    let manifest = Manifest::read(folder).unwrap().unwrap();
    assert_eq!((manifest.format, manifest.commits), (FORMAT, commits + 1));
}

#[test]
fn a_store_of_format_1_is_brought_to_this_one_once() {
    let (folder, commits) = format_1();
    check_migrated(folder.path(), commits);
    check_migrated(folder.path(), commits);
}

#[test]
fn a_migration_that_was_cut_before_it_was_noted_is_noted() {
    let (folder, commits) = format_1();
    let before = fs::read(folder.path().join("state.json")).unwrap();
    drop(SledStore::open(folder.path()).unwrap());
    fs::write(folder.path().join("state.json"), before).unwrap();
    check_migrated(folder.path(), commits);
}

#[test]
fn what_cannot_be_migrated_is_damage_and_stays() {
    let (folder, _) = format_1();
    let db = sled::open(folder.path().join("sled")).unwrap();
    db.insert("tenant/other", "{}").unwrap();
    db.flush().unwrap();
    drop(db);
    let error = SledStore::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("tenant/other"), "{error}");
    let state = fs::read_to_string(folder.path().join("state.json")).unwrap();
    assert!(state.contains("\"format\":1"), "{state}");
}

#[test]
fn a_record_that_is_not_what_its_key_says_is_damage() {
    for (key, value) in [
        (
            "tenant/other",
            r#"{"tenant":"acme","created_at":"2026-01-02T03:04:05Z"}"#,
        ),
        ("tenant/acme", "{}"),
        ("colour/acme", "{}"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        put(&SledStore::open(folder.path()).unwrap(), &[(key, value)]);
        let error = SledStore::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let folder = filled(1);
    fs::write(
        folder.path().join("state.json"),
        r#"{"format":3,"new":true}"#,
    )
    .unwrap();
    let error = SledStore::open(folder.path()).unwrap_err();
    assert!(
        matches!(error, OpenError::Newer { found: 3, .. }),
        "{error}"
    );
}

#[test]
fn a_state_file_that_is_no_json_is_damage() {
    let folder = filled(1);
    fs::write(folder.path().join("state.json"), "").unwrap();
    let error = SledStore::open(folder.path()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}

#[test]
fn a_database_that_is_gone_is_damage() {
    let folder = filled(3);
    fs::remove_dir_all(folder.path().join("sled")).unwrap();
    let error = SledStore::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("0 of the 4 writes"), "{error}");
}

/// Whatever length the file is cut to: an error that names the folder, or, where only unused room was cut off, all of
/// the content; never a panic and never less than what was acknowledged.
#[test]
fn a_database_that_was_cut_is_damage() {
    let whole = filled(40);
    let db = whole.path().join("sled/db");
    let content = fs::read(&db).unwrap();
    for part in 0..16 {
        let length = content.len() * part / 16;
        let folder = copy(whole.path());
        fs::write(folder.path().join("sled/db"), &content[..length]).unwrap();
        expect_whole_or_damaged(folder.path());
    }
}

#[test]
fn a_database_with_overwritten_bytes_is_damage() {
    let whole = filled(40);
    let content = fs::read(whole.path().join("sled/db")).unwrap();
    for part in 0..16 {
        let folder = copy(whole.path());
        let mut garbled = content.clone();
        let from = garbled.len() * part / 16;
        let to = (from + 512).min(garbled.len());
        garbled[from..to].fill(0xa5);
        fs::write(folder.path().join("sled/db"), garbled).unwrap();
        expect_whole_or_damaged(folder.path());
    }
}

fn expect_whole_or_damaged(folder: &Path) {
    match SledStore::open(folder) {
        Ok(store) => assert_eq!(keys(&store, "deployment/", None, 100).len(), 40),
        Err(OpenError::Damaged { path, .. }) => assert_eq!(path, folder),
        Err(other) => panic!("{other}"),
    }
}

fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    copy_into(from, to.path());
    to
}

fn copy_into(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy_into(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
