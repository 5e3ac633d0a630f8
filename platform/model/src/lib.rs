//! Names, limits and API types that every part of the platform shares.
//!
//! The admin API, the store, the data plane and the client all speak in these types, so a value that exists is a
//! value that was checked: a [`AppName`] is a DNS label, an [`AllowHost`] is a host that can be compared.
//!
//! # Invariants
//! - No input or output here, no clock, no network: plain data and the rules that make it valid.
//! - Every type that comes from outside is checked by its `FromStr`, its `Deserialize` or its `check`, and the error
//!   says what a valid value looks like.
//! - JSON objects that come from outside refuse unknown fields.
//!
//! # Map
//! | module | what |
//! |---|---|
//! | [`access`] | roles, and what they are over |
//! | [`audit`] | a line of the audit log |
//! | [`name`] | tenant and app names, deployment numbers, the host name that an app answers to |
//! | [`digest`] | the digest of a component |
//! | [`allow_host`] | one entry of a deployment's list of hosts that it may call |
//! | [`mod@env`] | environment variables of a deployment |
//! | [`limits`] | what a request and a VM may use |
//! | [`isolation`] | how much requests of one deployment are kept apart |
//! | [`scale`] | how many VMs a deployment has |
//! | [`quotas`] | what a tenant may have in all |
//! | [`api`] | tenants, apps, deployments as the admin API gives them |
//! | [`settings`] | configuration and secrets of an app |
//! | [`secret`] | a text that is not to be shown |
//! | [`token`] | tokens of the API |
//! | [`status`] | what the node is doing: VMs and workers |
//! | [`log`], [`log_query`] | a line of an app's log, and which lines are wanted |
//! | [`policy`] | what an app or a tenant may take at the router |
//! | [`route`], [`app_routes`] | path prefixes and redirects; the routes of an app |
//! | [`host`], [`domain`] | names of hosts; domains of tenants and their certificates |
//! | [`release`] | how deployments come to answer, and what is remembered of it |
//! | [`traffic`] | how requests are shared among deployments |
//! | [`problem`] | RFC 9457 errors |

#![forbid(unsafe_code)]

pub mod access;
pub mod allow_host;
pub mod api;
pub mod app_routes;
pub mod audit;
pub mod digest;
pub mod domain;
pub mod env;
pub mod host;
pub mod isolation;
pub mod limits;
pub mod log;
pub mod log_query;
pub mod name;
pub mod policy;
pub mod problem;
pub mod quotas;
pub mod release;
pub mod route;
pub mod scale;
mod schema;
pub mod secret;
pub mod settings;
pub mod status;
pub mod token;
pub mod traffic;

pub use access::{Role, Scope};
pub use allow_host::{AllowHost, AllowHostError};
pub use api::{
    App, AppChanges, ComponentUpload, DeployRequest, Deployment, Endpoints, Health, List, Tenant,
    TenantChanges, Usage,
};
pub use app_routes::{AppRoute, AppRoutes, AppRoutesError};
pub use audit::{Audit, Outcome};
pub use digest::{Digest, DigestError};
pub use domain::{
    CertificateInfo, CertificateRequest, CertificateSource, Domain, DomainError, DomainOptions,
    HstsOptions, Issuance, Proof,
};
pub use env::{EnvError, EnvVar};
pub use host::{HostName, HostNameError};
pub use isolation::{Isolation, IsolationError};
pub use limits::{LimitError, Limits};
pub use log::{Access, LogLine, LogStream};
pub use log_query::{LogQuery, LogStreams, LogTime};
pub use name::{AppName, DeploymentId, NameError, TenantName};
pub use policy::{Policy, PolicyError, Rate};
pub use problem::Problem;
pub use quotas::{QuotaChanges, QuotaRangeError, Quotas};
pub use release::{
    AbortRule, Canary, CanaryPlan, Growth, LimitGrowth, PromoteRequest, Release, ReleaseAction,
    ReleaseError, RollbackRequest,
};
pub use route::{PathPrefix, Redirect, RouteError};
pub use scale::{Scale, ScaleError};
pub use secret::Secret;
pub use settings::{
    Config, ConfigChanged, ConfigChanges, KeyRotated, SecretChanged, SecretInfo, SecretName,
    SecretNameError, SecretRequest,
};
pub use status::{Status, VmState, VmStatus, WorkerStatus};
pub use token::{
    CreatedToken, Token, TokenId, TokenIdError, TokenRequest, TokenRequestError, Whoami,
};
pub use traffic::{Share, Sticky, Traffic, TrafficError};
