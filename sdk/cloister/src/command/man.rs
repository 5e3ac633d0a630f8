//! `man`: pages for `man(1)`, one for each command.

use std::path::Path;

use clap::CommandFactory as _;

use crate::args::Cli;
use crate::failure::CliError;
use crate::terminal::Terminal;

/// Writes the pages into a folder, which is made where it is missing.
pub(super) fn run(folder: &Path, terminal: &Terminal) -> Result<(), CliError> {
    let pages = pages().map_err(CliError::Output)?;
    let write = || {
        std::fs::create_dir_all(folder)?;
        for (name, page) in &pages {
            std::fs::write(folder.join(name), page)?;
        }
        Ok(())
    };
    write().map_err(CliError::Output)?;
    if terminal.json {
        let names: Vec<_> = pages.iter().map(|(name, _)| name).collect();
        return terminal.print_json(&names);
    }
    let (count, folder) = (pages.len(), folder.display());
    terminal.done(&format!("{count} pages are in {folder}"))
}

/// Names and texts of the pages: that of `cloister`, and of each command below it.
fn pages() -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut root = Cli::command();
    root.build();
    let mut pages = Vec::new();
    let mut left = vec![root];
    while let Some(command) = left.pop() {
        left.extend(
            command
                .get_subcommands()
                .filter(|c| c.get_name() != "help")
                .cloned(),
        );
        let page = clap_mangen::Man::new(command);
        let mut text = Vec::new();
        page.render(&mut text)?;
        pages.push((page.get_filename(), text));
    }
    pages.sort();
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let pages = pages().unwrap();
        let page = |name: &str| {
            let found = pages.iter().find(|(other, _)| other == name);
            String::from_utf8(found.unwrap_or_else(|| panic!("{name}")).1.clone()).unwrap()
        };
        assert!(page("cloister.1").contains("Exit codes"));
        assert!(page("cloister-deploy.1").contains("allow"));
        assert!(page("cloister-secret-set.1").contains("standard input"));
        assert!(!pages.iter().any(|(name, _)| name.contains("help")));
    }
}
