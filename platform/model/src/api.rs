//! Tenants, apps and deployments, as the admin API takes and gives them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::{
    AllowHost, AppName, CanaryPlan, DeploymentId, Digest, EnvError, Growth, Isolation, LimitError,
    Limits, Policy, PolicyError, QuotaChanges, Quotas, ReleaseError, Scale, ScaleError, SecretName,
    TenantName, Traffic,
};

/// Most entries that a deployment's list of allowed hosts may have.
pub const MAX_ALLOW_HOSTS: usize = 256;

/// A list, as every listing answers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct List<T> {
    /// What was asked for, in a stable order.
    pub items: Vec<T>,
    /// What to give as `after` to get what comes next; left out where nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `GET /healthz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`.
    pub status: String,
    /// Version of the node.
    pub version: String,
}

/// Where a node listens: the content of `endpoints.json` in its data folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// The address that serves the apps, `IP:PORT`.
    pub listen: std::net::SocketAddr,
    /// The address of the admin API, `IP:PORT`.
    pub admin: std::net::SocketAddr,
    /// The address that serves just `/metrics`, `IP:PORT`, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<std::net::SocketAddr>,
    /// The address that serves the apps over TLS, `IP:PORT`, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_tls: Option<std::net::SocketAddr>,
}

/// A tenant: whose apps share a worker process and nothing else with anybody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tenant {
    /// Its name.
    pub tenant: TenantName,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// How many apps it has.
    pub apps: u64,
    /// What it may have.
    pub quotas: Quotas,
    /// What all its apps together may take at the router.
    pub policy: Policy,
    /// What it has.
    pub usage: Usage,
}

/// What a tenant has of what its quotas count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// Apps.
    pub apps: u64,
    /// Deployments of all its apps together.
    pub deployments: u64,
    /// Tokens of the tenant and of its apps.
    pub tokens: u64,
    /// Disk for components and for what is compiled of them, in bytes.
    pub disk_bytes: u64,
}

/// What is to be changed of a tenant: what is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TenantChanges {
    /// Its quotas.
    pub quotas: QuotaChanges,
    /// What all its apps together may take at the router: replaced as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
}

/// An app: a name that deployments follow each other under.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct App {
    /// The tenant that it belongs to.
    pub tenant: TenantName,
    /// Its name.
    pub app: AppName,
    /// The deployment that answers its requests.
    pub deployment: DeploymentId,
    /// The component of that deployment.
    pub digest: Digest,
    /// The URL that a client on the node's host uses.
    pub url: String,
    /// When its first deployment was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When the deployment that answers was made.
    #[serde(with = "time::serde::rfc3339")]
    pub deployed_at: OffsetDateTime,
    /// How many deployments it has.
    pub deployments: u64,
    /// Who answers how much.
    pub traffic: Traffic,
    /// What it may take at the router, over all its deployments.
    pub policy: Policy,
    /// How many of its last deployments are kept, besides those that answer.
    pub keep: u32,
}

/// Deployments of an app that are kept where nothing else is said.
pub const DEFAULT_KEEP: u32 = 20;

/// Why an app is not changed so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppChangesError {
    /// The policy.
    #[error("policy: {0}")]
    Policy(#[from] PolicyError),
    /// How many deployments are kept.
    #[error("keep is {0}: it may be from 1 to 1000")]
    Keep(u32),
}

/// What is to be changed of an app: what is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AppChanges {
    /// What it may take at the router: replaced as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// How many of its last deployments are kept, besides those that answer. Default 20; 1 to 1,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000)]
    pub keep: Option<u32>,
}

impl AppChanges {
    /// Checks what the types alone do not.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), AppChangesError> {
        if let Some(policy) = &self.policy {
            policy.check()?;
        }
        match self.keep {
            Some(keep) if !(1..=1000).contains(&keep) => Err(AppChangesError::Keep(keep)),
            _ => Ok(()),
        }
    }
}

/// A deployment: a component with all that it runs with. It never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Deployment {
    /// The tenant that it belongs to.
    pub tenant: TenantName,
    /// The app that it is of.
    pub app: AppName,
    /// Its number within the app.
    pub deployment: DeploymentId,
    /// Its component.
    pub digest: Digest,
    /// The URL that a client on the node's host uses to reach the app.
    pub url: String,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Whether it is the one that answers requests.
    pub active: bool,
    /// Names of its environment variables, those of the app's configuration among them. The values are not given back: they
    /// may be secrets.
    pub env: Vec<String>,
    /// Versions of its secrets, by name.
    #[serde(default)]
    pub secrets: BTreeMap<SecretName, u64>,
    /// Hosts that it may call.
    pub allow_hosts: Vec<AllowHost>,
    /// Its limits.
    pub limits: Limits,
    /// How much its requests are kept apart.
    #[serde(default)]
    pub isolation: Isolation,
    /// How many VMs it has.
    #[serde(default)]
    pub scale: Scale,
    /// How many of 100 requests of the app it answers.
    #[serde(default)]
    pub weight: u8,
    /// The URL that it alone answers at, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview_url: Option<String>,
    /// The path that it was asked for before it answered anybody, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// Interfaces that its component imports, without versions.
    #[serde(default)]
    pub imports: Vec<String>,
    /// What it was approved to have more than the deployment that answered when it was made.
    #[serde(default, skip_serializing_if = "Growth::is_empty")]
    pub growth: Growth,
}

