//! `apps`: the apps of every tenant, or of one.

use sdk_client::Client;
use time::OffsetDateTime;

use super::short;
use crate::args::AppsArgs;
use crate::failure::CliError;
use crate::quantity::age;
use crate::table::{Table, number, text};
use crate::terminal::Terminal;

/// Lists the apps.
pub(super) async fn run(
    args: &AppsArgs,
    client: &Client,
    terminal: &Terminal,
) -> Result<(), CliError> {
    let apps = match &args.tenant {
        Some(tenant) => client.tenant_apps(tenant).await?,
        None => client.apps().await?,
    };
    if terminal.json {
        return terminal.print_json(&apps);
    }
    if apps.is_empty() {
        terminal.say("no apps yet: `cloister deploy X.wasm --app NAME` makes one");
        return Ok(());
    }
    let now = OffsetDateTime::now_utc();
    let columns = [
        text("APP"),
        text("TENANT"),
        number("DEPLOYMENT"),
        text("DEPLOYED").optional(),
        text("COMPONENT").optional(),
        text("URL"),
    ];
    let mut table = Table::new(terminal, columns);
    for app in apps {
        table.row([
            app.app.to_string(),
            app.tenant.to_string(),
            app.deployment.to_string(),
            age(app.deployed_at, now),
            short(app.digest),
            app.url,
        ]);
    }
    terminal.print(&table.text())
}
