//! `cargo fuzz run hostile_peer`: a peer that writes any words at any time.
#![no_main]

#[path = "../../tests/hostile/checks.rs"]
#[allow(dead_code, reason = "one of the checks is the other target's")]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::hostile_peer(data));
