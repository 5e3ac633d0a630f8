//! `policy`: what an app may take at the router, and how many of its deployments are kept.

use platform_model::{AppChanges, Policy};
use sdk_client::{Client, Tagged};

use crate::args::policy::AppPolicyArgs;
use crate::failure::CliError;
use crate::quantity::{duration, size};
use crate::table::{Table, number, text};
use crate::terminal::Terminal;

/// Shows it, or changes it.
pub(super) async fn run(
    args: &AppPolicyArgs,
    client: &Client,
    terminal: &Terminal,
) -> Result<(), CliError> {
    let (tenant, name) = (&args.app.tenant, &args.app.app);
    let Tagged { value, tag } = client.tagged_app(tenant, name).await?;
    // The policy is replaced as a whole, so it must be the one that was read.
    let policy = args.policy.changed(&value.policy);
    let app = if policy.is_some() || args.keep.is_some() {
        let keep = args.keep;
        let changes = AppChanges { policy, keep };
        client
            .change_app(tenant, name, &changes, tag.as_deref())
            .await?
    } else {
        value
    };
    if terminal.json {
        return terminal.print_json(&app);
    }
    let mut table = Table::new(terminal, [text("POLICY"), number("LIMIT")]);
    for (name, limit) in rows(&app.policy) {
        table.row([name.to_owned(), limit]);
    }
    table.row(["kept deployments".to_owned(), app.keep.to_string()]);
    terminal.print(&table.text())
}

/// Each limit of a policy with its value.
pub(super) fn rows(policy: &Policy) -> [(&'static str, String); 5] {
    let none = || "none".to_owned();
    [
        ("rate", policy.rate.map_or_else(none, |r| r.to_string())),
        (
            "concurrency",
            policy.concurrency.map_or_else(none, |n| n.to_string()),
        ),
        (
            "cpu per minute",
            policy.cpu_per_minute().map_or_else(none, duration),
        ),
        (
            "request body",
            policy.request_body_bytes.map_or_else(none, size),
        ),
        (
            "response body",
            policy.response_body_bytes.map_or_else(none, size),
        ),
    ]
}
