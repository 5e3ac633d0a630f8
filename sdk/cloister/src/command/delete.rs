//! `delete`: an app with all its deployments.

use sdk_client::Client;
use serde::Serialize;

use platform_model::{AppName, TenantName};

use crate::args::AppArgs;
use crate::failure::CliError;
use crate::terminal::{Terminal, Tone};

/// What `delete --json` prints.
#[derive(Debug, Serialize)]
struct Deleted<'a> {
    app: &'a AppName,
    tenant: &'a TenantName,
    deleted: bool,
}

/// Deletes an app.
pub(super) async fn run(
    args: &AppArgs,
    client: &Client,
    terminal: &Terminal,
) -> Result<(), CliError> {
    client.delete_app(&args.tenant, &args.app).await?;
    if terminal.json {
        return terminal.print_json(&Deleted {
            app: &args.app,
            tenant: &args.tenant,
            deleted: true,
        });
    }
    let mark = terminal.paint(Tone::Good, "✓");
    terminal.print(&format!(
        "{mark} {} of tenant {} is deleted",
        args.app, args.tenant
    ))
}
