//! The store on disk: what it remembers over a restart, and how it meets damage.

use std::collections::BTreeMap;
use std::fs;

use platform_model::Limits;

use super::*;

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
        allow_hosts: vec!["example.com:443".parse().unwrap()],
        limits: Limits::default(),
        isolation: platform_model::Isolation::default(),
        scale: platform_model::Scale::default(),
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
        store.commit_deployment(&record).unwrap();
    }
    folder
}

#[test]
fn what_was_written_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let deployment = record("acme", "shop", 1);
    {
        let store = SledStore::open(folder.path()).unwrap();
        store.commit_deployment(&deployment).unwrap();
        store.commit_deployment(&record("acme", "shop", 2)).unwrap();
        store
            .commit_deployment(&record("other", "shop", 1))
            .unwrap();
    }
    let store = SledStore::open(folder.path()).unwrap();
    let (tenant, app) = (&deployment.tenant, &deployment.app);
    let stored = store.app(tenant, app).unwrap().unwrap();
    assert_eq!((stored.active, stored.deployments), (DeploymentId(2), 2));
    let first = store.deployment(tenant, app, DeploymentId(1)).unwrap();
    assert_eq!(first, Some(deployment.clone()));
    assert_eq!(store.deployments(Some((tenant, app))).unwrap().len(), 2);
    assert_eq!(store.deployments(None).unwrap().len(), 3);
    assert_eq!(store.tenants().unwrap().len(), 2);
    assert_eq!(store.apps(None).unwrap().len(), 2);
}

#[test]
fn a_name_that_starts_like_another_is_another() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    store.commit_deployment(&record("a", "x", 1)).unwrap();
    store.commit_deployment(&record("a-b", "x", 1)).unwrap();
    store.commit_deployment(&record("a", "x-y", 1)).unwrap();
    assert_eq!(store.apps(Some(&"a".parse().unwrap())).unwrap().len(), 2);
    assert!(
        store
            .delete_app(&"a".parse().unwrap(), &"x".parse().unwrap())
            .unwrap()
    );
    assert_eq!(store.deployments(None).unwrap().len(), 2);
}

#[test]
fn a_number_is_given_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    store.commit_deployment(&record("t", "a", 1)).unwrap();
    for wrong in [0, 1, 3] {
        let error = store
            .commit_deployment(&record("t", "a", wrong))
            .unwrap_err();
        assert!(matches!(error, StoreError::NumberTaken(_)), "{error}");
    }
}

#[test]
fn numbers_go_on_after_an_app_was_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    store.commit_deployment(&record("t", "a", 1)).unwrap();
    store.commit_deployment(&record("t", "a", 2)).unwrap();
    let (tenant, app) = ("t".parse().unwrap(), "a".parse().unwrap());
    assert!(store.delete_app(&tenant, &app).unwrap());
    assert_eq!(
        store.next_deployment(&tenant, &app).unwrap(),
        DeploymentId(3)
    );
    store.commit_deployment(&record("t", "a", 3)).unwrap();
    let app = store.app(&tenant, &app).unwrap().unwrap();
    assert_eq!((app.last, app.deployments), (DeploymentId(3), 1));
}

#[test]
fn tenants_go_when_they_are_empty() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    let tenant: TenantName = "acme".parse().unwrap();
    assert!(store.create_tenant(&tenant, now()).unwrap());
    assert!(!store.create_tenant(&tenant, now()).unwrap());
    let component = ComponentRecord {
        tenant: tenant.clone(),
        digest: Digest::from_sha256([1; 32]),
        size: 3,
        uploaded_at: now(),
    };
    store.put_component(&component).unwrap();
    assert_eq!(
        store.components().unwrap(),
        std::slice::from_ref(&component)
    );
    store.commit_deployment(&record("acme", "shop", 1)).unwrap();
    let error = store.delete_tenant(&tenant).unwrap_err();
    assert!(matches!(error, StoreError::TenantNotEmpty(1)));
    assert!(store.delete_app(&tenant, &"shop".parse().unwrap()).unwrap());
    assert!(store.delete_tenant(&tenant).unwrap());
    assert!(!store.delete_tenant(&tenant).unwrap());
    assert_eq!(store.component(&tenant, &component.digest).unwrap(), None);
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let folder = filled(1);
    fs::write(
        folder.path().join("state.json"),
        r#"{"format":2,"new":true}"#,
    )
    .unwrap();
    let error = SledStore::open(folder.path()).unwrap_err();
    assert!(
        matches!(error, OpenError::Newer { found: 2, .. }),
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
    assert!(error.contains("0 of the 3 writes"), "{error}");
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
        Ok(store) => assert_eq!(store.deployments(None).unwrap().len(), 40),
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
