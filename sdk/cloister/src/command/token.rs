//! `token`: who may do what.

use platform_model::{TenantName, TokenId, TokenRequest};
use sdk_client::Client;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::args::access::TokenCommand;
use crate::failure::CliError;
use crate::quantity::{age, span};
use crate::table::{Table, text};
use crate::terminal::{Terminal, Tone};

/// Runs a command on tokens.
pub(super) async fn run(
    command: &TokenCommand,
    client: &Client,
    terminal: &Terminal,
) -> Result<(), CliError> {
    match command {
        TokenCommand::Create {
            owner,
            role,
            app,
            label,
            expires,
        } => {
            let request = TokenRequest {
                role: *role,
                app: app.clone(),
                label: label.clone(),
                expires_in_seconds: *expires,
            };
            request.check()?;
            create(owner.tenant(), &request, client, terminal).await
        }
        TokenCommand::List { owner } => list(owner.tenant(), client, terminal).await,
        TokenCommand::Revoke { id } => revoke(id, client, terminal).await,
    }
}

/// Standard output has just the token, so that it can be piped to where it is kept.
async fn create(
    tenant: Option<&TenantName>,
    request: &TokenRequest,
    client: &Client,
    terminal: &Terminal,
) -> Result<(), CliError> {
    let made = client.create_token(tenant, request).await?;
    if terminal.json {
        return terminal.print_json(&made);
    }
    let info = &made.info;
    let until = info.expires_at.format(&Rfc3339).unwrap_or_default();
    let text = format!(
        "{} for {}, until {until}; it is not shown again",
        info.role, info.scope
    );
    terminal.say(&terminal.paint_err(Tone::Dim, &text));
    terminal.print(made.token.expose())
}

async fn list(
    tenant: Option<&TenantName>,
    client: &Client,
    terminal: &Terminal,
) -> Result<(), CliError> {
    let tokens = client.tokens(tenant).await?;
    if terminal.json {
        return terminal.print_json(&tokens);
    }
    let now = OffsetDateTime::now_utc();
    let columns = [
        text("TOKEN"),
        text("FOR"),
        text("ROLE"),
        text("EXPIRES"),
        text("CREATED").optional(),
        text("BY").optional(),
        text("LABEL").optional(),
    ];
    let mut table = Table::new(terminal, columns);
    for token in tokens {
        let left = u64::try_from((token.expires_at - now).whole_seconds());
        let expires = match left {
            Ok(left) if left > 0 => (format!("in {}", span(left)), None),
            _ => ("expired".to_owned(), Some(Tone::Warn)),
        };
        table.toned([
            (token.id.to_string(), None),
            (token.scope.to_string(), None),
            (token.role.to_string(), None),
            expires,
            (age(token.created_at, now), None),
            (token.created_by, None),
            (token.label.unwrap_or_else(|| "-".to_owned()), None),
        ]);
    }
    terminal.print(&table.text())
}

async fn revoke(id: &TokenId, client: &Client, terminal: &Terminal) -> Result<(), CliError> {
    client.revoke_token(id).await?;
    if terminal.json {
        return terminal.print_json(&json!({"id": id, "revoked": true}));
    }
    terminal.done(&format!("token {id} is good for nothing from now on"))
}
