//! `logs`: what an app wrote, line by line.

use futures_util::TryStreamExt as _;
use platform_model::{LogLine, LogQuery, LogStream, LogStreams};
use sdk_client::Client;
use time::format_description::well_known::Rfc3339;

use crate::args::LogsArgs;
use crate::failure::CliError;
use crate::terminal::{Terminal, Tone, printable};

/// Prints the lines, and with `-f` those to come until it is interrupted.
///
/// Standard output has what the component wrote and nothing else, unless JSON or time stamps are asked for; what the
/// node has to say about it goes to standard error.
pub(super) async fn run(
    args: &LogsArgs,
    client: &Client,
    terminal: &Terminal,
) -> Result<(), CliError> {
    let query = query(args);
    let mut lines = client.logs(&args.app.tenant, &args.app.app, &query).await?;
    while let Some(line) = lines.try_next().await? {
        if terminal.json {
            terminal.print_json(&line)?;
        } else if args.timestamps {
            terminal.print(&stamped(&line, terminal))?;
        } else if line.stream == LogStream::System {
            terminal.say(&terminal.paint_err(Tone::Dim, &printable(&line.line)));
        } else {
            terminal.print(&shown(&line.line, terminal))?;
        }
    }
    Ok(())
}

/// What is asked of the node. Who asks for a request wants to see all of it.
fn query(args: &LogsArgs) -> LogQuery {
    let all = args.request.as_ref().map(|_| LogStreams::ALL);
    LogQuery {
        tail: args.tail,
        follow: args.follow,
        since: args.since,
        until: args.until,
        grep: args.grep.clone(),
        request: args.request.clone(),
        stream: args.stream.or(all),
        deployment: args.deployment,
    }
}

/// A component cannot drive a terminal; in a file or a pipe its bytes are its own.
fn shown(line: &str, terminal: &Terminal) -> String {
    if terminal.interactive {
        printable(line)
    } else {
        line.to_owned()
    }
}

/// A line with all that is known of it.
fn stamped(line: &LogLine, terminal: &Terminal) -> String {
    let stream = match line.stream {
        LogStream::Stdout => "out",
        LogStream::Stderr => "err",
        LogStream::System => "node",
        LogStream::Access => "req",
    };
    let time = line.time.format(&Rfc3339).unwrap_or_default();
    let request = printable(line.request.as_deref().unwrap_or("-"));
    let stamp = format!("{time} #{} {stream:<4} {request}", line.deployment);
    format!(
        "{} {}",
        terminal.paint(Tone::Dim, &stamp),
        shown(&line.line, terminal)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::Color;

    #[test]
    fn a_stamped_line() {
        let mut terminal = Terminal::new(false, Color::Never);
        terminal.interactive = true;
        let line = LogLine {
            time: time::OffsetDateTime::UNIX_EPOCH,
            deployment: platform_model::DeploymentId(3),
            request: None,
            stream: LogStream::Stderr,
            line: "oh\x1b[0m".to_owned(),
            access: None,
        };
        assert_eq!(
            stamped(&line, &terminal),
            "1970-01-01T00:00:00Z #3 err  - oh\\u{1b}[0m"
        );
        terminal.interactive = false;
        assert_eq!(shown(&line.line, &terminal), "oh\x1b[0m");
    }
}
