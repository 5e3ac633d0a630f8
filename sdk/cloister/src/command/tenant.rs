//! `tenant`: who has apps on the node, and what they may have.

use platform_model::{QuotaChanges, Tenant, TenantChanges, TenantName};
use sdk_client::{Client, Tagged};
use serde_json::json;

use super::{policy, tenants};
use crate::args::access::{QuotasArgs, TenantCommand};
use crate::failure::CliError;
use crate::quantity::size;
use crate::table::{Table, number, text};
use crate::terminal::Terminal;

/// Runs a command on tenants.
pub(super) async fn run(
    command: &TenantCommand,
    client: &Client,
    terminal: &Terminal,
) -> Result<(), CliError> {
    match command {
        TenantCommand::Create { tenant } => create(tenant, client, terminal).await,
        TenantCommand::List => tenants::run(client, terminal).await,
        TenantCommand::Delete { tenant } => delete(tenant, client, terminal).await,
        TenantCommand::Quotas(args) => quotas(args, client, terminal).await,
    }
}

async fn create(tenant: &TenantName, client: &Client, terminal: &Terminal) -> Result<(), CliError> {
    let made = client.create_tenant(tenant).await?;
    if terminal.json {
        return terminal.print_json(&made);
    }
    terminal.done(&format!("tenant {tenant} is there"))?;
    terminal.print(&format!(
        "  `cloister token create --tenant {tenant} --role deploy` makes a token for it"
    ))
}

async fn delete(tenant: &TenantName, client: &Client, terminal: &Terminal) -> Result<(), CliError> {
    client.delete_tenant(tenant).await?;
    if terminal.json {
        return terminal.print_json(&json!({"tenant": tenant, "deleted": true}));
    }
    terminal.done(&format!("tenant {tenant} is deleted"))
}

async fn quotas(args: &QuotasArgs, client: &Client, terminal: &Terminal) -> Result<(), CliError> {
    let Tagged { value, tag } = client.tenant(&args.tenant).await?;
    // The policy is replaced as a whole, so it must be the one that was read.
    let policy = args.policy.changed(&value.policy);
    let tenant = if args.has_quotas() || policy.is_some() {
        let quotas = QuotaChanges {
            apps: args.apps,
            deployments: args.deployments,
            tokens: args.tokens,
            disk_bytes: args.disk,
            memory_bytes: args.memory,
        };
        let changes = TenantChanges { quotas, policy };
        let changed = client.change_tenant(&args.tenant, &changes, tag.as_deref());
        changed.await?.value
    } else {
        value
    };
    if terminal.json {
        return terminal.print_json(&tenant);
    }
    terminal.print(&table(&tenant, terminal).text())
}

fn table(tenant: &Tenant, terminal: &Terminal) -> Table<3> {
    let (quotas, usage) = (&tenant.quotas, &tenant.usage);
    let mut table = Table::new(terminal, [text("QUOTA"), number("USED"), number("LIMIT")]);
    let mut row = |name: &str, used: String, limit: String| {
        table.row([name.to_owned(), used, limit]);
    };
    let count = |number: u64| number.to_string();
    row("apps", count(usage.apps), count(quotas.apps.into()));
    row(
        "deployments",
        count(usage.deployments),
        count(quotas.deployments.into()),
    );
    row("tokens", count(usage.tokens), count(quotas.tokens.into()));
    row("disk", size(usage.disk_bytes), size(quotas.disk_bytes));
    let dash = || "-".to_owned();
    row("memory", dash(), size(quotas.memory_bytes));
    for (name, limit) in policy::rows(&tenant.policy) {
        row(name, dash(), limit);
    }
    table
}
