//! `completions`: a script for a shell.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::Cli;
use crate::failure::CliError;
use crate::terminal::Terminal;

/// Prints the script.
pub(super) fn run(shell: Shell, terminal: &Terminal) -> Result<(), CliError> {
    terminal.print(script(shell).trim_end())
}

fn script(shell: Shell) -> String {
    // Made in memory: the generator panics where its output cannot be written.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "cloister", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_knows_the_commands() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            assert!(
                script.contains("quickstart") && script.contains("deployments"),
                "{shell}"
            );
        }
    }
}
