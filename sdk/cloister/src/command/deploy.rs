//! `deploy`: upload, compile, start, switch over; of one component, or of the apps of a manifest.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use platform_model::{
    AppChanges, AppName, DeployRequest, Deployment, DeploymentId, Digest, SecretName, TenantName,
};
use sdk_client::{Client, ClientError, Deployed, Tagged};
use serde::Serialize;

use super::short;
use crate::args::DeployArgs;
use crate::failure::CliError;
use crate::manifest::{AppManifest, Loaded, ManifestError};
use crate::quantity::{duration, size};
use crate::terminal::{Terminal, Tone};

/// What `deploy --json` prints: one of a component, a list of them of a manifest.
#[derive(Debug, Serialize)]
struct Output<'a> {
    app: &'a AppName,
    tenant: &'a TenantName,
    deployment: DeploymentId,
    digest: &'a Digest,
    url: &'a str,
}

/// In place of a digest that is not known yet: it is not looked at.
const NOT_KNOWN: Digest = Digest::from_sha256([0; 32]);

/// A deployment of a component, with what is to be deployed but the digest, which is not known yet.
struct Job<'a> {
    tenant: &'a TenantName,
    app: &'a AppName,
    component: &'a Path,
    request: DeployRequest,
}

/// Deploys a component, or the apps of a manifest.
pub(super) async fn run(
    args: &DeployArgs,
    client: &Client,
    terminal: &Terminal,
) -> Result<(), CliError> {
    let (Some(component), Some(app)) = (&args.component, &args.app) else {
        return manifest(args, client, terminal).await;
    };
    let tenant = args.tenant.clone().unwrap_or_default();
    let job = Job {
        tenant: &tenant,
        app,
        component,
        request: of_flags(args),
    };
    let deployed = deploy(job, client, terminal).await?;
    if terminal.json {
        return terminal.print_json(&output(&deployed));
    }
    Ok(())
}

/// What the flags say. The digest is not known yet.
fn of_flags(args: &DeployArgs) -> DeployRequest {
    let env = args.env.iter();
    let env = env.map(|var| (var.name.clone(), var.value.clone()));
    let request = DeployRequest {
        env: env.collect::<BTreeMap<_, _>>(),
        allow_hosts: args.allow_host.clone(),
        limits: args.limits.limits(),
        isolation: args.isolation,
        scale: args.scale.scale(),
        ..DeployRequest::new(NOT_KNOWN)
    };
    released(args, request)
}

/// How it is to come to answer.
fn released(args: &DeployArgs, request: DeployRequest) -> DeployRequest {
    let health = args.release.health.clone();
    DeployRequest {
        health: health.or(request.health),
        preview: args.release.preview,
        canary: args.release.canary(),
        approve: args.release.yes,
        ..request
    }
}

/// Deploys the apps of a manifest, one after the other.
async fn manifest(args: &DeployArgs, client: &Client, terminal: &Terminal) -> Result<(), CliError> {
    let flags = of_flags(args);
    let plain = released(args, DeployRequest::new(NOT_KNOWN));
    if flags != plain {
        return Err(ManifestError::Flags.into());
    }
    let loaded = Loaded::read(&args.manifest.manifest)?;
    let tenant = args.tenant.as_ref().unwrap_or(&loaded.manifest.tenant);
    let mut all = Vec::new();
    for (name, app) in loaded.apps(args.app.as_ref())? {
        check_secrets(tenant, name, app, client).await?;
        let routes = app.routes().filter(|_| !args.release.preview);
        if let Some(routes) = routes {
            // Before the deployment answers anybody, which they are set after.
            client.check_routes(tenant, name, &routes).await?;
        }
        if !args.no_build {
            loaded.build(name, app)?;
        }
        let request = app.request(NOT_KNOWN);
        let job = Job {
            tenant,
            app: name,
            component: &loaded.component(app),
            request: released(args, request),
        };
        all.push(deploy(job, client, terminal).await?);
        if app.keep.is_some() {
            let changes = AppChanges {
                keep: app.keep,
                ..AppChanges::default()
            };
            client.change_app(tenant, name, &changes, None).await?;
        }
        if !args.release.preview {
            set_routes(tenant, name, app, client, terminal).await?;
        }
    }
    if terminal.json {
        return terminal.print_json(&all.iter().map(output).collect::<Vec<_>>());
    }
    Ok(())
}

