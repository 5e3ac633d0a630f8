//! Certificates against an authority that lets every attempt fail.

use std::time::Duration;

use platform_model::{DomainOptions, HostName};
use time::OffsetDateTime;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::*;

/// Less than what is waited after a failure.
const SOON: Duration = Duration::from_secs(30);

/// The beginning of an attempt, within the time.
async fn attempt(authority: &TcpListener) -> TcpStream {
    let accepted = tokio::time::timeout(SOON, authority.accept()).await;
    accepted.expect("an attempt").unwrap().0
}

#[tokio::test]
async fn a_renewal_that_is_asked_for_during_an_attempt_follows_its_failure() {
    let authority = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let directory = format!("https://{}/directory", authority.local_addr().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start_with(folder.path(), &directory).await;
    let (engine, origin, tenant) = (&node.engine, test(), TenantName::default());
    let domain: HostName = "shop.example".parse().unwrap();
    let options = DomainOptions::default();
    let set = engine.set_domain(&origin, &tenant, &domain, Expected::default(), options);
    let proof = set.await.unwrap().0.record.proof.txt_value;
    node.sandboxes.0.lock().unwrap().proofs.push(proof);
    let verified = engine.verify_domain(&origin, &tenant, &domain).await;
    verified.unwrap();
    let stop = CancellationToken::new();
    let certifying = tokio::spawn(Arc::clone(engine).certify(stop.clone()));

    let first = attempt(&authority).await;
    // Each request has a time of its own.
    let renewed = engine.renew_certificate(&test(), &tenant, &domain).await;
    renewed.unwrap();
    drop(first);
    let second = attempt(&authority).await;
    let failures = async || {
        let domain = engine.domain(&tenant, &domain).await.unwrap().record;
        let issuance = domain.issuance.unwrap();
        (issuance.failures, issuance.next_at)
    };
    assert_eq!(failures().await.0, 1);

    // One that nobody asks for has to wait.
    drop(second);
    let failed = async {
        loop {
            match failures().await {
                (2, next_at) => return next_at,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let next_at = tokio::time::timeout(SOON, failed).await.unwrap();
    assert!(next_at - OffsetDateTime::now_utc() > SOON);
    stop.cancel();
    certifying.await.unwrap();
}
