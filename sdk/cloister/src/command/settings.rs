//! What the deployments of an app are given: `config` and `secret`.

use std::collections::BTreeMap;

use platform_model::{ConfigChanges, Deployment, SecretChanged, SecretRequest};
use sdk_client::Client;
use time::OffsetDateTime;

use crate::args::AppArgs;
use crate::args::settings::{ChangeArgs, ConfigCommand, OneSecretArgs, SecretCommand};
use crate::failure::CliError;
use crate::input;
use crate::quantity::age;
use crate::table::{Table, number, text};
use crate::terminal::Terminal;

/// Runs a command on an app's configuration.
pub(super) async fn config(
    command: &ConfigCommand,
    client: &Client,
    terminal: &Terminal,
) -> Result<(), CliError> {
    match command {
        ConfigCommand::Set { change, values } => {
            let values = values.iter();
            let values = values.map(|var| (var.name.clone(), Some(var.value.clone())));
            change_config(change, values.collect(), client, terminal).await
        }
        ConfigCommand::Unset { change, names } => {
            let values = names.iter().map(|name| (name.clone(), None));
            change_config(change, values.collect(), client, terminal).await
        }
        ConfigCommand::List(args) => list_config(args, client, terminal).await,
    }
}

async fn change_config(
    args: &ChangeArgs,
    values: BTreeMap<String, Option<String>>,
    client: &Client,
    terminal: &Terminal,
) -> Result<(), CliError> {
    let names: Vec<_> = values.keys().cloned().collect();
    let deploy = !args.no_deploy;
    let changes = ConfigChanges { values, deploy };
    let changed = {
        let _shown = deploy.then(|| terminal.spinner("deploying anew"));
        let changed = client.change_config(&args.app.tenant, &args.app.app, &changes);
        changed.await?
    };
    if terminal.json {
        return terminal.print_json(&changed);
    }
    tell(
        &names.join(", "),
        "changed",
        args,
        changed.deployment.as_ref(),
        terminal,
    )
}

async fn list_config(args: &AppArgs, client: &Client, terminal: &Terminal) -> Result<(), CliError> {
    let config = client.config(&args.tenant, &args.app).await?;
    if terminal.json {
        return terminal.print_json(&config);
    }
    let mut table = Table::new(terminal, [text("NAME"), text("VALUE")]);
    for (name, value) in config.values {
        table.row([name, value]);
    }
    terminal.print(&table.text())
}

/// Runs a command on an app's secrets.
pub(super) async fn secret(
    command: &SecretCommand,
    client: &Client,
    terminal: &Terminal,
) -> Result<(), CliError> {
    match command {
        SecretCommand::Set(args) => {
            let request = request(args)?;
            let _shown = request.deploy.then(|| terminal.spinner("deploying anew"));
            let of = &args.change.app;
            let set = client.set_secret(&of.tenant, &of.app, &args.name, &request);
            say(args, "set", &set.await?, terminal)
        }
        SecretCommand::Rotate(args) => {
            let request = request(args)?;
            let _shown = request.deploy.then(|| terminal.spinner("deploying anew"));
            let of = &args.change.app;
            let set = client.rotate_secret(&of.tenant, &of.app, &args.name, &request);
            say(args, "rotated", &set.await?, terminal)
        }
        SecretCommand::Unset(args) => {
            let (of, deploy) = (&args.change.app, !args.change.no_deploy);
            let unset = client.delete_secret(&of.tenant, &of.app, &args.name, deploy);
            say(args, "gone", &unset.await?, terminal)
        }
        SecretCommand::List(args) => list_secrets(args, client, terminal).await,
        SecretCommand::RotateKey => rotate_key(client, terminal).await,
    }
}

fn request(args: &OneSecretArgs) -> Result<SecretRequest, CliError> {
    let value = input::secret("the value")?;
    let deploy = !args.change.no_deploy;
    Ok(SecretRequest { value, deploy })
}

fn say(
    args: &OneSecretArgs,
    what: &str,
    changed: &SecretChanged,
    terminal: &Terminal,
) -> Result<(), CliError> {
    if terminal.json {
        return terminal.print_json(changed);
    }
    let name = args.name.as_str();
    tell(
        name,
        what,
        &args.change,
        changed.deployment.as_ref(),
        terminal,
    )
}

/// Says what was done, and which deployment has it.
fn tell(
    name: &str,
    what: &str,
    args: &ChangeArgs,
    deployment: Option<&Deployment>,
    terminal: &Terminal,
) -> Result<(), CliError> {
    let app = &args.app.app;
    let then = match deployment {
        Some(deployment) => format!("deployment {} of {app} has it", deployment.deployment),
        None => format!("the next deployment of {app} has it"),
    };
    terminal.done(&format!("{name} is {what}; {then}"))
}

async fn list_secrets(
    args: &AppArgs,
    client: &Client,
    terminal: &Terminal,
) -> Result<(), CliError> {
    let secrets = client.secrets(&args.tenant, &args.app).await?;
    if terminal.json {
        return terminal.print_json(&secrets);
    }
    let now = OffsetDateTime::now_utc();
    let columns = [text("SECRET"), number("VERSION"), text("SET")];
    let mut table = Table::new(terminal, columns);
    for secret in secrets {
        let set = age(secret.updated_at, now);
        table.row([secret.name.to_string(), secret.version.to_string(), set]);
    }
    terminal.print(&table.text())
}

async fn rotate_key(client: &Client, terminal: &Terminal) -> Result<(), CliError> {
    let rotated = client.rotate_key().await?;
    if terminal.json {
        return terminal.print_json(&rotated);
    }
    terminal.done(&format!(
        "{} values are sealed with the new key {}",
        rotated.resealed, rotated.key
    ))
}
