//! Who answers: switches, rollbacks, splits, previews, canaries.

use std::time::{Duration, Instant};

use platform_data::Outcomes;
use platform_model::{AppChanges, CanaryPlan, Release, ReleaseAction, Traffic};

use super::*;
use crate::store::records::HistoryRecord;

const PATIENCE: Duration = Duration::from_secs(20);

async fn try_to(node: &Node, what: DeployRequest) -> Result<u64, DeployError> {
    let (tenant, app) = names();
    let deployed = node.engine.deploy(test(), tenant, app, what).await;
    deployed.map(|deployed| deployed.record.deployment.0)
}

/// A node with so many deployments of `shop`.
async fn with(folder: &std::path::Path, deployments: usize) -> (Node, Digest) {
    let node = Node::start(folder).await;
    let digest = upload(&node, b"one").await;
    for _ in 0..deployments {
        deploy(&node, digest).await.unwrap();
    }
    (node, digest)
}

async fn traffic(node: &Node) -> String {
    let (tenant, app) = names();
    let app = node.engine.app(&tenant, &app).await.unwrap().record;
    app.traffic().to_string()
}

async fn history(node: &Node) -> Vec<Release> {
    let (tenant, app) = names();
    let of = HistoryRecord::of(&tenant, &app);
    let lines = node.engine.ask(move |records| records.all(&of));
    let lines = lines.await.unwrap().into_iter();
    lines.map(|line| line.release).collect()
}

async fn numbers(node: &Node) -> Vec<u64> {
    let (tenant, app) = names();
    let of = DeploymentRecord::of(&tenant, &app);
    let all = node.engine.ask(move |records| records.all(&of));
    let all = all.await.unwrap().into_iter();
    all.map(|record| record.deployment.0).collect()
}

fn canary(digest: Digest, seconds: u32) -> DeployRequest {
    DeployRequest {
        canary: Some(CanaryPlan {
            step_seconds: seconds,
            ..CanaryPlan::from(10)
        }),
        ..DeployRequest::new(digest)
    }
}

/// Says how the requests of a deployment ended.
fn ended(node: &Node, number: u64, requests: u64, errors: u64) {
    let mut remembered = node.sandboxes.0.lock().unwrap();
    let outcomes = Outcomes { requests, errors };
    remembered.outcomes.insert(DeploymentId(number), outcomes);
}

/// Waits until the history begins with a line of an action.
async fn until(node: &Node, action: ReleaseAction) -> Release {
    let began = Instant::now();
    loop {
        let latest = history(node).await.remove(0);
        if latest.action == action {
            return latest;
        }
        assert!(began.elapsed() < PATIENCE, "no {action}: {latest:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn who_answers_is_a_pointer_with_a_history() {
    let folder = tempfile::tempdir().unwrap();
    let (node, _) = with(folder.path(), 3).await;
    let (tenant, app) = names();
    let (engine, origin) = (&node.engine, test());
    engine.rollback(&origin, &tenant, &app, None).await.unwrap();
    assert_eq!(traffic(&node).await, "2=100");
    assert_eq!(node.routes(), [("shop.localhost".to_owned(), 2)]);
    let first = Some(DeploymentId(1));
    engine
        .rollback(&origin, &tenant, &app, first)
        .await
        .unwrap();
    let split: Traffic = "3=90,1=10".parse().unwrap();
    let split = Traffic {
        sticky: Some("cookie:side".parse().unwrap()),
        ..split
    };
    engine
        .set_traffic(&origin, &tenant, &app, Expected::Anything, split.clone())
        .await
        .unwrap();
    let record = engine.app(&tenant, &app).await.unwrap().record;
    assert_eq!((record.traffic(), record.active.0), (split, 3));
    engine
        .promote(&origin, &tenant, &app, DeploymentId(3))
        .await
        .unwrap();
    let told: Vec<_> = history(&node).await;
    let told: Vec<_> = told
        .iter()
        .map(|line| format!("{} {} {}", line.action, line.deployment, line.traffic))
        .collect();
    let expected = [
        "promote 3 3=100",
        "split 3 3=90,1=10 by cookie:side",
        "rollback 1 1=100",
        "rollback 2 2=100",
        "deploy 3 3=100",
        "deploy 2 2=100",
        "deploy 1 1=100",
    ];
    assert_eq!(told, expected);
    let unknown = engine
        .promote(&origin, &tenant, &app, DeploymentId(9))
        .await;
    assert!(matches!(
        unknown,
        Err(ReleaseError::DeploymentUnknown(_, DeploymentId(9)))
    ));
    // All of it is there after a restart.
    drop(node);
    let node = Node::start(folder.path()).await;
    assert_eq!(traffic(&node).await, "3=100");
    assert_eq!(history(&node).await.len(), expected.len());
}

#[tokio::test]
async fn a_preview_has_a_name_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path()).await;
    let digest = upload(&node, b"one").await;
    let preview = DeployRequest {
        preview: true,
        ..DeployRequest::new(digest)
    };
    let none = try_to(&node, preview.clone()).await.unwrap_err();
    assert!(matches!(none, DeployError::NoneYet), "{none}");
    deploy(&node, digest).await.unwrap();
    assert_eq!(try_to(&node, preview).await.unwrap(), 2);
    let routes = [
        ("2--shop.localhost".to_owned(), 2),
        ("shop.localhost".to_owned(), 1),
    ];
    assert_eq!(node.routes(), routes);
    drop(node);
    let node = Node::start(folder.path()).await;
    assert_eq!(node.routes(), routes);
    let (tenant, app) = names();
    let second = DeploymentId(2);
    node.engine
        .promote(&test(), &tenant, &app, second)
        .await
        .unwrap();
    let answers = node
        .engine
        .delete_deployment(&test(), &tenant, &app, second)
        .await;
    assert!(matches!(answers, Err(ReleaseError::Answers(_))));
    let first = DeploymentId(1);
    node.engine
        .delete_deployment(&test(), &tenant, &app, first)
        .await
        .unwrap();
    assert_eq!(numbers(&node).await, [2]);
}

