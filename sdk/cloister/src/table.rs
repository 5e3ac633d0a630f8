//! Tables that fit the terminal: columns without lines, so that they can be cut and searched as well as read.

use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement};

use crate::terminal::{Terminal, Tone, printable};

/// A table under way.
#[derive(Debug)]
pub(crate) struct Table {
    inner: comfy_table::Table,
}

impl Table {
    /// A table with these columns. One whose name starts with `>` is aligned to the right.
    pub(crate) fn new(terminal: &Terminal, columns: &[&str]) -> Self {
        let mut inner = comfy_table::Table::new();
        inner.load_style(NOTHING);
        // Nothing that is not a terminal has a width.
        if let Some(width) = inner.width() {
            inner
                .set_width(width)
                .set_content_arrangement(ContentArrangement::Dynamic);
        }
        if terminal.color {
            inner.enforce_styling();
        } else {
            inner.force_no_tty();
        }
        let header = columns.iter().map(|name| {
            let name = name.trim_start_matches('>');
            Cell::new(name).add_attribute(Attribute::Bold)
        });
        inner.set_header(header.collect::<Vec<_>>());
        for (column, name) in inner.column_iter_mut().zip(columns) {
            column.set_padding((0, 2));
            if name.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self { inner }
    }

    /// Adds a row of plain cells.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.toned(cells.map(|cell| (cell, None)));
    }

    /// Adds a row of cells that may have a tone.
    pub(crate) fn toned<const N: usize>(&mut self, cells: [(String, Option<Tone>); N]) {
        let cells = cells.map(|(text, tone)| {
            let cell = Cell::new(printable(&text));
            match tone {
                None => cell,
                Some(Tone::Good) => cell.fg(Color::Green),
                Some(Tone::Warn) => cell.fg(Color::Yellow),
                Some(Tone::Bad) => cell.fg(Color::Red),
                Some(Tone::Dim) => cell.add_attribute(Attribute::Dim),
                Some(Tone::Strong) => cell.add_attribute(Attribute::Bold),
            }
        });
        self.inner.add_row(cells);
    }

    /// The lines of the table, without spaces at their ends.
    pub(crate) fn text(&self) -> String {
        let lines = self.inner.lines().map(|line| line.trim_end().to_owned());
        lines.collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::Color;

    #[test]
    fn plain_columns() {
        let mut terminal = Terminal::new(false, Color::Never);
        let mut table = Table::new(&terminal, &["APP", ">REQUESTS"]);
        table.row(["shop".to_owned(), "7".to_owned()]);
        table.row(["a-longer-name".to_owned(), "1234".to_owned()]);
        assert_eq!(
            table.text(),
            "APP            REQUESTS\nshop                  7\na-longer-name      1234"
        );
        terminal.color = true;
        let mut table = Table::new(&terminal, &["STATE"]);
        table.toned([("ready\x1b[2J".to_owned(), Some(Tone::Good))]);
        let text = table.text();
        assert!(
            text.contains("\x1b[38;5;10m") || text.contains("\x1b[32m"),
            "{text:?}"
        );
        assert!(!text.contains("\x1b[2J"), "{text:?}");
    }
}
