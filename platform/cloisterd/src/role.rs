//! Which part a process plays: the executable starts itself again for each worker and each compilation.
//!
//! | first argument | part |
//! |---|---|
//! | `__worker` | holds the VMs of one tenant |
//! | `__compile` | compiles one component |
//! | `__node` | the daemon, with its options after it |
//!
//! An executable that is called `cloisterd` is the daemon without such an argument.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use crate::{failure, node, options};

/// The name of the daemon's executable.
const DAEMON: &str = "cloisterd";

/// Plays the part that the arguments name; none where they name none. The first argument is the executable's name.
///
/// Called first in `main`: a worker and a compiler give up what they have before they start a thread.
pub fn dispatch(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let args: Vec<OsString> = args.into_iter().collect();
    let program = args.first().map(OsString::as_os_str).unwrap_or_default();
    match args.get(1).and_then(|arg| arg.to_str()) {
        Some("__worker") => {
            abort_on_panic();
            Some(sandbox_worker::main())
        }
        Some(sandbox_aot::ROLE) => {
            abort_on_panic();
            let args = args
                .iter()
                .skip(2)
                .map(|arg| arg.to_string_lossy().into_owned());
            Some(sandbox_aot::child_main(&args.collect::<Vec<_>>()))
        }
        Some("__node") => {
            let options = args.iter().skip(2).cloned();
            Some(daemon([DAEMON.into()].into_iter().chain(options)))
        }
        _ if is_daemon(program) => Some(daemon(args)),
        _ => None,
    }
}

/// Ends the process where a thread of it panics. The daemon goes on: a bug that one request meets is not to end the
/// requests of others. A worker with a thread missing would be neither dead nor alive, and whoever started it restarts
/// it only when it is dead.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

fn is_daemon(program: &OsStr) -> bool {
    Path::new(program).file_name() == Some(OsStr::new(DAEMON))
}

/// Runs the daemon until it is told to stop. The first argument is the executable's name.
pub fn daemon(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let options = match options::read(args) {
        Ok(options) => options,
        Err(code) => return code,
    };
    match node::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure::report(&failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_arguments_are_no_role() {
        let args = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert!(dispatch(args("cloister deploy x.wasm")).is_none());
        assert!(dispatch(args("/usr/bin/cloister")).is_none());
        assert!(is_daemon(OsStr::new("/usr/sbin/cloisterd")));
        assert!(!is_daemon(OsStr::new("/usr/sbin/cloisterd-2/cloister")));
    }
}
