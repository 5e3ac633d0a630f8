//! One module for each command that asks the node.

mod apps;
mod audit;
mod completions;
mod delete;
mod deploy;
mod deployments;
mod diff;
mod domains;
mod logs;
mod man;
mod metrics;
mod new;
mod open;
mod policy;
mod releases;
mod routes;
mod session;
mod settings;
mod status;
mod tenant;
mod tenants;
mod token;

use crate::args::{Cli, Command};
use crate::connection::client;
use crate::failure::CliError;
use crate::terminal::Terminal;
use crate::{doctor, quickstart};

/// Runs the command that was typed.
pub(crate) async fn run(cli: &Cli, terminal: &Terminal) -> Result<(), CliError> {
    let global = &cli.global;
    match &cli.command {
        Command::Quickstart(args) => Ok(quickstart::run(args, terminal).await?),
        Command::Doctor(args) => doctor::run(args, global, terminal).await,
        Command::Man { folder } => man::run(folder, terminal),
        Command::Completions { shell } => completions::run(*shell, terminal),
        Command::New(args) => new::new(args, terminal),
        Command::Init(args) => new::init(args, terminal),
        Command::Diff(args) => diff::run(args, &client(global)?, terminal).await,
        Command::Deploy(args) => deploy::run(args, &client(global)?, terminal).await,
        Command::Apps(args) => apps::run(args, &client(global)?, terminal).await,
        Command::Open(args) => open::run(args, &client(global)?, terminal).await,
        Command::Deployments(args) => deployments::run(args, &client(global)?, terminal).await,
        Command::Rollback(args) => releases::rollback(args, &client(global)?, terminal).await,
        Command::Promote(args) => releases::promote(args, &client(global)?, terminal).await,
        Command::Split(args) => releases::split(args, &client(global)?, terminal).await,
        Command::Canary(args) => releases::canary(args, &client(global)?, terminal).await,
        Command::History(args) => releases::history(args, &client(global)?, terminal).await,
        Command::Policy(args) => policy::run(args, &client(global)?, terminal).await,
        Command::Logs(args) => logs::run(args, &client(global)?, terminal).await,
        Command::Delete(args) => delete::run(args, &client(global)?, terminal).await,
        Command::Config(args) => settings::config(args, &client(global)?, terminal).await,
        Command::Secret(args) => settings::secret(args, &client(global)?, terminal).await,
        Command::Route(args) => routes::run(args, &client(global)?, terminal).await,
        Command::Domain(args) => domains::run(args, &client(global)?, terminal).await,
        Command::Tenants => tenants::run(&client(global)?, terminal).await,
        Command::Tenant(args) => tenant::run(args, &client(global)?, terminal).await,
        Command::Token(args) => token::run(args, &client(global)?, terminal).await,
        Command::Login => session::login(global, terminal).await,
        Command::Logout => session::logout(global, terminal),
        Command::Whoami => session::whoami(&client(global)?, terminal).await,
        Command::Audit(args) => audit::run(args, &client(global)?, terminal).await,
        Command::Metrics => metrics::run(&client(global)?, terminal).await,
        Command::Status => status::run(&client(global)?, terminal).await,
    }
}

/// The beginning of a digest: enough to tell components apart in a table.
fn short(digest: platform_model::Digest) -> String {
    digest
        .to_string()
        .chars()
        .take("sha256:".len() + 12)
        .collect()
}

/// A column is never empty, so that columns can be counted.
fn or_dash(text: String) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        text
    }
}
