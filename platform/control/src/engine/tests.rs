//! Deploys against fake neighbours and a real data folder.

use std::fs;

use platform_model::{DeployRequest, Limits};

use super::*;
use crate::fake::Node;
use crate::store::records::{ComponentRecord, UsageRecord};

mod certify;
mod releases;
mod tenants;

fn names() -> (TenantName, AppName) {
    (TenantName::default(), "shop".parse().unwrap())
}

fn test() -> Origin {
    Origin::node("test", None)
}

async fn upload(node: &Node, content: &[u8]) -> Digest {
    let mut upload = node.engine.upload().await.unwrap();
    upload.write(content).await.unwrap();
    let uploaded = node
        .engine
        .uploaded(&test(), &TenantName::default(), upload)
        .await;
    uploaded.unwrap().digest
}

async fn deploy(node: &Node, digest: Digest) -> Result<u64, DeployError> {
    let (tenant, app) = names();
    let deployed = node
        .engine
        .deploy(test(), tenant, app, DeployRequest::new(digest))
        .await;
    deployed.map(|deployed| deployed.record.deployment.0)
}

#[tokio::test]
async fn a_deploy_is_served_and_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    {
        let node = Node::start(folder.path()).await;
        let first = upload(&node, b"one").await;
        assert_eq!(deploy(&node, first).await.unwrap(), 1);
        let second = upload(&node, b"two").await;
        assert_eq!(deploy(&node, second).await.unwrap(), 2);
        assert_eq!(node.routes(), [("shop.localhost".to_owned(), 2)]);
    }
    let node = Node::start(folder.path()).await;
    assert_eq!(node.routes(), [("shop.localhost".to_owned(), 2)]);
    // Both may answer again: neither is compiled anew then.
    assert_eq!(node.files("components").len(), 2);
    assert_eq!(node.files("artifacts").len(), 2);
}

#[tokio::test]
async fn what_fails_leaves_the_app_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path()).await;
    let good = upload(&node, b"good").await;
    deploy(&node, good).await.unwrap();
    let bad = upload(&node, b"bad").await;
    let error = deploy(&node, bad).await.unwrap_err();
    assert!(matches!(error, DeployError::Compile(_)), "{error}");
    let lazy = upload(&node, b"lazy").await;
    let error = deploy(&node, lazy).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the component does not start: it has no handler"
    );
    let discarded = node.sandboxes.0.lock().unwrap().discarded.clone();
    assert_eq!(discarded, [DeploymentId(2)]);
    assert_eq!(node.routes(), [("shop.localhost".to_owned(), 1)]);
    let all = node
        .engine
        .ask(|records| records.all::<DeploymentRecord>(&Prefix::all()));
    assert_eq!(all.await.unwrap().len(), 1);
    // The number was not used up.
    assert_eq!(deploy(&node, good).await.unwrap(), 2);
}

#[tokio::test]
async fn what_is_not_possible_is_refused_before_anything_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path()).await;
    let (tenant, app) = names();
    let mut request = DeployRequest::new(Digest::from_sha256([0; 32]));
    let unknown = node
        .engine
        .deploy(test(), tenant.clone(), app.clone(), request.clone())
        .await;
    assert!(matches!(unknown, Err(DeployError::ComponentUnknown { .. })));
    request.limits = Limits {
        cpu_ms: 0,
        ..Limits::default()
    };
    let invalid = node.engine.deploy(test(), tenant, app, request).await;
    assert!(matches!(invalid, Err(DeployError::Request(_))));
    assert!(node.sandboxes.0.lock().unwrap().warmed.is_empty());
}

#[tokio::test]
async fn a_component_is_for_the_tenant_that_uploaded_it() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path()).await;
    let digest = upload(&node, b"one").await;
    let other: TenantName = "other".parse().unwrap();
    let deploy = node
        .engine
        .deploy(test(), other, names().1, DeployRequest::new(digest))
        .await;
    assert!(matches!(deploy, Err(DeployError::ComponentUnknown { .. })));
}

#[tokio::test]
async fn deploys_of_one_app_at_once_get_numbers_one_after_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path()).await;
    let digest = upload(&node, b"one").await;
    let mut deploys = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let engine = Arc::clone(&node.engine);
        let (tenant, app) = names();
        deploys.spawn(async move {
            engine
                .deploy(test(), tenant, app, DeployRequest::new(digest))
                .await
        });
    }
    let mut numbers: Vec<_> = deploys
        .join_all()
        .await
        .into_iter()
        .map(|d| d.unwrap().record.deployment.0)
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(node.routes(), [("shop.localhost".to_owned(), 8)]);
}

#[tokio::test]
async fn a_deleted_app_is_gone_with_its_files() {
    let folder = tempfile::tempdir().unwrap();
    {
        let node = Node::start(folder.path()).await;
        let digest = upload(&node, b"one").await;
        deploy(&node, digest).await.unwrap();
        let (tenant, app) = names();
        assert!(
            node.engine
                .delete_app(&test(), &tenant, &app)
                .await
                .unwrap()
        );
        assert!(
            !node
                .engine
                .delete_app(&test(), &tenant, &app)
                .await
                .unwrap()
        );
        assert!(node.routes().is_empty());
    }
    let node = Node::start(folder.path()).await;
    assert!(node.routes().is_empty());
    assert!(node.files("components").is_empty());
    assert!(node.files("artifacts").is_empty());
}

