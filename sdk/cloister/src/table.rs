//! Tables that fit the terminal: columns without lines, so that they can be cut and searched as well as read.

use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement};

use crate::terminal::{Terminal, Tone, printable};

/// Spaces between two columns.
const GAP: u16 = 2;

/// One column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    name: &'static str,
    right: bool,
    optional: bool,
}

/// A column of text.
pub(crate) const fn text(name: &'static str) -> Column {
    Column {
        name,
        right: false,
        optional: false,
    }
}

/// A column of numbers.
pub(crate) const fn number(name: &'static str) -> Column {
    Column {
        name,
        right: true,
        optional: false,
    }
}

impl Column {
    /// The same column, left out where the terminal is too narrow for all.
    pub(crate) const fn optional(self) -> Self {
        Self {
            optional: true,
            ..self
        }
    }
}

/// A table under way.
#[derive(Debug)]
pub(crate) struct Table<const N: usize> {
    inner: comfy_table::Table,
    columns: [Column; N],
}

impl<const N: usize> Table<N> {
    /// A table with these columns.
    pub(crate) fn new(terminal: &Terminal, columns: [Column; N]) -> Self {
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
        inner.set_header(
            columns.map(|column| Cell::new(column.name).add_attribute(Attribute::Bold)),
        );
        for (shown, column) in inner.column_iter_mut().zip(&columns) {
            shown.set_padding((0, GAP));
            if column.right {
                shown.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self { inner, columns }
    }

    /// Adds a row of plain cells.
    pub(crate) fn row(&mut self, cells: [String; N]) {
        self.toned(cells.map(|cell| (cell, None)));
    }

    /// Adds a row of cells that may have a tone.
    pub(crate) fn toned(&mut self, cells: [(String, Option<Tone>); N]) {
        let cells = cells.map(|(text, tone)| {
            let cell = Cell::new(printable(&text));
            match tone {
                None => cell,
                Some(Tone::Good) => cell.fg(Color::DarkGreen),
                Some(Tone::Warn) => cell.fg(Color::DarkYellow),
                Some(Tone::Bad) => cell.fg(Color::DarkRed),
                Some(Tone::Dim) => cell.add_attribute(Attribute::Dim),
                Some(Tone::Strong) => cell.add_attribute(Attribute::Bold),
            }
        });
        self.inner.add_row(cells);
    }

    /// The lines of the table, without spaces at their ends.
    pub(crate) fn text(mut self) -> String {
        self.narrow();
        let lines = self.inner.lines().map(|line| line.trim_end().to_owned());
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Leaves out columns, the last first, until the rest fits the terminal. What does not fit even then is wrapped.
    fn narrow(&mut self) {
        let Some(width) = self.inner.width() else {
            return;
        };
        let widths = self.inner.column_max_content_widths();
        let mut needed: u32 = widths
            .iter()
            .map(|width| u32::from(*width) + u32::from(GAP))
            .sum();
        let columns: Vec<_> = self
            .inner
            .column_iter_mut()
            .zip(&self.columns)
            .zip(widths)
            .collect();
        for ((shown, column), own) in columns.into_iter().rev() {
            if needed <= u32::from(width) {
                break;
            }
            if column.optional {
                shown.set_constraint(ColumnConstraint::Hidden);
                needed -= u32::from(own) + u32::from(GAP);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::Color;

    #[test]
    fn plain_columns() {
        let mut terminal = Terminal::new(false, Color::Never);
        let mut table = Table::new(&terminal, [text("APP"), number("REQUESTS").optional()]);
        table.row(["shop".to_owned(), "7".to_owned()]);
        table.row(["a-longer-name".to_owned(), "1234".to_owned()]);
        assert_eq!(
            table.text(),
            "APP            REQUESTS\nshop                  7\na-longer-name      1234"
        );
        let mut table = Table::new(
            &terminal,
            [text("APP"), number("REQUESTS").optional(), text("URL")],
        );
        table.inner.set_width(17);
        table.row(["shop".to_owned(), "7".to_owned(), "http://x/".to_owned()]);
        assert_eq!(table.text(), "APP   URL\nshop  http://x/");
        terminal.color = true;
        let mut table = Table::new(&terminal, [text("STATE")]);
        table.toned([("ready\x1b[2J".to_owned(), Some(Tone::Good))]);
        let text = table.text();
        assert!(text.contains("\x1b[38;5;2m"), "{text:?}");
        assert!(!text.contains("\x1b[2J"), "{text:?}");
    }
}
