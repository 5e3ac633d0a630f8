//! `deployments`: what an app was and is.

use platform_model::Deployment;
use sdk_client::Client;
use time::OffsetDateTime;

use super::{or_dash, short};
use crate::args::AppArgs;
use crate::failure::CliError;
use crate::quantity::age;
use crate::table::{Table, number, text};
use crate::terminal::{Terminal, Tone};

/// Whether a deployment answers: `active`, `90 %`, `preview`, or not.
fn state(deployment: &Deployment) -> (String, Option<Tone>) {
    match (deployment.weight, &deployment.preview_url) {
        (0, None) if deployment.active => ("active".to_owned(), Some(Tone::Good)),
        (0, None) => ("-".to_owned(), Some(Tone::Dim)),
        (0, Some(_)) => ("preview".to_owned(), None),
        (100, _) => ("active".to_owned(), Some(Tone::Good)),
        (weight, _) => (format!("{weight} %"), Some(Tone::Good)),
    }
}

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
        text("HEALTH").optional(),
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
        let state = state(&deployment);
        table.toned([
            (deployment.deployment.to_string(), None),
            state,
            (age(deployment.created_at, now), None),
            (or_dash(deployment.health.unwrap_or_default()), None),
            (short(deployment.digest), None),
            (or_dash(deployment.env.join(", ")), None),
            (or_dash(hosts.join(", ")), None),
        ]);
    }
    terminal.print(&table.text())
}