/// What an upload answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ComponentUpload {
    /// What the component is called from now on.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// Why the content of a [`DeployRequest`] is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeployRequestError {
    /// The environment.
    #[error("env: {0}")]
    Env(EnvError),
    /// A limit.
    #[error("limits: {0}")]
    Limits(LimitError),
    /// The number of VMs.
    #[error("{0}")]
    Scale(ScaleError),
    /// Too many hosts.
    #[error("allow_hosts has {0} entries, at most {MAX_ALLOW_HOSTS} are possible")]
    AllowHosts(usize),
    /// How it is to come to answer.
    #[error(transparent)]
    Release(#[from] ReleaseError),
}

/// What is to be deployed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"digest": "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"})))]
pub struct DeployRequest {
    /// A component that this tenant has uploaded.
    pub digest: Digest,
    /// Environment variables of this deployment, besides those of the app's configuration, and before them where both have one
    /// of a name. None by default.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Hosts that the component may call. None by default.
    #[serde(default)]
    pub allow_hosts: Vec<AllowHost>,
    /// Limits. The defaults where they are left out.
    #[serde(default)]
    pub limits: Limits,
    /// How much requests are kept apart: `instance`, `vm`, `vm:N`, `reuse`, `reuse:N`, `reuse:N,Ts`. `instance` by default.
    #[serde(default)]
    pub isolation: Isolation,
    /// How many VMs there are. The defaults where it is left out.
    #[serde(default)]
    pub scale: Scale,
    /// A path that has to answer with a status from 200 to 399 before it answers anybody. Not asked by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// It answers under its own name only, `N--APP…`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub preview: bool,
    /// It gets a growing part of the requests, as long as it does well. Everything at once by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryPlan>,
    /// It may have more than the deployment that answers: hosts, interfaces, limits. Tokens of the role admin need not say so.
    #[serde(default, skip_serializing_if = "is_false")]
    pub approve: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl DeployRequest {
    /// A request with no variables, no allowed hosts and the default limits.
    #[must_use]
    pub fn new(digest: Digest) -> Self {
        Self {
            digest,
            env: BTreeMap::new(),
            allow_hosts: Vec::new(),
            limits: Limits::default(),
            isolation: Isolation::default(),
            scale: Scale::default(),
            health: None,
            preview: false,
            canary: None,
            approve: false,
        }
    }

    /// Checks what the types alone do not.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), DeployRequestError> {
        if let Some(path) = &self.health {
            crate::release::check_health(path)?;
        }
        if let Some(plan) = &self.canary {
            plan.check()?;
            if self.preview {
                return Err(ReleaseError::PreviewAndCanary.into());
            }
        }
        crate::env::check(&self.env).map_err(DeployRequestError::Env)?;
        self.limits.check().map_err(DeployRequestError::Limits)?;
        self.scale.check().map_err(DeployRequestError::Scale)?;
        match self.allow_hosts.len() {
            0..=MAX_ALLOW_HOSTS => Ok(()),
            more => Err(DeployRequestError::AllowHosts(more)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deploy_request_needs_a_digest_only() {
        let digest = Digest::from_sha256([1; 32]);
        let text = format!(r#"{{"digest":"{digest}"}}"#);
        assert_eq!(
            serde_json::from_str::<DeployRequest>(&text).unwrap(),
            DeployRequest::new(digest)
        );
        let text = format!(r#"{{"digest":"{digest}","colour":1}}"#);
        let error = serde_json::from_str::<DeployRequest>(&text)
            .unwrap_err()
            .to_string();
        assert!(error.contains("colour"), "{error}");
    }

    #[test]
    fn a_deploy_request_is_checked() {
        let mut request = DeployRequest::new(Digest::from_sha256([1; 32]));
        assert_eq!(request.check(), Ok(()));
        request.limits.cpu_ms = 0;
        assert!(matches!(
            request.check(),
            Err(DeployRequestError::Limits(_))
        ));
        request.env.insert("a=b".to_owned(), String::new());
        assert!(matches!(request.check(), Err(DeployRequestError::Env(_))));
    }
}
