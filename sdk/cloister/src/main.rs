//! The executable `cloister`.
fn main() {}
