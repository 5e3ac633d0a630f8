//! `deployments`: what an app was and is.

use sdk_client::Client;
use time::OffsetDateTime;

use super::short;
use crate::args::AppArgs;
use crate::failure::CliError;
use crate::quantity::age;
use crate::table::{Table, number, text};
use crate::terminal::{Terminal, Tone};

/// Lists the deployments of an app.
pub(super) async fn run(
    args: &AppArgs,
    client: &Client,
    terminal: &Terminal,
) -> Result<(), CliError> {
    let deployments = client.deployments(&args.tenant, &args.app).await?;
    if terminal.json {
        return terminal.print_json(&deployments);
    }
    let now = OffsetDateTime::now_utc();
    let columns = [
        number("DEPLOYMENT"),
        text("STATE"),
        text("CREATED"),
        text("COMPONENT").optional(),
        text("ENV").optional(),
        text("ALLOWED HOSTS"),
    ];
    let mut table = Table::new(terminal, columns);
    for deployment in deployments {
        let hosts: Vec<_> = deployment
            .allow_hosts
            .iter()
            .map(ToString::to_string)
            .collect();
        let state = if deployment.active {
            ("active", Some(Tone::Good))
        } else {
            ("-", Some(Tone::Dim))
        };
        table.toned([
            (deployment.deployment.to_string(), None),
            (state.0.to_owned(), state.1),
            (age(deployment.created_at, now), None),
            (short(deployment.digest), None),
            (or_dash(deployment.env.join(", ")), None),
            (or_dash(hosts.join(", ")), None),
        ]);
    }
    terminal.print(&table.text())
}

/// A column is never empty, so that columns can be counted.
fn or_dash(text: String) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        text
    }
}
