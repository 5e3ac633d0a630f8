//! `diff`: what a deploy of the manifest would change.

use std::collections::BTreeSet;

use platform_model::{AppName, AppRoutes, Deployment, Digest, TenantName};
use sdk_client::{Client, ClientError};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::deploy::missing_secrets;
use crate::args::DiffArgs;
use crate::failure::CliError;
use crate::manifest::{AppManifest, Loaded, ManifestError};
use crate::terminal::{Terminal, Tone, printable};

/// What `diff --json` prints of an app.
#[derive(Debug, Serialize)]
struct Output {
    app: AppName,
    tenant: TenantName,
    /// The app is not there yet.
    new: bool,
    changes: Vec<Change>,
    /// Secrets that it needs and does not have.
    missing_secrets: Vec<String>,
}

/// A value that would change.
#[derive(Debug, PartialEq, Serialize)]
struct Change {
    what: String,
    from: Value,
    to: Value,
}

/// Compares the apps of a manifest with the deployments that answer.
pub(super) async fn run(
    args: &DiffArgs,
    client: &Client,
    terminal: &Terminal,
) -> Result<(), CliError> {
    let loaded = Loaded::read(&args.manifest.manifest)?;
    let tenant = args.tenant.as_ref().unwrap_or(&loaded.manifest.tenant);
    let mut all = Vec::new();
    for (name, app) in loaded.apps(args.app.as_ref())? {
        let digest = digest(&loaded, app)?;
        let active = active(tenant, name, client).await?;
        let before = active.as_ref().map(shape_of).unwrap_or_default();
        let mut changes = Vec::new();
        if active.is_some() {
            compare("", &before, &shape(app, digest), &mut changes);
            if let Some(wanted) = app.routes() {
                let has = client.routes(tenant, name).await?.value.sorted();
                let (before, after) = (lines(&has), lines(&wanted));
                compare("routes", &before, &after, &mut changes);
            }
        }
        all.push(Output {
            app: name.clone(),
            tenant: tenant.clone(),
            new: active.is_none(),
            changes,
            missing_secrets: missing_secrets(tenant, name, app, client).await?,
        });
    }
    if terminal.json {
        return terminal.print_json(&all);
    }
    for output in all {
        show(&output, terminal)?;
    }
    Ok(())
}

/// The digest of an app's component; none where it is still to be built.
fn digest(loaded: &Loaded, app: &AppManifest) -> Result<Option<Digest>, ManifestError> {
    let path = loaded.component(app);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(Digest::from_sha256(Sha256::digest(bytes).into()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && app.build.is_some() => {
            Ok(None)
        }
        Err(source) => Err(ManifestError::Read { path, source }),
    }
}

/// The deployment that an app stands on, if there is such an app.
async fn active(
    tenant: &TenantName,
    app: &AppName,
    client: &Client,
) -> Result<Option<Deployment>, ClientError> {
    match client.app(tenant, app).await {
        Ok(found) => {
            let deployment = client.deployment(tenant, app, found.deployment);
            Ok(Some(deployment.await?))
        }
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// What is compared of a manifest. Of variables only the names: a node does not give values back.
fn shape(app: &AppManifest, digest: Option<Digest>) -> Value {
    let env: BTreeSet<_> = app.env.keys().collect();
    let hosts: BTreeSet<_> = app.allow_hosts.iter().map(ToString::to_string).collect();
    serde_json::json!({
        "component": digest.map_or("to be built".to_owned(), |digest| digest.to_string()),
        "env": env, "allow_hosts": hosts, "limits": app.limits, "isolation": app.isolation,
        "scale": app.scale, "health": app.health,
    })
}

/// Routes, a line each.
fn lines(routes: &AppRoutes) -> Value {
    routes.routes.iter().map(super::routes::line).collect()
}

/// The same of a deployment.
fn shape_of(deployment: &Deployment) -> Value {
    let env: BTreeSet<_> = deployment.env.iter().collect();
    let hosts = deployment.allow_hosts.iter();
    let hosts: BTreeSet<_> = hosts.map(ToString::to_string).collect();
    serde_json::json!({
        "component": deployment.digest.to_string(),
        "env": env, "allow_hosts": hosts, "limits": deployment.limits, "isolation": deployment.isolation,
        "scale": deployment.scale, "health": deployment.health,
    })
}

/// Finds the values that differ, within objects one by one.
fn compare(path: &str, before: &Value, after: &Value, changes: &mut Vec<Change>) {
    if let (Value::Object(before), Value::Object(after)) = (before, after) {
        for (key, after) in after {
            let path = match path {
                "" => key.clone(),
                path => format!("{path}.{key}"),
            };
            compare(&path, &before[key], after, changes);
        }
    } else if before != after {
        changes.push(Change {
            what: path.to_owned(),
            from: before.clone(),
            to: after.clone(),
        });
    }
}

fn show(output: &Output, terminal: &Terminal) -> Result<(), CliError> {
    let name = terminal.paint(Tone::Strong, output.app.as_str());
    let state = match (output.new, output.changes.is_empty()) {
        (true, _) => "is new",
        (false, true) => "would stay as it is",
        (false, false) => "would change",
    };
    terminal.print(&format!("{name} {state}"))?;
    for change in &output.changes {
        let from = terminal.paint(Tone::Bad, &printable(&change.from.to_string()));
        let to = terminal.paint(Tone::Good, &printable(&change.to.to_string()));
        terminal.print(&format!("  {}: {from} -> {to}", change.what))?;
    }
    for secret in &output.missing_secrets {
        let missing = terminal.paint(Tone::Bad, "is not set");
        terminal.print(&format!("  secret {secret} {missing}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_that_differ_are_found() {
        let before = json!({"a": 1, "b": {"c": 2, "d": [1]}});
        let after = json!({"a": 1, "b": {"c": 3, "d": [1, 2]}});
        let mut changes = Vec::new();
        compare("", &before, &after, &mut changes);
        let told: Vec<_> = changes
            .iter()
            .map(|change| format!("{} {} {}", change.what, change.from, change.to))
            .collect();
        assert_eq!(told, ["b.c 2 3", "b.d [1] [1,2]"]);
    }
}
