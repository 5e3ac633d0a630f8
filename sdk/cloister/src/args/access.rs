//! What is typed about who may do what: tenants, tokens, the audit log.

use clap::{Args, Subcommand};
use platform_model::{AppName, Role, TenantName, TokenId};

use super::policy::PolicyArgs;
use crate::quantity::{parse_millis, parse_size};

/// `tenant …`.
#[derive(Debug, Subcommand)]
pub(crate) enum TenantCommand {
    /// Create a tenant; one that is there stays as it is
    Create {
        /// Its name; it becomes a part of the host names of its apps
        tenant: TenantName,
    },
    /// List the tenants
    List,
    /// Delete a tenant that has no apps
    Delete {
        /// Its name
        tenant: TenantName,
    },
    /// Show what a tenant has and may have, or change what it may
    Quotas(Box<QuotasArgs>),
}

/// `tenant quotas`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: cloister tenant quotas acme --apps 5 --disk 1GiB --rate 100/s,burst=200"
)]
pub(crate) struct QuotasArgs {
    /// Its name
    pub(crate) tenant: TenantName,
    /// Apps that it may have
    #[arg(long, value_name = "N")]
    pub(crate) apps: Option<u32>,
    /// Deployments of all its apps together
    #[arg(long, value_name = "N")]
    pub(crate) deployments: Option<u32>,
    /// Tokens of the tenant and of its apps
    #[arg(long, value_name = "N")]
    pub(crate) tokens: Option<u32>,
    /// Disk for components and for what is compiled of them
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) disk: Option<u64>,
    /// Memory of the VMs of all its apps together
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) memory: Option<u64>,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
}

impl QuotasArgs {
    /// Whether anything is to be changed of its quotas.
    pub(crate) fn has_quotas(&self) -> bool {
        self.apps.or(self.deployments).or(self.tokens).is_some()
            || self.disk.or(self.memory).is_some()
    }
}

/// A tenant, or the node.
#[derive(Debug, Args)]
pub(crate) struct OwnerArgs {
    /// The tenant
    #[arg(long, short, default_value_t)]
    tenant: TenantName,
    /// The node rather than a tenant
    #[arg(long, conflicts_with = "tenant")]
    node: bool,
}

impl OwnerArgs {
    /// The tenant, where it is not the node.
    pub(crate) fn tenant(&self) -> Option<&TenantName> {
        (!self.node).then_some(&self.tenant)
    }
}

/// `token …`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token, and print it this once
    #[command(
        after_help = "Example: cloister token create --tenant acme --role deploy --label ci --expires 30d"
    )]
    Create {
        #[command(flatten)]
        owner: OwnerArgs,
        /// What its holder may do: read, deploy, admin
        #[arg(long)]
        role: Role,
        /// Only for one app of the tenant, which need not be there yet
        #[arg(long, short, value_name = "NAME", conflicts_with = "node")]
        app: Option<AppName>,
        /// What it is for
        #[arg(long, short, value_name = "TEXT")]
        label: Option<String>,
        /// How long it is good, such as 12h or 30d [default: 90d]
        #[arg(long, value_name = "TIME", value_parser = lifetime)]
        expires: Option<u64>,
    },
    /// List the tokens, without what is sent
    List {
        #[command(flatten)]
        owner: OwnerArgs,
    },
    /// Take a token back at once
    Revoke {
        /// Its id, as `token list` has it
        id: TokenId,
    },
}

/// Reads how long a token is good, in seconds.
pub(super) fn lifetime(text: &str) -> Result<u64, String> {
    const WRONG: &str = "give a time such as 45min, 12h or 30d";
    if let Some(days) = text.strip_suffix('d') {
        let days: u64 = days.parse().map_err(|_| WRONG)?;
        return days.checked_mul(86_400).ok_or(WRONG.to_owned());
    }
    let millis = parse_millis(text).map_err(|_| WRONG)?;
    match (millis / 1_000, text.ends_with(|c: char| c.is_ascii_digit())) {
        (0, _) | (_, true) => Err(WRONG.to_owned()),
        (seconds, false) => Ok(seconds),
    }
}

/// `audit`.
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// Only what was changed of one tenant; the token of a tenant sees no other
    #[arg(long, short)]
    pub(crate) tenant: Option<TenantName>,
    /// The last N changes
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
    pub(crate) tail: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes() {
        assert_eq!(lifetime("30d"), Ok(2_592_000));
        assert_eq!(lifetime("12h"), Ok(43_200));
        for bad in ["", "5", "10ms", "x", "-1d", "99999999999999999999d"] {
            assert!(lifetime(bad).is_err(), "{bad}");
        }
    }
}