#[tokio::test]
async fn a_deployment_that_is_not_well_never_answers() {
    let folder = tempfile::tempdir().unwrap();
    let (node, _) = with(folder.path(), 1).await;
    let sick = upload(&node, b"sick").await;
    let request = DeployRequest {
        health: Some("/healthz".to_owned()),
        ..DeployRequest::new(sick)
    };
    let error = try_to(&node, request).await.unwrap_err();
    assert!(matches!(error, DeployError::Sick(_, 503)), "{error}");
    assert_eq!(node.routes(), [("shop.localhost".to_owned(), 1)]);
    let discarded = node.sandboxes.0.lock().unwrap().discarded.clone();
    assert_eq!(discarded, [DeploymentId(2)]);
}

#[tokio::test]
async fn what_wants_more_has_to_be_approved() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path()).await;
    let small = upload(&node, b"imports wasi:http/types").await;
    deploy(&node, small).await.unwrap();
    let large = upload(&node, b"imports wasi:http/types wasi:sockets/tcp").await;
    let mut request = DeployRequest {
        allow_hosts: vec!["api.example:443".parse().unwrap()],
        ..DeployRequest::new(large)
    };
    let error = try_to(&node, request.clone()).await.unwrap_err();
    assert!(matches!(error, DeployError::Growth(..)), "{error}");
    let told = error.to_string();
    assert!(
        told.contains("host api.example:443, imports wasi:sockets"),
        "{told}"
    );
    request.approve = true;
    assert_eq!(try_to(&node, request.clone()).await.unwrap(), 2);
    let why = history(&node).await.remove(0).why.unwrap();
    assert!(why.contains("host api.example:443"), "{why}");
    // The next one has it already.
    request.approve = false;
    assert_eq!(try_to(&node, request).await.unwrap(), 3);
}

#[tokio::test]
async fn old_deployments_go_and_those_that_answer_stay() {
    let folder = tempfile::tempdir().unwrap();
    let (node, digest) = with(folder.path(), 2).await;
    let (tenant, app) = names();
    let keep = AppChanges {
        keep: Some(2),
        ..AppChanges::default()
    };
    let origin = test();
    let set = node
        .engine
        .change_app(&origin, &tenant, &app, Expected::Anything, keep);
    assert_eq!(set.await.unwrap().record.keep(), 2);
    let split = "2=90,1=10".parse().unwrap();
    node.engine
        .set_traffic(&test(), &tenant, &app, Expected::Anything, split)
        .await
        .unwrap();
    let preview = DeployRequest {
        preview: true,
        ..DeployRequest::new(digest)
    };
    for _ in 0..3 {
        try_to(&node, preview.clone()).await.unwrap();
    }
    assert_eq!(numbers(&node).await, [1, 2, 3, 4, 5], "all of them answer");
    for _ in 0..3 {
        deploy(&node, digest).await.unwrap();
    }
    assert_eq!(numbers(&node).await, [3, 4, 5, 7, 8]);
    let record = node.engine.app(&tenant, &app).await.unwrap().record;
    assert_eq!(record.deployments, 5);
    assert!(is_consistent(node, folder.path()));
}

