//! The process that holds the microVMs of one tenant.
//!
//! The daemon starts it with one descriptor, its end of the [`sandbox_channel::Socket`], as descriptor 0. It gives up
//! what it does not need, then makes and ends VMs as it is told and reports what becomes of them. It never sees a
//! request: the router and the guests speak through the rings. It ends when the socket closes.
#![forbid(unsafe_code)]

mod worker;

use sandbox_channel::Socket;
use std::os::fd::{AsFd, AsRawFd};
use std::process::ExitCode;

/// The hidden first argument that makes an executable a worker.
pub const ROLE: &str = "__worker";

/// The worker's whole life. Exit code 0: the daemon closed the socket; 1: it could not start, as said on stderr.
pub fn main() -> ExitCode {
    let stdin = std::io::stdin();
    let socket = match stdin.as_fd().try_clone_to_owned() {
        Ok(fd) => Socket::from_fd(fd),
        Err(e) => return failed(&e),
    };
    // The first descriptor behind the socket's; nothing above it is the worker's.
    let first_closed = u32::try_from(socket.as_fd().as_raw_fd()).map_or(u32::MAX, |fd| fd + 1);
    if let Err(e) = sandbox_jail::harden(None, first_closed) {
        return failed(&e);
    }
    match worker::run(socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => failed(e.as_ref()),
    }
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text = format!("{text}: {e}");
        cause = e.source();
    }
    eprintln!("the worker cannot go on: {text}");
    ExitCode::FAILURE
}
