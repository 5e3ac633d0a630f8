//! The way to the node: its URL, and the token for it.

use platform_model::Secret;
use sdk_client::Client;

use crate::args::Global;
use crate::credentials::{Credentials, CredentialsError};
use crate::failure::CliError;

/// A client of the node that the command line and the environment name.
///
/// # Errors
/// When the URL cannot be used, or the token cannot be read.
pub(crate) fn client(global: &Global) -> Result<Client, CliError> {
    let token = token(global)?;
    let token = token.as_ref().map(Secret::expose);
    Ok(Client::new(&global.url, token)?)
}

/// The token: that of the file, or else that of the environment, or else that of `login`, or none.
pub(crate) fn token(global: &Global) -> Result<Option<Secret>, CliError> {
    if let Some(given) = given(global)? {
        return Ok(Some(given));
    }
    match Credentials::read() {
        Ok(kept) => Ok(kept.token(&global.url).cloned()),
        Err(CredentialsError::Home) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The token that this command is given: that of the file, or else that of the environment.
pub(crate) fn given(global: &Global) -> Result<Option<Secret>, CliError> {
    if let Some(path) = &global.token_file {
        let unreadable = |source| CliError::TokenFile {
            path: path.clone(),
            source,
        };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        return Ok(Some(Secret::new(text.trim())));
    }
    let text = std::env::var("CLOISTER_TOKEN").unwrap_or_default();
    Ok(Some(Secret::new(text.trim())).filter(|token| !token.expose().is_empty()))
}
