//! The whole data plane against guests that are threads: router, links, pool and egress, without KVM.
//!
//! The executable is its own worker: started with `__worker`, it speaks the worker's protocol, and each "VM" is a
//! thread at the other end of the rings ([`guest`]). What such a guest does, good or evil, the request's path says.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what is wrong by panicking"
)]
#![allow(
    unreachable_pub,
    missing_docs,
    reason = "one test in several files has no public interface"
)]

mod cases;
mod client;
mod conformance;
mod edge;
mod guest;
mod observe;
mod tls;
mod worker;

use std::process::ExitCode;

/// A test: its name and what it does.
type Case = (&'static str, fn());

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "__worker") {
        worker::run();
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&String> = arguments
        .iter()
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let (mut failed, mut passed) = (Vec::new(), 0);
    for (name, case) in cases::CASES
        .iter()
        .chain(conformance::CASES)
        .chain(observe::CASES)
        .chain(edge::CASES)
        .chain(tls::CASES)
    {
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        match std::panic::catch_unwind(case) {
            Ok(()) => {
                passed += 1;
                println!("test {name} ... ok");
            }
            Err(_) => {
                println!("test {name} ... FAILED");
                failed.push(name);
            }
        }
    }
    println!(
        "\ntest result: {passed} passed, {} failed {failed:?}",
        failed.len()
    );
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
