//! Each thing that can be wrong, made wrong on a folder that a node has left.

use platform_model::{
    ConfigChanges, DeployRequest, DeploymentId, Role, SecretName, SecretRequest, TenantName,
    TokenRequest,
};

use super::*;
use crate::engine::{Expected, Origin};
use crate::fake::Node;
use crate::store::records::{
    AppRecord, ComponentRecord, Prefix, Record, SecretRecord, SettingsRecord, TokenRecord,
    UsageRecord,
};

/// A folder with a bit of everything.
async fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path()).await;
    let engine = &node.engine;
    let origin = || Origin::node("test", None);
    let tenant = TenantName::default();
    let app: platform_model::AppName = "shop".parse().unwrap();
    let mut upload = engine.upload().await.unwrap();
    upload.write(b"one").await.unwrap();
    let digest = engine
        .uploaded(&origin(), &tenant, upload)
        .await
        .unwrap()
        .digest;
    let request = DeployRequest::new(digest);
    engine
        .deploy(origin(), tenant.clone(), app.clone(), request)
        .await
        .unwrap();
    let name: SecretName = "PASSWORD".parse().unwrap();
    let secret = SecretRequest {
        value: Secret::new("v"),
        deploy: true,
    };
    engine
        .set_secret(&origin(), &tenant, &app, &name, Expected::Anything, secret)
        .await
        .unwrap();
    let other = "later".parse().unwrap();
    let values = [("A".to_owned(), Some("b".to_owned()))].into();
    let changes = ConfigChanges {
        values,
        deploy: true,
    };
    engine
        .change_config(&origin(), &tenant, &other, Expected::Anything, changes)
        .await
        .unwrap();
    let token = TokenRequest::new(Role::Read);
    engine
        .create_token(&origin(), Some(tenant), token)
        .await
        .unwrap();
    folder
}

fn look(folder: &tempfile::TempDir) -> Report {
    check(folder.path(), None).unwrap()
}

/// The first record of a kind, changed.
fn change<R: Record + Clone>(folder: &tempfile::TempDir, change: impl Fn(&mut R)) {
    let store = SledStore::open(&folder.path().join("store")).unwrap();
    let records = Records::new(Arc::new(store));
    let mut record = records.all::<R>(&Prefix::all()).unwrap().remove(0);
    let before = record.key();
    change(&mut record);
    records
        .change(|plan| {
            plan.delete(&before);
            plan.put(&record)
        })
        .unwrap();
}

fn remove<R: Record>(folder: &tempfile::TempDir) {
    let store = SledStore::open(&folder.path().join("store")).unwrap();
    let records = Records::new(Arc::new(store));
    let record = records.all::<R>(&Prefix::all()).unwrap().remove(0);
    let delete = |plan: &mut crate::store::Change<'_>| {
        plan.delete(&record.key());
        Ok::<_, StoreError>(())
    };
    records.change(delete).unwrap();
}

#[track_caller]
fn expect(folder: &tempfile::TempDir, what: &str, why: &str) {
    let report = look(folder);
    let fits = |finding: &Finding| finding.what.contains(what) && finding.why.contains(why);
    assert!(report.problems.iter().any(fits), "{report:#?}");
}

#[tokio::test]
async fn a_folder_that_a_node_has_left_is_well() {
    let folder = folder().await;
    let report = look(&folder);
    assert_eq!((&report.problems, &report.leftovers), (&vec![], &vec![]));
    assert!(
        report.records > 8 && report.components == 1 && report.sealed == 1,
        "{report:?}"
    );
    // Looking changes nothing.
    assert_eq!(look(&folder), report);
}

#[tokio::test]
async fn each_pointer_is_followed() {
    let one = folder().await;
    change::<AppRecord>(&one, |app| app.active = DeploymentId(9));
    expect(&one, "app/default/shop", "deployment 9");
    let one = folder().await;
    change::<AppRecord>(&one, |app| app.deployments = 5);
    expect(
        &one,
        "app/default/shop",
        "counts 5 deployments, there are 2",
    );
    let one = folder().await;
    remove::<AppRecord>(&one);
    expect(&one, "deployment/default/shop", "not there");
    let one = folder().await;
    remove::<ComponentRecord>(&one);
    expect(&one, "deployment/default/shop", "no component");
    let one = folder().await;
    remove::<SecretRecord>(&one);
    expect(&one, "deployment/default/shop", "PASSWORD (version 1)");
    expect(&one, "settings/default/shop", "PASSWORD (version 1)");
    let one = folder().await;
    change::<TokenRecord>(&one, |token| token.scope = platform_model::Scope::Node);
    expect(&one, "token/default/", "over node");
    let one = folder().await;
    change::<SettingsRecord>(&one, |settings| settings.tenant = "nobody".parse().unwrap());
    expect(&one, "settings/nobody/", "no tenant nobody");
}

#[tokio::test]
async fn what_is_counted_is_counted_again() {
    let one = folder().await;
    change::<UsageRecord>(&one, |usage| usage.disk_bytes += 1);
    expect(&one, "usage/default", "disk_bytes: 6");
    let one = folder().await;
    remove::<UsageRecord>(&one);
    expect(&one, "usage/default", "not there");
}

#[tokio::test]
async fn components_are_what_they_are_called() {
    let one = folder().await;
    let file = &names(&one.path().join("components")).unwrap()[0];
    let path = one.path().join("components").join(file);
    std::fs::write(&path, "two").unwrap();
    expect(&one, "components/", "digest");
    std::fs::write(&path, "longer").unwrap();
    expect(&one, "components/", "6 bytes");
    std::fs::remove_file(&path).unwrap();
    expect(&one, "components/", "not there");
    std::fs::write(one.path().join("components/upload-0"), "half").unwrap();
    assert_eq!(look(&one).leftovers[0].what, "components/upload-0");
}

#[tokio::test]
async fn what_is_sealed_is_opened() {
    let one = folder().await;
    change::<SecretRecord>(&one, |secret| secret.name = "OTHER".parse().unwrap());
    expect(&one, "secret/default/shop/OTHER", "does not open");
    let one = folder().await;
    std::fs::remove_file(one.path().join(keyring::FILE)).unwrap();
    expect(&one, keyring::FILE, "no key");
    let key = Secret::new("ab".repeat(32));
    let report = check(one.path(), Some(&key)).unwrap();
    assert!(
        report.problems[0].why.contains("is sealed with the key"),
        "{report:?}"
    );
}

#[tokio::test]
async fn what_is_no_folder_of_a_node_is_told_so() {
    let empty = tempfile::tempdir().unwrap();
    let error = check(empty.path(), None).unwrap_err();
    assert!(matches!(error, CheckError::NoState(_)), "{error}");
    assert!(names(empty.path()).unwrap().is_empty());
    let one = folder().await;
    let _running = DataDir::open(one.path()).unwrap();
    let error = check(one.path(), None).unwrap_err();
    assert!(
        matches!(error, CheckError::DataDir(DataDirError::InUse { .. })),
        "{error}"
    );
    drop(_running);
    std::fs::write(
        one.path().join("store/state.json"),
        r#"{"format":1,"commits":0}"#,
    )
    .unwrap();
    let error = check(one.path(), None).unwrap_err();
    assert!(
        matches!(error, CheckError::Older { found: 1, .. }),
        "{error}"
    );
}
