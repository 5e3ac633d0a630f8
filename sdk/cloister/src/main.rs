//! The executable `cloister`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cloister::main()
}
