//! Who answers for an app: `rollback`, `promote`, `split`, `canary`, `history`.

use platform_model::{AppName, Canary, Release, ReleaseAction, TenantName, Traffic};
use sdk_client::Client;
use serde::Serialize;
use time::OffsetDateTime;

use super::or_dash;
use crate::args::release::{CanaryArgs, HistoryArgs, PromoteArgs, RollbackArgs, SplitArgs};
use crate::failure::CliError;
use crate::quantity::age;
use crate::table::{Table, number, text};
use crate::terminal::{Terminal, Tone};

/// What `rollback`, `promote` and `split` print with `--json`.
#[derive(Debug, Serialize)]
struct Answering<'a> {
    app: &'a AppName,
    tenant: &'a TenantName,
    #[serde(flatten)]
    traffic: &'a Traffic,
}

/// Lets an older deployment answer again.
pub(super) async fn rollback(
    args: &RollbackArgs,
    client: &Client,
    terminal: &Terminal,
) -> Result<(), CliError> {
    let traffic = client.rollback(&args.tenant, &args.app, args.to).await?;
    tell(&args.tenant, &args.app, &traffic, terminal)
}

/// Lets one deployment answer everything.
pub(super) async fn promote(
    args: &PromoteArgs,
    client: &Client,
    terminal: &Terminal,
) -> Result<(), CliError> {
    let promoted = client.promote(&args.tenant, &args.app, args.deployment);
    tell(&args.tenant, &args.app, &promoted.await?, terminal)
}

/// Shares an app's requests among deployments, or shows how they are shared.
pub(super) async fn split(
    args: &SplitArgs,
    client: &Client,
    terminal: &Terminal,
) -> Result<(), CliError> {
    let traffic = match &args.shares {
        Some(shares) => {
            let sticky = args.sticky.clone();
            let wanted = Traffic {
                sticky,
                ..shares.clone()
            };
            client.set_traffic(&args.tenant, &args.app, &wanted).await?
        }
        None => client.traffic(&args.tenant, &args.app).await?,
    };
    tell(&args.tenant, &args.app, &traffic, terminal)
}

/// Says who answers.
fn tell(
    tenant: &TenantName,
    app: &AppName,
    traffic: &Traffic,
    terminal: &Terminal,
) -> Result<(), CliError> {
    if terminal.json {
        return terminal.print_json(&Answering {
            app,
            tenant,
            traffic,
        });
    }
    let sticky = traffic.sticky.as_ref();
    let sticky = sticky.map_or(String::new(), |by| format!(", a client stays by its {by}"));
    terminal.done(&format!("{app}: {}{sticky}", shares(traffic)))
}

/// `deployment 3 answers`, or `deployment 3 answers 90 %, 4 10 %`.
fn shares(traffic: &Traffic) -> String {
    if let [only] = traffic.shares[..] {
        return format!("deployment {} answers", only.deployment);
    }
    let shares = traffic.shares.iter();
    let shares: Vec<_> = shares
        .map(|share| format!("{} % by deployment {}", share.weight, share.deployment))
        .collect();
    format!("answered {}", shares.join(", "))
}

/// Shows the canary of an app, or gives it up.
pub(super) async fn canary(
    args: &CanaryArgs,
    client: &Client,
    terminal: &Terminal,
) -> Result<(), CliError> {
    let (tenant, app) = (&args.app.tenant, &args.app.app);
    if args.abort {
        client.abort_canary(tenant, app).await?;
        let traffic = client.traffic(tenant, app).await?;
        return tell(tenant, app, &traffic, terminal);
    }
    let canary = client.canary(tenant, app).await?;
    if terminal.json {
        return terminal.print_json(&canary);
    }
    terminal.print(&told(&canary, OffsetDateTime::now_utc()))
}

fn told(canary: &Canary, now: OffsetDateTime) -> String {
    let steps: Vec<_> = canary.plan.steps.iter().map(|s| format!("{s} %")).collect();
    format!(
        "deployment {} answers {} % (steps {}, {} s each), since {}\n{} requests in this step, {} of them failed; given up if {}",
        canary.deployment,
        canary.weight,
        steps.join(", "),
        canary.plan.step_seconds,
        age(canary.started_at, now),
        canary.requests,
        canary.errors,
        canary.plan.abort_if,
    )
}

/// Says who answered when, by whom and why.
pub(super) async fn history(
    args: &HistoryArgs,
    client: &Client,
    terminal: &Terminal,
) -> Result<(), CliError> {
    let (tenant, app) = (&args.app.tenant, &args.app.app);
    let lines = client.history(tenant, app, args.last).await?;
    if terminal.json {
        return terminal.print_json(&lines);
    }
    let now = OffsetDateTime::now_utc();
    let columns = [
        text("WHEN"),
        text("WHO").optional(),
        text("WHAT"),
        number("DEPLOYMENT"),
        text("ANSWERED BY"),
        text("WHY"),
    ];
    let mut table = Table::new(terminal, columns);
    for line in lines {
        table.toned(row(line, now));
    }
    terminal.print(&table.text())
}

fn row(line: Release, now: OffsetDateTime) -> [(String, Option<Tone>); 6] {
    let tone = match line.action {
        ReleaseAction::CanaryAborted => Tone::Bad,
        ReleaseAction::Rollback => Tone::Warn,
        _ => Tone::Strong,
    };
    [
        (age(line.time, now), None),
        (line.who, Some(Tone::Dim)),
        (line.action.to_string(), Some(tone)),
        (line.deployment.to_string(), None),
        (line.traffic.to_string(), None),
        (or_dash(line.why.unwrap_or_default()), None),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_answers_is_told() {
        let traffic = |text: &str| text.parse::<Traffic>().unwrap();
        assert_eq!(shares(&traffic("3=100")), "deployment 3 answers");
        let told = "answered 90 % by deployment 3, 10 % by deployment 4";
        assert_eq!(shares(&traffic("3=90,4=10")), told);
    }
}
