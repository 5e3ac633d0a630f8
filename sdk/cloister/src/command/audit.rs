//! `audit`: who changed what, from where, and what came of it.

use platform_model::Outcome;
use sdk_client::Client;
use time::OffsetDateTime;

use crate::args::access::AuditArgs;
use crate::failure::CliError;
use crate::quantity::age;
use crate::table::{Table, text};
use crate::terminal::{Terminal, Tone};

/// Lists the latest changes, the latest first.
pub(super) async fn run(
    args: &AuditArgs,
    client: &Client,
    terminal: &Terminal,
) -> Result<(), CliError> {
    let lines = client.audit(args.tenant.as_ref(), args.tail).await?;
    if terminal.json {
        return terminal.print_json(&lines);
    }
    let now = OffsetDateTime::now_utc();
    let columns = [
        text("WHEN"),
        text("WHO"),
        text("FROM").optional(),
        text("WHAT"),
        text("OUTCOME"),
        text("REQUEST").optional(),
    ];
    let dash = || "-".to_owned();
    let mut table = Table::new(terminal, columns);
    for line in lines {
        let (outcome, tone) = match line.outcome {
            Outcome::Done => ("done", Tone::Good),
            Outcome::Refused => ("refused", Tone::Warn),
            Outcome::Failed => ("failed", Tone::Bad),
        };
        let code = line.code.map(|code| format!("{outcome}: {code}"));
        table.toned([
            (age(line.time, now), None),
            (line.who, None),
            (line.from.map_or_else(dash, |from| from.to_string()), None),
            (line.what, None),
            (code.unwrap_or_else(|| outcome.to_owned()), Some(tone)),
            (line.request_id.unwrap_or_else(dash), None),
        ]);
    }
    terminal.print(&table.text())
}
