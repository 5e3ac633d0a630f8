//! Who the user is to a node: `login`, `logout`, `whoami`.

use platform_model::{Secret, Whoami};
use sdk_client::Client;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::args::Global;
use crate::connection;
use crate::credentials::Credentials;
use crate::failure::CliError;
use crate::input;
use crate::terminal::{Terminal, Tone};

/// Keeps a token for the node, if the node takes it.
pub(super) async fn login(global: &Global, terminal: &Terminal) -> Result<(), CliError> {
    let token = match connection::given(global)? {
        Some(token) => token,
        None => input::secret("the token")?,
    };
    let client = Client::new(&global.url, Some(token.expose().trim()))?;
    let who = client.whoami().await?;
    let mut kept = Credentials::read()?;
    kept.keep(client.url(), Secret::new(token.expose().trim()))?;
    if terminal.json {
        return terminal.print_json(&who);
    }
    let (url, path) = (client.url(), kept.path().display());
    terminal.done(&format!("{url} takes the token, which is kept in {path}"))?;
    terminal.print(&format!("  {}", describe(&who)))
}

/// Forgets the token for the node. It is good as before.
pub(super) fn logout(global: &Global, terminal: &Terminal) -> Result<(), CliError> {
    let forgotten = Credentials::read()?.forget(&global.url)?;
    if terminal.json {
        return terminal.print_json(&json!({"url": global.url, "forgotten": forgotten}));
    }
    terminal.print(&match forgotten {
        true => format!(
            "{} the token for {} is forgotten; `cloister token revoke` is what ends one",
            terminal.paint(Tone::Good, "✓"),
            global.url
        ),
        false => format!("there is no token for {}", global.url),
    })
}

/// Says whose token this is.
pub(super) async fn whoami(client: &Client, terminal: &Terminal) -> Result<(), CliError> {
    let who = client.whoami().await?;
    if terminal.json {
        return terminal.print_json(&who);
    }
    terminal.print(&format!("{} at {}", describe(&who), client.url()))
}

/// `acme.k3v9 (ci): deploy for acme, until 2026-01-02`.
fn describe(who: &Whoami) -> String {
    let label = who.label.as_ref();
    let label = label.map_or(String::new(), |label| format!(" ({label})"));
    let until = who
        .expires_at
        .map_or(String::new(), |time: OffsetDateTime| {
            format!(", until {}", time.format(&Rfc3339).unwrap_or_default())
        });
    let text = format!("{}{label}: {} for {}{until}", who.id, who.role, who.scope);
    crate::terminal::printable(&text)
}
