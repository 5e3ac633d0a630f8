//! `doctor --store`: whether the data that a node has left is in itself as it should be.

use std::path::Path;

use platform_control::check::{self, CheckError, Finding, Report};
use platform_control::keyring;
use platform_model::Secret;
use serde::Serialize;

use crate::failure::CliError;
use crate::table::{Table, text};
use crate::terminal::{Terminal, Tone};

/// What `doctor --store --json` prints.
#[derive(Debug, Serialize)]
struct Output<'a> {
    ok: bool,
    version: &'static str,
    #[serde(flatten)]
    report: &'a Report,
}

/// Looks at a data folder, and prints what is wrong with it.
pub(super) fn run(data: &Path, terminal: &Terminal) -> Result<(), CliError> {
    let report = look(data)?;
    let wrong = report.problems.len();
    if terminal.json {
        terminal.print_json(&Output {
            ok: wrong == 0,
            version: env!("CARGO_PKG_VERSION"),
            report: &report,
        })?;
    } else {
        terminal.print(&shown(&report, terminal))?;
    }
    if wrong > 0 {
        return Err(CliError::Store(wrong));
    }
    Ok(())
}

/// Looks at a data folder. sled panics where its files are damaged; that becomes an error, and needs no report of its own.
fn look(data: &Path) -> Result<Report, CheckError> {
    let variable = std::env::var(keyring::VARIABLE).ok().map(Secret::new);
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let checked = check::check(data, variable.as_ref());
    std::panic::set_hook(report);
    checked
}

/// The report for people.
fn shown(report: &Report, terminal: &Terminal) -> String {
    let mut lines = Vec::new();
    let findings = [
        ("PROBLEM", &report.problems),
        ("LEFTOVER", &report.leftovers),
    ];
    for (title, findings) in findings {
        if !findings.is_empty() {
            lines.push(table(title, findings, terminal));
        }
    }
    let (mark, tone) = match report.problems.is_empty() {
        true => ("✓", Tone::Good),
        false => ("✗", Tone::Bad),
    };
    let mark = terminal.paint(tone, mark);
    lines.push(format!(
        "{mark} {} records, {} components and {} sealed values were looked at",
        report.records, report.components, report.sealed
    ));
    if !report.leftovers.is_empty() {
        lines.push(
            "  what is left over harms nobody: the next start of the node removes it".to_owned(),
        );
    }
    lines.join("\n")
}

fn table(title: &'static str, findings: &[Finding], terminal: &Terminal) -> String {
    let mut table = Table::new(terminal, [text(title), text("FOUND")]);
    for finding in findings {
        table.row([finding.what.clone(), finding.why.clone()]);
    }
    format!("{}\n", table.text())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::Color;

    #[test]
    fn shapes() {
        let finding = |what: &str, why: &str| Finding {
            what: what.to_owned(),
            why: why.to_owned(),
        };
        let report = Report {
            records: 3,
            problems: vec![finding("app/default/shop", "it points nowhere")],
            leftovers: vec![finding("components/upload-0", "no tenant has it")],
            ..Report::default()
        };
        let output = Output {
            ok: false,
            version: "1",
            report: &report,
        };
        let json = serde_json::to_value(output).unwrap();
        assert_eq!((&json["ok"], &json["records"]), (&false.into(), &3.into()));
        assert_eq!(json["problems"][0]["what"], "app/default/shop");
        let text = shown(&report, &Terminal::new(false, Color::Never));
        assert!(
            text.contains("it points nowhere") && text.contains("✗ 3 records"),
            "{text}"
        );
        assert!(text.contains("next start"), "{text}");
    }

    #[test]
    fn a_folder_that_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let error = look(folder.path()).unwrap_err();
        assert!(error.to_string().contains("--data"), "{error}");
    }
}
