//! What a row found: tables for people, figures for programs, the bars it is held to.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};
use comfy_table::CellAlignment;
use comfy_table::presets::NOTHING;
use serde_json::{Map, Value, json};

use crate::chart::Chart;

/// Version of the format of `results.json`.
const VERSION: u32 = 2;

/// A table: names at the left, numbers at the right.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) columns: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
}

/// Something that a row is held to.
#[derive(Debug)]
struct Check {
    what: String,
    wanted: String,
    got: String,
    holds: bool,
    /// A wrong answer rather than a slow one: the program fails.
    must: bool,
}

/// What a row found.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    tables: Vec<Table>,
    checks: Vec<Check>,
    notes: Vec<String>,
    left_out: Vec<String>,
    figures: Map<String, Value>,
    pub(crate) charts: Vec<Chart>,
}

/// A number for people: three digits, or what there is before the point.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        _ if value.is_nan() => "-".to_owned(),
        size if size >= 100.0 || size.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

impl Outcome {
    /// Says something for the reader.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Something was not measured; what and why.
    pub(crate) fn leave_out(&mut self, what: impl Into<String>) {
        self.left_out.push(what.into());
    }

    /// Adds a table.
    pub(crate) fn table(&mut self, title: &str, columns: &[&'static str], rows: Vec<Vec<String>>) {
        self.tables.push(Table {
            title: title.to_owned(),
            columns: columns.to_vec(),
            rows,
        });
    }

    /// Adds figures under a name.
    pub(crate) fn figure(&mut self, name: &str, value: Value) {
        self.figures.insert(name.to_owned(), value);
    }

    /// A bar that a figure should not be below. It is reported; missing it is no failure.
    pub(crate) fn at_least(&mut self, what: &str, bar: f64, got: f64) {
        self.bar(what, format!(">= {}", number(bar)), got, got >= bar);
    }

    /// A bar that a figure should not be above.
    pub(crate) fn at_most(&mut self, what: &str, bar: f64, got: f64) {
        self.bar(what, format!("<= {}", number(bar)), got, got <= bar);
    }

    fn bar(&mut self, what: &str, wanted: String, got: f64, holds: bool) {
        self.checks.push(Check {
            what: what.to_owned(),
            wanted,
            got: number(got),
            holds,
            must: false,
        });
    }

    /// Something that has to be, however slow the machine is.
    pub(crate) fn must(&mut self, what: &str, got: impl fmt::Display, holds: bool) {
        self.checks.push(Check {
            what: what.to_owned(),
            wanted: "always".to_owned(),
            got: got.to_string(),
            holds,
            must: true,
        });
    }

    /// Whether all that must be is.
    pub(crate) fn is_well(&self) -> bool {
        self.checks.iter().all(|check| check.holds || !check.must)
    }

    /// All of it for programs.
    pub(crate) fn json(&self) -> Value {
        let checks = self.checks.iter().map(|check| {
            json!({"what": check.what, "wanted": check.wanted, "got": check.got, "holds": check.holds, "must": check.must})
        });
        json!({
            "figures": self.figures, "checks": checks.collect::<Vec<_>>(), "notes": self.notes, "left_out": self.left_out,
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for table in &self.tables {
            writeln!(
                f,
                "\n{}\n{}",
                table.title,
                aligned(&table.columns, &table.rows)
            )?;
        }
        if !self.checks.is_empty() {
            let rows = self.checks.iter().map(|check| {
                let verdict = match (check.holds, check.must) {
                    (true, _) => "met",
                    (false, false) => "missed",
                    (false, true) => "BROKEN",
                };
                vec![
                    check.what.clone(),
                    check.wanted.clone(),
                    check.got.clone(),
                    verdict.to_owned(),
                ]
            });
            writeln!(
                f,
                "\n{}",
                aligned(&["bar", "wanted", "got", ""], &rows.collect::<Vec<_>>())
            )?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        for what in &self.left_out {
            writeln!(f, "left out: {what}")?;
        }
        Ok(())
    }
}

fn aligned(columns: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(NOTHING);
    table.force_no_tty();
    table.set_header(columns);
    table.add_rows(rows);
    for (n, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if n > 0 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

/// Puts what a row found into the folder: its charts, and its part of `results.json`, where those of other rows stay.
pub(crate) fn keep(folder: &Path, row: &str, conditions: Value, outcome: &Outcome) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    for chart in &outcome.charts {
        chart.draw(folder)?;
    }
    let file = folder.join("results.json");
    let old = std::fs::read(&file).ok();
    let old: Option<Value> = old.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let mut all = old
        .filter(|old| old["version"] == VERSION)
        .unwrap_or_else(|| json!({"version": VERSION, "rows": {}}));
    let mut found = outcome.json();
    found["conditions"] = conditions;
    all["rows"][row] = found;
    std::fs::write(&file, serde_json::to_vec_pretty(&all)?)
        .with_context(|| format!("cannot write {}", file.display()))
}
