//! `open`: the URL of an app, in a browser.

use platform_model::{AppName, TenantName};
use sdk_client::Client;
use serde::Serialize;

use crate::args::OpenArgs;
use crate::failure::CliError;
use crate::manifest::{Loaded, ManifestError};
use crate::terminal::{Terminal, printable};

/// What `open --json` prints.
#[derive(Debug, Serialize)]
struct Output {
    app: AppName,
    tenant: TenantName,
    url: String,
    /// Whether a browser was told to open it.
    opened: bool,
}

/// What of the environment leads to a browser: a display of either kind, a browser of the user's choice, the browser of
/// Windows.
const BROWSERS: [&str; 4] = ["DISPLAY", "WAYLAND_DISPLAY", "BROWSER", "WSL_DISTRO_NAME"];

/// Prints the URL of an app, and opens it unless told not to. That there is no browser is no failure.
pub(super) async fn run(
    args: &OpenArgs,
    client: &Client,
    terminal: &Terminal,
) -> Result<(), CliError> {
    let (tenant, app) = named(args)?;
    let url = client.app(&tenant, &app).await?.url;
    if !terminal.json {
        terminal.print(&printable(&url))?;
    }
    let mut opened = false;
    if !args.print {
        match browse(&url) {
            Ok(()) => opened = true,
            Err(why) => terminal.say(&format!("not opened: {why}")),
        }
    }
    if terminal.json {
        return terminal.print_json(&Output {
            app,
            tenant,
            url,
            opened,
        });
    }
    Ok(())
}

/// The app that is meant: the only one of the manifest where none is named.
fn named(args: &OpenArgs) -> Result<(TenantName, AppName), CliError> {
    let tenant = args.tenant.clone();
    if let Some(app) = &args.app {
        return Ok((tenant.unwrap_or_default(), app.clone()));
    }
    let loaded = match Loaded::read(&args.manifest.manifest) {
        Err(ManifestError::Missing(path)) => {
            let text = format!("which app? {} is not there: name one", path.display());
            return Err(CliError::NoValue(text));
        }
        loaded => loaded?,
    };
    let app = loaded.only_app()?.clone();
    Ok((tenant.unwrap_or(loaded.manifest.tenant), app))
}

/// Has a browser open a URL. The error says why there is none.
fn browse(url: &str) -> Result<(), String> {
    // A node says what the URL is; nothing but a page is opened for it.
    if !["http://", "https://"]
        .iter()
        .any(|web| url.starts_with(web))
    {
        return Err("it is no URL of a page".to_owned());
    }
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if !BROWSERS.into_iter().any(set) {
        return Err("there is no display here, nor is BROWSER set".to_owned());
    }
    open::that_detached(url).map_err(|error| error.to_string())
}