/// Whether the data folder is as it should be, once its node is gone.
fn is_consistent(node: Node, folder: &std::path::Path) -> bool {
    drop(node);
    let report = crate::check::check(folder, None).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    true
}

#[tokio::test]
async fn a_canary_that_fails_is_given_up_and_the_history_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let (node, digest) = with(folder.path(), 1).await;
    assert_eq!(try_to(&node, canary(digest, 60)).await.unwrap(), 2);
    assert_eq!(traffic(&node).await, "1=90,2=10");
    ended(&node, 2, 400, 20);
    let line = until(&node, ReleaseAction::CanaryAborted).await;
    let why = line.why.unwrap();
    assert!(
        why.starts_with("5.0 % of its requests failed (20 of 400"),
        "{why}"
    );
    assert_eq!(
        (line.who.as_str(), line.traffic.to_string().as_str()),
        ("node", "1=100")
    );
    assert_eq!(traffic(&node).await, "1=100");
    let (tenant, app) = names();
    let gone = node.engine.canary(&tenant, &app).await;
    assert!(matches!(gone, Err(ReleaseError::NoCanary)));
}

#[tokio::test]
async fn a_canary_goes_up_to_the_end_also_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (node, digest) = with(folder.path(), 1).await;
    try_to(&node, canary(digest, 1)).await.unwrap();
    ended(&node, 2, 100, 0);
    until(&node, ReleaseAction::CanaryRaised).await;
    assert_eq!(traffic(&node).await, "1=75,2=25");
    drop(node);
    let node = Node::start(folder.path()).await;
    let (tenant, app) = names();
    let canary = node.engine.canary(&tenant, &app).await.unwrap();
    assert_eq!((canary.deployment.0, canary.weight), (2, 25));
    let began = Instant::now();
    let mut requests = 0;
    while history(&node).await[0].action != ReleaseAction::CanaryFinished {
        requests += 20;
        ended(&node, 2, requests, 0);
        assert!(began.elapsed() < PATIENCE, "{:?}", history(&node).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(traffic(&node).await, "2=100");
    let actions: Vec<_> = history(&node).await;
    let actions: Vec<_> = actions.iter().map(|line| line.action).collect();
    let expected = [
        ReleaseAction::CanaryFinished,
        ReleaseAction::CanaryRaised,
        ReleaseAction::CanaryRaised,
        ReleaseAction::CanaryStarted,
        ReleaseAction::Deploy,
    ];
    assert_eq!(actions, expected);
}

#[tokio::test]
async fn whatever_changes_who_answers_ends_the_canary() {
    let folder = tempfile::tempdir().unwrap();
    let (node, digest) = with(folder.path(), 1).await;
    let (tenant, app) = names();
    let (engine, origin) = (&node.engine, test());
    try_to(&node, canary(digest, 60)).await.unwrap();
    engine.abort_canary(&origin, &tenant, &app).await.unwrap();
    assert_eq!(traffic(&node).await, "1=100");
    try_to(&node, canary(digest, 60)).await.unwrap();
    engine.rollback(&origin, &tenant, &app, None).await.unwrap();
    assert_eq!(traffic(&node).await, "1=100");
    try_to(&node, canary(digest, 60)).await.unwrap();
    engine
        .promote(&origin, &tenant, &app, DeploymentId(4))
        .await
        .unwrap();
    assert_eq!(traffic(&node).await, "4=100");
    try_to(&node, canary(digest, 60)).await.unwrap();
    deploy(&node, digest).await.unwrap();
    assert_eq!(traffic(&node).await, "6=100");
    let lines = history(&node).await;
    let aborted = lines
        .iter()
        .filter(|line| line.action == ReleaseAction::CanaryAborted);
    assert_eq!(aborted.count(), 4, "{lines:?}");
    ended(&node, 5, 1000, 1000);
    assert!(is_consistent(node, folder.path()));
}
