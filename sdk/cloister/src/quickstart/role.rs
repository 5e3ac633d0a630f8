//! The node of quickstart: a node that ends when quickstart does.
//!
//! `__quickstart_node PID OPTIONS…` is `__node OPTIONS…`, except that the kernel sends it SIGTERM when its parent ends,
//! even where that is by SIGKILL. The signal is bound to the thread that made the process, so quickstart runs on its
//! main thread.

use std::ffi::OsString;
use std::process::ExitCode;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::failure::exit;

/// The hidden first argument.
pub(super) const NAME: &str = "__quickstart_node";

/// Runs the node where the arguments ask for it.
pub(crate) fn dispatch(args: &[OsString]) -> Option<ExitCode> {
    let [program, role, parent, options @ ..] = args else {
        return None;
    };
    if role != NAME {
        return None;
    }
    let bound = set_parent_process_death_signal(Some(Signal::TERM));
    // The parent may have ended before its end was bound to a signal: this process has another one then.
    let same =
        getppid().is_some_and(|pid| parent.to_str() == Some(&pid.as_raw_nonzero().to_string()));
    if bound.is_err() || !same {
        return Some(ExitCode::from(exit::FAILURE));
    }
    let node = [program.clone(), "__node".into()];
    cloisterd::role::dispatch(node.into_iter().chain(options.iter().cloned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_name() {
        let args = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert!(dispatch(&args("cloister quickstart --once")).is_none());
        assert!(dispatch(&args("cloister")).is_none());
        assert!(dispatch(&args("cloister __quickstart_node")).is_none());
    }
}
