//! The two output streams: what may be coloured, how wide it may be, what is progress.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::failure::CliError;

/// When output is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Color {
    /// Whether a stream that is or is not a terminal is coloured.
    fn on(self, terminal: bool, no_color: bool, dumb: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => terminal && !no_color && !dumb,
        }
    }
}

/// What a piece of text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// It is as it should be.
    Good,
    /// It should be looked at.
    Warn,
    /// It is wrong.
    Bad,
    /// It matters less.
    Dim,
    /// It matters more.
    Strong,
}

impl Tone {
    /// The parameter of the escape sequence.
    fn sgr(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Warn => "33",
            Self::Bad => "1;31",
            Self::Dim => "2",
            Self::Strong => "1",
        }
    }
}

/// The streams of this process and what was asked for on the command line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terminal {
    /// Whether the output is JSON.
    pub(crate) json: bool,
    /// Whether standard output is a terminal.
    pub(crate) interactive: bool,
    /// Whether standard output is coloured.
    pub(crate) color: bool,
    color_err: bool,
}

impl Terminal {
    /// Looks at the streams and the environment.
    pub(crate) fn new(json: bool, color: Color) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let interactive = std::io::stdout().is_terminal();
        let on = |terminal| color.on(terminal, set("NO_COLOR"), dumb);
        Self {
            json,
            interactive,
            color: on(interactive),
            color_err: on(std::io::stderr().is_terminal()),
        }
    }

    /// Writes a line of what was asked for.
    pub(crate) fn print(&self, line: &str) -> Result<(), CliError> {
        writeln!(std::io::stdout().lock(), "{line}").map_err(CliError::Output)
    }

    /// Writes a line that says what was done.
    pub(crate) fn done(&self, what: &str) -> Result<(), CliError> {
        let mark = self.paint(Tone::Good, "✓");
        self.print(&format!("{mark} {what}"))
    }

    /// Writes a value as one line of JSON.
    pub(crate) fn print_json<T: Serialize + ?Sized>(&self, value: &T) -> Result<(), CliError> {
        self.print(&serde_json::to_string(value)?)
    }

    /// Writes a line to standard error. That it cannot be written is nobody's error.
    pub(crate) fn say(&self, line: &str) {
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }

    /// Colours a text for standard output.
    pub(crate) fn paint(&self, tone: Tone, text: &str) -> String {
        paint(self.color, tone, text)
    }

    /// Colours a text for standard error.
    pub(crate) fn paint_err(&self, tone: Tone, text: &str) -> String {
        paint(self.color_err, tone, text)
    }

    /// A spinner on standard error for work of unknown length. Nothing where that is not a terminal.
    pub(crate) fn spinner(&self, text: &str) -> Progress {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let template = if self.color_err {
            "{spinner:.cyan} {msg} {elapsed:.dim}"
        } else {
            "{spinner} {msg} {elapsed}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(text.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        Progress { bar }
    }

    /// A bar on standard error for so many bytes. Nothing where that is not a terminal.
    pub(crate) fn bytes_bar(&self, text: &str, total: u64) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let template = "{msg} [{bar:30}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(text.to_owned());
        Progress { bar }
    }
}

/// Something that is shown while it lasts, and gone when it is dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Where a bar of bytes is now, as something that can be called from anywhere.
    pub(crate) fn position(&self) -> impl FnMut(u64) + Send + 'static {
        let bar = self.bar.clone();
        move |bytes| bar.set_position(bytes)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn paint(on: bool, tone: Tone, text: &str) -> String {
    if on {
        format!("\x1b[{}m{text}\x1b[0m", tone.sgr())
    } else {
        text.to_owned()
    }
}

/// A text of somebody else that cannot drive the terminal: control characters other than line ends and tabs are shown as
/// escapes, and so are those that turn the direction of writing.
pub(crate) fn printable(text: &str) -> String {
    let harmless = |c: char| {
        matches!(c, '\n' | '\t')
            || !(c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
    };
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if harmless(c) {
            shown.push(c);
        } else {
            shown.extend(c.escape_default());
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours() {
        assert!(Color::Auto.on(true, false, false));
        assert!(!Color::Auto.on(true, true, false));
        assert!(!Color::Auto.on(true, false, true));
        assert!(!Color::Auto.on(false, false, false));
        assert!(Color::Always.on(false, true, true));
        assert!(!Color::Never.on(true, false, false));
        assert_eq!(paint(false, Tone::Bad, "x"), "x");
        assert_eq!(paint(true, Tone::Good, "x"), "\x1b[32mx\x1b[0m");
    }

    #[test]
    fn nothing_drives_the_terminal() {
        assert_eq!(printable("käse\tok\n"), "käse\tok\n");
        assert_eq!(printable("\x1b]0;x\x07\r"), "\\u{1b}]0;x\\u{7}\\r");
        assert_eq!(printable("a\u{202e}b\u{9b}c"), "a\\u{202e}b\\u{9b}c");
    }
}
