//! What tenants may take is served as it was committed last.

use std::pin::pin;
use std::time::Duration;

use platform_model::{Policy, TenantChanges};

use super::*;

fn concurrency(most: u32) -> TenantChanges {
    TenantChanges {
        policy: Some(Policy {
            concurrency: Some(most),
            ..Policy::default()
        }),
        ..TenantChanges::default()
    }
}

/// The policy of a tenant in the store.
async fn stored(node: &Node, tenant: &TenantName) -> Policy {
    let key = TenantRecord::at(tenant);
    let found = node.engine.ask(move |records| records.get(&key)).await;
    found.unwrap().unwrap().record.policy
}

/// The policy of a tenant that is served.
fn served(node: &Node, tenant: &TenantName) -> Option<Policy> {
    let remembered = node.sandboxes.0.lock().unwrap();
    let mut tenants = remembered.table.tenant_limits();
    let found = tenants.find(|(name, _)| *name == tenant);
    found.map(|(_, policy)| policy.clone())
}

#[tokio::test]
async fn a_change_that_is_overtaken_is_not_what_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path()).await;
    let (tenant, origin) = (TenantName::default(), test());
    let change = |most| {
        let (expected, changes) = (Expected::default(), concurrency(most));
        node.engine
            .change_tenant(&origin, &tenant, expected, changes)
    };
    let mut first = pin!(change(1));
    // Begun, and not looked at again until it is committed and the second one had its chance.
    assert!(futures_util::poll!(first.as_mut()).is_pending());
    let committed = async {
        while stored(&node, &tenant).await.concurrency != Some(1) {
            tokio::task::yield_now().await;
        }
    };
    let time = Duration::from_secs(60);
    tokio::time::timeout(time, committed).await.unwrap();
    // It waits for the first, as it has to, or overtakes it.
    let mut second = pin!(change(2));
    let overtaken = tokio::time::timeout(Duration::from_secs(1), second.as_mut()).await;
    first.await.unwrap();
    if overtaken.is_err() {
        second.await.unwrap();
    }
    let stored = stored(&node, &tenant).await;
    assert_eq!(stored.concurrency, Some(2));
    assert_eq!(served(&node, &tenant), Some(stored));
}

#[tokio::test]
async fn a_tenant_that_comes_again_begins_without_the_policy_of_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path()).await;
    let (acme, origin, engine) = ("acme".parse().unwrap(), test(), &node.engine);
    engine.create_tenant(&origin, &acme).await.unwrap();
    let (expected, changes) = (Expected::default(), concurrency(1));
    let changed = engine.change_tenant(&origin, &acme, expected, changes);
    changed.await.unwrap();
    assert_eq!(served(&node, &acme), Some(stored(&node, &acme).await));
    engine.delete_tenant(&origin, &acme).await.unwrap();
    assert_eq!(served(&node, &acme), None);
}
