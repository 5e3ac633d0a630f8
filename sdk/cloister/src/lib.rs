//! The command line of Cloister, and the executable of every other role.
//!
//! `cloister` is one executable: what a person types is handled here; the node, its workers and its compiler are the
//! same file started with a hidden first argument, which [`cloisterd::role::dispatch`] takes. So one `cargo run` builds
//! all that `quickstart` needs.
//!
//! # Invariants
//! - Standard output has what was asked for and nothing else; progress, notes and errors go to standard error.
//! - With `--json` standard output is JSON, one value a command (`logs`: one a line), and errors are one JSON object.
//! - Every way to end has an exit code of its own, listed in `--help`: [`failure::exit`].
//! - What a component or a node wrote cannot drive the terminal: control characters are shown, not obeyed.
//!
//! # Map
//! | module | what |
//! |---|---|
//! | `args` | what can be typed |
//! | `command` | one module for each command that asks the node |
//! | `connection`, `credentials`, `input` | the node, the token for it, values that are not shown |
//! | `doctor` | whether this host can be a node |
//! | `quickstart` | a node, an app and an answer in one command |
//! | [`failure`] | errors and exit codes |
//! | `manifest` | `cloister.toml`, and its schema |
//! | `terminal`, `table`, `quantity` | how things are shown |

#![forbid(unsafe_code)]

mod args;
mod command;
mod connection;
mod credentials;
mod doctor;
pub mod failure;
mod input;
mod manifest;
mod quantity;
mod quickstart;
mod table;
mod terminal;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::Cli;
use crate::failure::CliError;
use crate::terminal::Terminal;

/// Runs the role that the arguments name, or else the command line. Called by `main` and by nothing else: it reads the
/// arguments and the environment of the process.
#[must_use]
pub fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    if let Some(code) = quickstart::role::dispatch(&args) {
        return code;
    }
    if let Some(code) = cloisterd::role::dispatch(args.iter().cloned()) {
        return code;
    }
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let terminal = Terminal::new(cli.global.json, cli.global.color);
    match run(&cli, &terminal) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(&terminal),
    }
}

/// Help and version go to standard output with code 0, mistakes to standard error with code 2.
fn usage(error: &clap::Error) -> ExitCode {
    // Nobody can be told where neither stream can be written.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(failure::exit::USAGE))
}

/// Runs a command on this thread. It must be the main one: the node of `quickstart` ends when its parent thread does.
fn run(cli: &Cli, terminal: &Terminal) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime
        .map_err(CliError::Runtime)?
        .block_on(command::run(cli, terminal))
}
