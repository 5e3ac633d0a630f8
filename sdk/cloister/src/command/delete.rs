//! `delete`: an app with all its deployments, or one of them.

use sdk_client::Client;
use serde::Serialize;

use platform_model::{AppName, DeploymentId, TenantName};

use crate::args::DeleteArgs;
use crate::failure::CliError;
use crate::terminal::Terminal;

/// What `delete --json` prints.
#[derive(Debug, Serialize)]
struct Deleted<'a> {
    app: &'a AppName,
    tenant: &'a TenantName,
    #[serde(skip_serializing_if = "Option::is_none")]
    deployment: Option<DeploymentId>,
    deleted: bool,
}

/// Deletes an app, or one of its deployments.
pub(super) async fn run(
    args: &DeleteArgs,
    client: &Client,
    terminal: &Terminal,
) -> Result<(), CliError> {
    let (tenant, app) = (&args.app.tenant, &args.app.app);
    let what = match args.deployment {
        Some(number) => {
            client.delete_deployment(tenant, app, number).await?;
            format!("deployment {number} of {app}")
        }
        None => {
            client.delete_app(tenant, app).await?;
            app.to_string()
        }
    };
    if terminal.json {
        return terminal.print_json(&Deleted {
            app,
            tenant,
            deployment: args.deployment,
            deleted: true,
        });
    }
    terminal.done(&format!("{what} of tenant {tenant} is deleted"))
}
