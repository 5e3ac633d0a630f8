//! Whose time it is. A binary of its own: what makes the host busy is to disturb no other test.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cloister_tests::Node;
use cloister_tests::fixture::probe;
use cloister_tests::process;
use serde_json::json;

const EXE: &str = env!("CARGO_BIN_EXE_cloister-node");

#[tokio::test(flavor = "multi_thread")]
async fn time_that_others_had_is_not_the_components() {
    let node = Node::start(EXE).await;
    let limits = json!({ "cpu_ms": 500 });
    node.deploy("probe", probe()).limits(limits).done().await;
    let worker = process::children(node.pid())
        .into_iter()
        .find(|pid| process::has_kvm(*pid))
        .unwrap();
    let before = process::processor_time(worker);
    let (stop, cores) = (
        AtomicBool::new(false),
        std::thread::available_parallelism().unwrap(),
    );
    std::thread::scope(|scope| {
        // Four for each processor, so that the VM waits for one most of the time.
        for _ in 0..4 * cores.get() {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let answer = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(node.get("probe", "/spin"))
        });
        stop.store(true, Ordering::Relaxed);
        assert_eq!(answer.problem(), "cpu-limit", "{}", answer.text());
    });
    let used = process::processor_time(worker) - before;
    assert!(
        used >= Duration::from_millis(480),
        "{used:?} of 500 ms that it may have"
    );
}