#[tokio::test]
async fn what_a_killed_node_left_is_removed_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let kept = {
        let node = Node::start(folder.path()).await;
        let digest = upload(&node, b"one").await;
        deploy(&node, digest).await.unwrap();
        upload(&node, b"never deployed").await;
        digest
    };
    let root = folder.path();
    fs::write(root.join("components/upload-3"), "half").unwrap();
    fs::write(root.join("artifacts/.tmp"), "half").unwrap();
    fs::create_dir_all(root.join("logs/default/gone")).unwrap();
    let node = Node::start(root).await;
    assert_eq!(node.files("components"), [format!("{}.wasm", kept.hex())]);
    assert_eq!(node.files("artifacts").len(), 1);
    assert!(!root.join("logs/default/gone").exists());
}

#[tokio::test]
async fn an_app_that_cannot_be_served_does_not_keep_the_others_from_it() {
    let folder = tempfile::tempdir().unwrap();
    {
        let node = Node::start(folder.path()).await;
        let digest = upload(&node, b"one").await;
        deploy(&node, digest).await.unwrap();
        let other = upload(&node, b"two").await;
        let request = DeployRequest::new(other);
        let app = "other".parse().unwrap();
        node.engine
            .deploy(test(), TenantName::default(), app, request)
            .await
            .unwrap();
        fs::remove_file(
            folder
                .path()
                .join(format!("components/{}.wasm", other.hex())),
        )
        .unwrap();
    }
    let node = Node::start(folder.path()).await;
    // It has a route all the same: the router says that it is not ready, not that there is no such app.
    let routes = [("other.localhost", 1), ("shop.localhost", 1)];
    assert_eq!(node.routes(), routes.map(|(host, n)| (host.to_owned(), n)));
}

async fn usage(node: &Node, tenant: &TenantName) -> Option<UsageRecord> {
    let key = UsageRecord::at(tenant);
    let found = node.engine.ask(move |records| records.get(&key)).await;
    found.unwrap().map(|stored| stored.record)
}

#[tokio::test]
async fn numbers_go_on_after_an_app_was_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path()).await;
    let digest = upload(&node, b"one").await;
    deploy(&node, digest).await.unwrap();
    deploy(&node, digest).await.unwrap();
    let (tenant, app) = names();
    assert!(
        node.engine
            .delete_app(&test(), &tenant, &app)
            .await
            .unwrap()
    );
    assert_eq!(deploy(&node, digest).await.unwrap(), 3);
    let key = AppRecord::at(&tenant, &app);
    let app = node.engine.ask(move |records| records.get(&key)).await;
    let app = app.unwrap().unwrap().record;
    assert_eq!((app.last, app.deployments), (DeploymentId(3), 1));
}

#[tokio::test]
async fn an_app_whose_name_starts_like_another_is_another() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path()).await;
    let digest = upload(&node, b"one").await;
    let tenant = TenantName::default();
    for app in ["x", "x-y"] {
        let app = app.parse().unwrap();
        let deploy = node
            .engine
            .deploy(test(), tenant.clone(), app, DeployRequest::new(digest));
        deploy.await.unwrap();
    }
    let app = "x".parse().unwrap();
    assert!(
        node.engine
            .delete_app(&test(), &tenant, &app)
            .await
            .unwrap()
    );
    let left = node
        .engine
        .ask(|records| records.all::<DeploymentRecord>(&Prefix::all()));
    assert_eq!(left.await.unwrap()[0].app.as_str(), "x-y");
    let usage = usage(&node, &tenant).await.unwrap();
    assert_eq!((usage.apps, usage.deployments), (1, 1));
}

#[tokio::test]
async fn tenants_go_when_they_are_empty() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path()).await;
    let tenant: TenantName = "acme".parse().unwrap();
    let app: AppName = "shop".parse().unwrap();
    assert!(node.engine.create_tenant(&test(), &tenant).await.unwrap().1);
    assert!(!node.engine.create_tenant(&test(), &tenant).await.unwrap().1);
    let mut upload = node.engine.upload().await.unwrap();
    upload.write(b"one").await.unwrap();
    let digest = node
        .engine
        .uploaded(&test(), &tenant, upload)
        .await
        .unwrap()
        .digest;
    let deploy = node.engine.deploy(
        test(),
        tenant.clone(),
        app.clone(),
        DeployRequest::new(digest),
    );
    deploy.await.unwrap();
    let has = usage(&node, &tenant).await.unwrap();
    // Three bytes of component, and as many of what the fake compiler made of it.
    assert_eq!((has.apps, has.deployments, has.disk_bytes), (1, 1, 6));
    let error = node
        .engine
        .delete_tenant(&test(), &tenant)
        .await
        .unwrap_err();
    assert!(matches!(error, TenantError::NotEmpty(1)), "{error}");
    assert!(
        node.engine
            .delete_app(&test(), &tenant, &app)
            .await
            .unwrap()
    );
    node.engine.delete_tenant(&test(), &tenant).await.unwrap();
    let error = node
        .engine
        .delete_tenant(&test(), &tenant)
        .await
        .unwrap_err();
    assert!(matches!(error, TenantError::Unknown(_)), "{error}");
    let key = ComponentRecord::at(&tenant, &digest);
    let component = node.engine.ask(move |records| records.get(&key)).await;
    assert_eq!(component.unwrap(), None);
    assert_eq!(usage(&node, &tenant).await, None);
}

#[tokio::test]
async fn a_component_that_is_uploaded_again_costs_nothing_and_one_that_is_forgotten_is_given_back()
{
    let folder = tempfile::tempdir().unwrap();
    let tenant = TenantName::default();
    {
        let node = Node::start(folder.path()).await;
        for _ in 0..2 {
            upload(&node, b"four").await;
        }
        assert_eq!(usage(&node, &tenant).await.unwrap().disk_bytes, 4);
    }
    let node = Node::start(folder.path()).await;
    assert_eq!(usage(&node, &tenant).await.unwrap().disk_bytes, 0);
}
