//! `deploy`: upload, compile, start, switch over.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use platform_model::{AppName, DeployRequest, Deployment, DeploymentId, Digest, TenantName};
use sdk_client::{Client, ClientError, Deployed};
use serde::Serialize;

use super::short;
use crate::args::DeployArgs;
use crate::failure::CliError;
use crate::quantity::{duration, size};
use crate::terminal::{Terminal, Tone};

/// What `deploy --json` prints.
#[derive(Debug, Serialize)]
struct Output<'a> {
    app: &'a AppName,
    tenant: &'a TenantName,
    deployment: DeploymentId,
    digest: &'a Digest,
    url: &'a str,
}

/// Deploys a component.
pub(super) async fn run(
    args: &DeployArgs,
    client: &Client,
    terminal: &Terminal,
) -> Result<(), CliError> {
    // Checked before anything is sent: the digest is not known yet and is not looked at.
    let mut request = DeployRequest {
        digest: Digest::from_sha256([0; 32]),
        env: args
            .env
            .iter()
            .map(|var| (var.name.clone(), var.value.clone()))
            .collect::<BTreeMap<_, _>>(),
        allow_hosts: args.allow_host.clone(),
        limits: args.limits.limits(),
        isolation: args.isolation,
        scale: args.scale.scale(),
        health: args.release.health.clone(),
        preview: args.release.preview,
        canary: args.release.canary(),
        approve: args.release.yes,
    };
    request.check()?;
    let began = Instant::now();
    let upload = upload(&args.component, &args.tenant, client, terminal).await?;
    let uploaded = began.elapsed();
    request.digest = upload.digest;
    let deployed = {
        let _shown = terminal.spinner("compiling and starting");
        client.deploy(&args.tenant, &args.app, &request).await?
    };
    if terminal.json {
        return terminal.print_json(&output(&deployed.deployment));
    }
    let mark = terminal.paint(Tone::Good, "✓");
    let Deployed {
        deployment,
        timings,
    } = &deployed;
    terminal.print(&format!(
        "{mark} {} is deployed as number {}{} ({}, {})",
        deployment.app,
        deployment.deployment,
        part(deployment),
        size(upload.size),
        short(deployment.digest)
    ))?;
    let mut steps = vec![format!("upload {}", duration(uploaded))];
    steps.extend(
        timings
            .iter()
            .map(|timing| format!("{} {}", timing.step, duration(timing.time))),
    );
    steps.push(format!("in all {}", duration(began.elapsed())));
    terminal.print(&format!(
        "  {}",
        terminal.paint(Tone::Dim, &steps.join(", "))
    ))?;
    terminal.print(&format!(
        "  {}",
        terminal.paint(Tone::Strong, url(deployment))
    ))
}

/// Uploads with a bar. A tenant that does not exist yet is created: a component belongs to somebody.
async fn upload(
    component: &Path,
    tenant: &TenantName,
    client: &Client,
    terminal: &Terminal,
) -> Result<platform_model::ComponentUpload, ClientError> {
    match upload_once(component, tenant, client, terminal).await {
        Err(error) if error.is_not_found() && !tenant.is_default() => {
            client.create_tenant(tenant).await?;
            upload_once(component, tenant, client, terminal).await
        }
        other => other,
    }
}

async fn upload_once(
    component: &Path,
    tenant: &TenantName,
    client: &Client,
    terminal: &Terminal,
) -> Result<platform_model::ComponentUpload, ClientError> {
    let total = std::fs::metadata(component).map_or(0, |file| file.len());
    let bar = terminal.bytes_bar("uploading", total);
    let mut position = bar.position();
    client
        .upload(tenant, component, move |progress| position(progress.sent))
        .await
}

/// What it answers, where that is not everything.
fn part(deployment: &Deployment) -> String {
    match (deployment.weight, &deployment.preview_url) {
        (0, Some(_)) => ", a preview".to_owned(),
        (0 | 100, _) => String::new(),
        (weight, _) => format!(", a canary with {weight} % of the requests"),
    }
}

/// Where it can be seen: a preview has a URL of its own.
fn url(deployment: &Deployment) -> &str {
    let preview = deployment.preview_url.as_deref();
    preview.unwrap_or(&deployment.url)
}

fn output(deployment: &Deployment) -> Output<'_> {
    Output {
        app: &deployment.app,
        tenant: &deployment.tenant,
        deployment: deployment.deployment,
        digest: &deployment.digest,
        url: url(deployment),
    }
}
