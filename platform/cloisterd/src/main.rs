//! The daemon as an executable of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    let role = cloisterd::role::dispatch(args.iter().cloned());
    // Under whatever name the file has, this executable is the daemon.
    role.unwrap_or_else(|| cloisterd::role::daemon(args))
}
