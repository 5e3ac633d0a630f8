//! What is typed about configuration and secrets.

use clap::{Args, Subcommand};
use platform_model::{EnvVar, SecretName};

use super::AppArgs;

/// Whether a change deploys.
#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    #[command(flatten)]
    pub(crate) app: AppArgs,
    /// Only keep it for the next deployment; without this the app is deployed anew, with the component that it has
    #[arg(long)]
    pub(crate) no_deploy: bool,
}

/// `config …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Set variables that each deployment of an app sees
    #[command(after_help = "Example: cloister config set shop GREETING=Hi COLOUR=blue")]
    Set {
        #[command(flatten)]
        change: ChangeArgs,
        /// Variables; for what is not to be seen by others there is `secret`
        #[arg(value_name = "NAME=VALUE", required = true)]
        values: Vec<EnvVar>,
    },
    /// Take variables out
    Unset {
        #[command(flatten)]
        change: ChangeArgs,
        /// Their names
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
    /// List the variables
    List(AppArgs),
}

/// `secret …`.
#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Set a secret, a variable whose value is not shown again; the value is read from standard input
    #[command(
        after_help = "Example: cloister secret set shop DATABASE_URL < url.txt\n\nOne line end at the end of the input is not part of the value."
    )]
    Set(OneSecretArgs),
    /// Give a secret that is there another value, read from standard input
    Rotate(OneSecretArgs),
    /// Take a secret away
    Unset(OneSecretArgs),
    /// List the secrets, without their values
    List(AppArgs),
    /// Make a new key for all secrets of the node, and seal them anew with it
    RotateKey,
}

/// A secret of an app.
#[derive(Debug, Args)]
pub(crate) struct OneSecretArgs {
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
    /// The secret's name, which is that of the variable
    #[arg(value_name = "NAME")]
    pub(crate) name: SecretName,
}
