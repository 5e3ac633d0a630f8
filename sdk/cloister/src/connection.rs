//! The way to the node: its URL, and the token for it.

use crate::args::Global;
use crate::failure::CliError;
use sdk_client::Client;

/// A client of the node that the command line and the environment name.
///
/// # Errors
/// When the URL cannot be used, or the token cannot be read.
pub(crate) fn client(global: &Global) -> Result<Client, CliError> {
    let token = token(global)?;
    Ok(Client::new(&global.url, token.as_deref())?)
}

/// The token: that of the file, or else that of the environment, or none.
pub(crate) fn token(global: &Global) -> Result<Option<String>, CliError> {
    if let Some(path) = &global.token_file {
        let unreadable = |source| CliError::TokenFile {
            path: path.clone(),
            source,
        };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        return Ok(Some(text.trim().to_owned()));
    }
    let text = std::env::var("CLOISTER_TOKEN").unwrap_or_default();
    Ok(Some(text.trim().to_owned()).filter(|token| !token.is_empty()))
}
