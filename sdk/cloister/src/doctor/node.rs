//! The node that the command line names: there, of this version, and open to the token. None of it keeps a host from
//! being one.

use platform_model::Secret;
use sdk_client::{Client, ClientError};

use super::Check;
use crate::args::Global;
use crate::connection;

/// Asks the node how it is, and then what it does, which takes the token.
pub(super) async fn checks(global: &Global) -> Vec<Check> {
    const NAME: &str = "node";
    let token = connection::token(global);
    let client = match Client::new(
        &global.url,
        (token.as_ref().ok()).and_then(|token| token.as_ref().map(Secret::expose)),
    ) {
        Ok(client) => client,
        Err(ClientError::Token) => {
            return vec![Check::warn("token", ClientError::Token.to_string(), TOKEN)];
        }
        Err(error) => {
            return vec![Check::warn(
                NAME,
                error.to_string(),
                "correct --url or CLOISTER_URL",
            )];
        }
    };
    let health = match client.health().await {
        Ok(health) => health,
        Err(error) => {
            let fix = "`cloister quickstart` starts one; --url or CLOISTER_URL names another";
            return vec![Check::warn(NAME, error.to_string(), fix)];
        }
    };
    let detail = format!("{} answers, version {}", client.url(), health.version);
    let mut checks = vec![if health.version == env!("CARGO_PKG_VERSION") {
        Check::ok(NAME, detail)
    } else {
        let detail = format!(
            "{detail}; this command is version {}",
            env!("CARGO_PKG_VERSION")
        );
        Check::warn(NAME, detail, "use a command and a node of one version")
    }];
    checks.push(match (token, client.status().await) {
        (Err(error), _) => Check::warn("token", error.to_string(), TOKEN),
        (Ok(_), Ok(status)) => Check::ok(
            "token",
            format!(
                "accepted; {} VMs in {} workers",
                status.vms.len(),
                status.workers.len()
            ),
        ),
        (Ok(None), Err(error)) if error.is_auth() => Check::warn("token", "none is given", TOKEN),
        (Ok(_), Err(error)) => Check::warn("token", error.to_string(), TOKEN),
    });
    checks
}

const TOKEN: &str = "give the node's with --token-file DIR/admin-token or CLOISTER_TOKEN; DIR is the --data of the node";
