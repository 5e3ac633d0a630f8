//! `cargo fuzz run decode`: any bytes as the payload of every kind of record.
#![no_main]

#[path = "../../tests/hostile/checks.rs"]
#[allow(dead_code, reason = "one of the checks is the other target's")]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::decode_all(data));
