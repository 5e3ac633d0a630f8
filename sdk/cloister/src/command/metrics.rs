//! `metrics`: what the node counts.

use sdk_client::Client;
use serde_json::json;

use crate::failure::CliError;
use crate::terminal::Terminal;

/// Prints the page as it is; with `--json` as the one text in an object.
pub(super) async fn run(client: &Client, terminal: &Terminal) -> Result<(), CliError> {
    let page = client.metrics().await?;
    if terminal.json {
        terminal.print_json(&json!({ "prometheus": page }))
    } else {
        terminal.print(page.trim_end())
    }
}
