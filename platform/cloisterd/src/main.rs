//! The daemon as an executable of its own.
fn main() {}
