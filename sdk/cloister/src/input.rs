//! Values that are not to be seen: read from standard input, or typed without being shown.

use std::io::{IsTerminal as _, Read as _};

use platform_model::Secret;

use crate::failure::CliError;

/// Longest value, in bytes; the node takes less.
const MOST: u64 = 1 << 20;

/// Reads a value. On a terminal it is asked for, and not shown; from anything else it is all that comes, without one line end
/// at its end.
///
/// # Errors
/// When nothing comes, or what comes is no text.
pub(crate) fn secret(what: &str) -> Result<Secret, CliError> {
    if std::io::stdin().is_terminal() {
        let terminal = console::Term::stderr();
        let typed = terminal.write_str(&format!("{what}: "));
        let typed = typed.and_then(|()| terminal.read_secure_line());
        return some(what, Secret::new(typed.map_err(CliError::Input)?));
    }
    let mut bytes = Vec::new();
    let read = std::io::stdin()
        .lock()
        .take(MOST + 1)
        .read_to_end(&mut bytes);
    let read = read.map_err(CliError::Input)? as u64;
    if read > MOST {
        return Err(CliError::NoValue(format!("{what} is longer than 1 MiB")));
    }
    let Some(text) = Secret::from_bytes(bytes) else {
        return Err(CliError::NoValue(format!("{what} is not UTF-8 text")));
    };
    let value = text.expose();
    let value = value.strip_suffix('\n').unwrap_or(value);
    let value = value.strip_suffix('\r').unwrap_or(value);
    some(what, Secret::new(value))
}

fn some(what: &str, value: Secret) -> Result<Secret, CliError> {
    if value.expose().is_empty() {
        let text = format!("{what} is empty: give it on standard input");
        return Err(CliError::NoValue(text));
    }
    Ok(value)
}
