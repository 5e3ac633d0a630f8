//! `tenants`: who has apps on the node.

use sdk_client::Client;
use time::OffsetDateTime;

use crate::failure::CliError;
use crate::quantity::age;
use crate::table::{Table, number, text};
use crate::terminal::Terminal;

/// Lists the tenants.
pub(super) async fn run(client: &Client, terminal: &Terminal) -> Result<(), CliError> {
    let tenants = client.tenants().await?;
    if terminal.json {
        return terminal.print_json(&tenants);
    }
    let now = OffsetDateTime::now_utc();
    let mut table = Table::new(terminal, [text("TENANT"), number("APPS"), text("CREATED")]);
    for tenant in tenants {
        table.row([
            tenant.tenant.to_string(),
            tenant.apps.to_string(),
            age(tenant.created_at, now),
        ]);
    }
    terminal.print(&table.text())
}