/// Gives an app the routes of its manifest, where it does not have them.
async fn set_routes(
    tenant: &TenantName,
    name: &AppName,
    app: &AppManifest,
    client: &Client,
    terminal: &Terminal,
) -> Result<(), CliError> {
    let Some(wanted) = app.routes() else {
        return Ok(());
    };
    let Tagged { value, tag } = client.routes(tenant, name).await?;
    if value.sorted() == wanted {
        return Ok(());
    }
    let set = client.set_routes(tenant, name, &wanted, tag.as_deref());
    let routes = set.await?.routes;
    if terminal.json {
        return Ok(());
    }
    for route in &routes {
        let line = super::routes::line(route);
        terminal.print(&format!("  {}", terminal.paint(Tone::Dim, &line)))?;
    }
    Ok(())
}

/// Whether an app has the secrets that it needs.
async fn check_secrets(
    tenant: &TenantName,
    name: &AppName,
    app: &AppManifest,
    client: &Client,
) -> Result<(), CliError> {
    let missing = missing_secrets(tenant, name, app, client).await?;
    if missing.is_empty() {
        return Ok(());
    }
    let app = name.clone();
    let names = missing.join(", ");
    Err(ManifestError::Secrets { app, names }.into())
}

/// The secrets that an app needs and does not have.
pub(super) async fn missing_secrets(
    tenant: &TenantName,
    name: &AppName,
    app: &AppManifest,
    client: &Client,
) -> Result<Vec<String>, ClientError> {
    if app.secrets.is_empty() {
        return Ok(Vec::new());
    }
    let has = match client.secrets(tenant, name).await {
        Err(error) if error.is_not_found() => Vec::new(),
        other => other?,
    };
    let missing = |name: &&SecretName| !has.iter().any(|secret| secret.name == **name);
    let missing = app.secrets.iter().filter(missing);
    Ok(missing.map(ToString::to_string).collect())
}

/// Deploys, and says so.
async fn deploy(
    mut job: Job<'_>,
    client: &Client,
    terminal: &Terminal,
) -> Result<Deployment, CliError> {
    // Before anything is sent.
    job.request.check()?;
    let began = Instant::now();
    let upload = upload(job.component, job.tenant, client, terminal).await?;
    let uploaded = began.elapsed();
    job.request.digest = upload.digest;
    let Deployed {
        deployment,
        timings,
    } = {
        let _shown = terminal.spinner("compiling and starting");
        client.deploy(job.tenant, job.app, &job.request).await?
    };
    if terminal.json {
        return Ok(deployment);
    }
    terminal.done(&format!(
        "{} is deployed as number {}{} ({}, {})",
        deployment.app,
        deployment.deployment,
        part(&deployment),
        size(upload.size),
        short(deployment.digest)
    ))?;
    if !deployment.growth.is_empty() {
        let growth = format!("it may have more than before: {}", deployment.growth);
        terminal.print(&format!("  {}", terminal.paint(Tone::Warn, &growth)))?;
    }
    let mut steps = vec![format!("upload {}", duration(uploaded))];
    let timings = timings.iter();
    steps.extend(timings.map(|timing| format!("{} {}", timing.step, duration(timing.time))));
    steps.push(format!("in all {}", duration(began.elapsed())));
    let steps = terminal.paint(Tone::Dim, &steps.join(", "));
    terminal.print(&format!("  {steps}"))?;
    let url = terminal.paint(Tone::Strong, url(&deployment));
    terminal.print(&format!("  {url}"))?;
    Ok(deployment)
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
