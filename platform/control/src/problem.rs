//! The errors of the admin API: one table of codes, and one place that says which error gets which.
//!
//! Codes are stable: programs compare them. `detail` is for people and may change.

use std::io;

use axum::response::{IntoResponse, Response};
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use platform_data::WarmError;
use platform_model::Problem;

use crate::engine::{
    DeployError, DomainsError, ReleaseError, RoutingError, SecretError, SettingsError, TenantError,
    TokenError, Unexpected,
};
use crate::keyring::KeyringError;
use crate::sandbox::CompileFailure;
use crate::store::StoreError;

/// Declares the codes: each with its status, its stable word and its title.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $status:ident, $code:literal, $title:literal;)*) => {
        /// A kind of problem.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Status, stable word and title.
            #[must_use]
            pub fn entry(self) -> (StatusCode, &'static str, &'static str) {
                match self {
                    $(Self::$name => (StatusCode::$status, $code, $title),)*
                }
            }
        }
    };
}

codes! {
    /// No token.
    TokenMissing = UNAUTHORIZED, "token-missing", "No token";
    /// Another token.
    TokenWrong = UNAUTHORIZED, "token-wrong", "Wrong token";
    /// A token that is no longer good.
    TokenExpired = UNAUTHORIZED, "token-expired", "Token expired";
    /// Too many wrong tokens.
    TooManyFailures = TOO_MANY_REQUESTS, "too-many-failures", "Too many wrong tokens";
    /// Too many requests.
    RateLimited = TOO_MANY_REQUESTS, "rate-limited", "Too many requests";
    /// The token is of a tenant, and this is the node's.
    ScopeInsufficient = FORBIDDEN, "scope-insufficient", "Token of too little";
    /// The token's role is too low.
    RoleInsufficient = FORBIDDEN, "role-insufficient", "Role too low";
    /// No such path.
    PathUnknown = NOT_FOUND, "path-unknown", "No such path";
    /// The path is there, the method is not.
    MethodNotAllowed = METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed";
    /// A name in the path is none.
    NameInvalid = BAD_REQUEST, "name-invalid", "Invalid name";
    /// The query is not understood.
    QueryInvalid = BAD_REQUEST, "query-invalid", "Invalid query";
    /// The body is not the JSON that is expected.
    JsonInvalid = BAD_REQUEST, "json-invalid", "Invalid JSON";
    /// The body is of another type.
    TypeUnsupported = UNSUPPORTED_MEDIA_TYPE, "type-unsupported", "Unsupported content type";
    /// The body ended early.
    BodyIncomplete = BAD_REQUEST, "body-incomplete", "Incomplete body";
    /// The body is too long.
    BodyTooLarge = PAYLOAD_TOO_LARGE, "body-too-large", "Body too large";
    /// `If-Match` is not understood.
    EtagInvalid = BAD_REQUEST, "etag-invalid", "Invalid entity tag";
    /// It is not in the state that `If-Match` names.
    PreconditionFailed = PRECONDITION_FAILED, "precondition-failed", "Changed meanwhile";
    /// `Idempotency-Key` is not understood.
    IdempotencyKeyInvalid = BAD_REQUEST, "idempotency-key-invalid", "Invalid idempotency key";
    /// The key came with another request before.
    IdempotencyMismatch = UNPROCESSABLE_ENTITY, "idempotency-mismatch", "Idempotency key of another request";
    /// A request with the key is on its way.
    IdempotencyRunning = CONFLICT, "idempotency-running", "Request being carried out";
    /// A request with the key was carried out, and its answer is not known.
    IdempotencyAnswerLost = CONFLICT, "idempotency-answer-lost", "Answer lost";
    /// A value of a deploy is not possible.
    DeployInvalid = UNPROCESSABLE_ENTITY, "deploy-invalid", "Invalid deploy request";
    /// No such tenant.
    TenantUnknown = NOT_FOUND, "tenant-not-found", "No such tenant";
    /// The tenant has apps.
    TenantNotEmpty = CONFLICT, "tenant-not-empty", "Tenant not empty";
    /// A quota is not possible.
    QuotasInvalid = UNPROCESSABLE_ENTITY, "quotas-invalid", "Invalid quotas";
    /// The token that is wanted is not possible.
    TokenInvalid = UNPROCESSABLE_ENTITY, "token-invalid", "Invalid token request";
    /// No such token.
    TokenUnknown = NOT_FOUND, "token-not-found", "No such token";
    /// No such app.
    AppUnknown = NOT_FOUND, "app-not-found", "No such app";
    /// Configuration or a secret is not possible.
    SettingsInvalid = UNPROCESSABLE_ENTITY, "settings-invalid", "Invalid settings";
    /// No such secret.
    SecretUnknown = NOT_FOUND, "secret-not-found", "No such secret";
    /// A secret does not open.
    SecretUnreadable = INTERNAL_SERVER_ERROR, "secret-unreadable", "Secret cannot be opened";
    /// The node's key is not the node's to change.
    KeyForeign = CONFLICT, "key-from-environment", "Key comes from the environment";
    /// Routes are not possible.
    RoutesInvalid = UNPROCESSABLE_ENTITY, "routes-invalid", "Invalid routes";
    /// Another app of the tenant has the route.
    RouteTaken = CONFLICT, "route-taken", "Route of another app";
    /// The tenant has no such domain.
    DomainUnknown = NOT_FOUND, "domain-not-found", "No such domain";
    /// What a domain is to be is not possible.
    DomainInvalid = UNPROCESSABLE_ENTITY, "domain-invalid", "Invalid domain";
    /// The domain is not proved to be the tenant's.
    DomainUnproved = CONFLICT, "domain-not-proved", "Domain not proved";
    /// There is no proof that the domain is the tenant's.
    DomainProofFailed = UNPROCESSABLE_ENTITY, "domain-proof-failed", "No proof of the domain";
    /// The domain is proved to be another tenant's.
    DomainTaken = CONFLICT, "domain-taken", "Domain in use";
    /// An app has a route on the domain.
    DomainInUse = CONFLICT, "domain-has-routes", "Domain has routes";
    /// A certificate cannot be served.
    CertificateInvalid = UNPROCESSABLE_ENTITY, "certificate-invalid", "Invalid certificate";
    /// The domain has no certificate.
    CertificateUnknown = NOT_FOUND, "certificate-not-found", "No certificate";
    /// The certificate is not the node's to obtain.
    CertificateNotIssued = CONFLICT, "certificate-not-issued", "Certificate not obtained by the node";
    /// The deployment wants more than the one that answers.
    ApprovalNeeded = CONFLICT, "approval-needed", "Approval needed";
    /// It did not answer its health check well.
    HealthCheckFailed = UNPROCESSABLE_ENTITY, "health-check-failed", "Health check failed";
    /// There is no deployment that it could be beside, or go back to.
    NothingBefore = CONFLICT, "nothing-before", "No deployment before";
    /// The deployment answers requests.
    DeploymentAnswers = CONFLICT, "deployment-answers", "Deployment answers requests";
    /// The shares are not possible.
    TrafficInvalid = UNPROCESSABLE_ENTITY, "traffic-invalid", "Invalid traffic";
    /// What is to be changed of an app is not possible.
    AppInvalid = UNPROCESSABLE_ENTITY, "app-invalid", "Invalid app";
    /// No canary is under way.
    CanaryUnknown = NOT_FOUND, "canary-not-found", "No canary";
    /// No such deployment.
    DeploymentUnknown = NOT_FOUND, "deployment-not-found", "No such deployment";
    /// The tenant has no such component.
    ComponentUnknown = NOT_FOUND, "component-not-found", "No such component";
    /// Not a component that can be served. The compiler has a more exact word for each case, such as
    /// `component-empty`, which takes this one's place.
    ComponentRejected = UNPROCESSABLE_ENTITY, "component-rejected", "Component rejected";
    /// It takes too much to compile.
    CompileLimit = UNPROCESSABLE_ENTITY, "compile-limit", "Component too large to compile";
    /// The compiler failed.
    CompileFailed = INTERNAL_SERVER_ERROR, "compile-failed", "Compiler failed";
    /// It compiles and does not start.
    StartRefused = UNPROCESSABLE_ENTITY, "start-refused", "Component does not start";
    /// It was not ready in time.
    StartTimeout = GATEWAY_TIMEOUT, "start-timeout", "Component not ready in time";
    /// The node could not make a VM.
    VmUnavailable = SERVICE_UNAVAILABLE, "vm-unavailable", "No VM available";
    /// The tenant would have more than it may.
    QuotaExceeded = FORBIDDEN, "quota-exceeded", "Quota exceeded";
    /// Somebody else changed the app.
    DeployConflict = CONFLICT, "deploy-conflict", "Deploy conflict";
    /// Somebody else changed the same thing at the same time.
    Conflict = CONFLICT, "conflict", "Conflict";
    /// As many read logs as can.
    LogReaders = TOO_MANY_REQUESTS, "too-many-log-readers", "Too many log readers";
    /// No room on the disk.
    DiskFull = INSUFFICIENT_STORAGE, "disk-full", "Disk full";
    /// The store failed.
    StoreFailed = INTERNAL_SERVER_ERROR, "store-failed", "Store failed";
    /// The node has a bug.
    Internal = INTERNAL_SERVER_ERROR, "internal", "Bug of the node";
    /// The node is going down.
    Stopping = SERVICE_UNAVAILABLE, "stopping", "Node is stopping";
}

/// An error of the admin API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// Its kind.
    pub code: Code,
    /// Its stable word: that of its kind, or a more exact one.
    pub word: &'static str,
    /// What happened and what to do.
    pub detail: String,
    /// Seconds after which it may be tried again, where that helps.
    pub wait: Option<u64>,
}

impl ApiError {
    /// An error of a kind.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            word: code.entry().1,
            detail: detail.into(),
            wait: None,
        }
    }

    /// The same error, which tells when to try again.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.wait = Some(seconds);
        self
    }

    /// The error as a client sees it.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let (status, _, title) = self.code.entry();
        Problem::new(status.as_u16(), self.word, title, self.detail.clone())
    }
}

impl IntoResponse for ApiError {
    /// The status, and the problem as an extension: the request's id is added where it is known, and the body made
    /// there.
    fn into_response(self) -> Response {
        let (status, _, _) = self.code.entry();
        let mut response = status.into_response();
        response.extensions_mut().insert(self.problem());
        let headers = response.headers_mut();
        if let Some(wait) = self.wait {
            headers.insert(RETRY_AFTER, wait.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<DeployError> for ApiError {
    fn from(error: DeployError) -> Self {
        let detail = error.to_string();
        let code = match error {
            DeployError::Request(_) | DeployError::Env(_) | DeployError::NameOfSecret(_) => {
                Code::DeployInvalid
            }
            DeployError::Secret(error) => return error.into(),
            DeployError::ComponentUnknown { .. } => Code::ComponentUnknown,
            DeployError::Compile(CompileFailure::Rejected { code: word, .. }) => {
                let code = Code::ComponentRejected;
                return Self {
                    word,
                    ..Self::new(code, detail)
                };
            }
            DeployError::Compile(CompileFailure::Limit(_)) => Code::CompileLimit,
            DeployError::Compile(CompileFailure::DiskFull(_)) => Code::DiskFull,
            DeployError::Compile(CompileFailure::Failed(_)) => Code::CompileFailed,
            DeployError::Warm(WarmError::Refused(_)) => Code::StartRefused,
            DeployError::Warm(WarmError::Timeout(_)) => Code::StartTimeout,
            DeployError::Warm(WarmError::Unavailable(_)) => Code::VmUnavailable,
            DeployError::Warm(WarmError::Stopped) | DeployError::Stopping => Code::Stopping,
            DeployError::Growth(..) => Code::ApprovalNeeded,
            DeployError::Unhealthy(..) | DeployError::Sick(..) => Code::HealthCheckFailed,
            DeployError::NoneYet => Code::NothingBefore,
            DeployError::Quota(_) => Code::QuotaExceeded,
            DeployError::NumberTaken(_) => Code::DeployConflict,
            DeployError::Tenant(error) => return error.into(),
            DeployError::Store(error) => return error.into(),
            DeployError::Io(error) => return error.into(),
            DeployError::RecordMissing(_) => Code::StoreFailed,
        };
        Self::new(code, detail)
    }
}

impl From<TenantError> for ApiError {
    fn from(error: TenantError) -> Self {
        let code = match error {
            TenantError::Unknown(_) => Code::TenantUnknown,
            TenantError::NotEmpty(_) => Code::TenantNotEmpty,
            TenantError::Quotas(_) | TenantError::Policy(_) => Code::QuotasInvalid,
            TenantError::Unexpected(error) => return error.into(),
            TenantError::Store(error) => return error.into(),
        };
        Self::new(code, error.to_string())
    }
}

impl From<ReleaseError> for ApiError {
    fn from(error: ReleaseError) -> Self {
        let code = match error {
            ReleaseError::AppUnknown(..) => Code::AppUnknown,
            ReleaseError::DeploymentUnknown(..) => Code::DeploymentUnknown,
            ReleaseError::NoneBefore => Code::NothingBefore,
            ReleaseError::Answers(_) => Code::DeploymentAnswers,
            ReleaseError::NoCanary => Code::CanaryUnknown,
            ReleaseError::Traffic(_) => Code::TrafficInvalid,
            ReleaseError::Changes(_) => Code::AppInvalid,
            ReleaseError::Quota(_) => Code::QuotaExceeded,
            ReleaseError::Unexpected(error) => return error.into(),
            ReleaseError::Deploy(error) => return error.into(),
            ReleaseError::Store(error) => return error.into(),
        };
        Self::new(code, error.to_string())
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        let code = match error {
            TokenError::Request(_) => Code::TokenInvalid,
            TokenError::Tenant(error) => return error.into(),
            TokenError::Unknown(_) => Code::TokenUnknown,
            TokenError::Quota(_) => Code::QuotaExceeded,
            TokenError::Random(_) | TokenError::Id(_) => Code::Internal,
            TokenError::Store(error) => return error.into(),
        };
        Self::new(code, error.to_string())
    }
}

impl From<SettingsError> for ApiError {
    fn from(error: SettingsError) -> Self {
        let code = match error {
            SettingsError::AppUnknown(..) => Code::AppUnknown,
            SettingsError::SecretUnknown(_) => Code::SecretUnknown,
            SettingsError::NameOfSecret(_)
            | SettingsError::NameOfConfig(_)
            | SettingsError::TooMany
            | SettingsError::Env(_) => Code::SettingsInvalid,
            SettingsError::Quota(_) => Code::QuotaExceeded,
            SettingsError::Unexpected(error) => return error.into(),
            SettingsError::Tenant(error) => return error.into(),
            SettingsError::Secret(error) => return error.into(),
            SettingsError::Deploy(error) => return error.into(),
            SettingsError::Store(error) => return error.into(),
        };
        Self::new(code, error.to_string())
    }
}

impl From<RoutingError> for ApiError {
    fn from(error: RoutingError) -> Self {
        let code = match error {
            RoutingError::AppUnknown(..) => Code::AppUnknown,
            RoutingError::Routes(_) | RoutingError::HostForeign { .. } => Code::RoutesInvalid,
            RoutingError::HostUnproved(_) => Code::DomainUnproved,
            RoutingError::Taken(..) => Code::RouteTaken,
            RoutingError::Unexpected(error) => return error.into(),
            RoutingError::Store(error) => return error.into(),
        };
        Self::new(code, error.to_string())
    }
}

impl From<DomainsError> for ApiError {
    fn from(error: DomainsError) -> Self {
        let code = match error {
            DomainsError::Unknown(_) => Code::DomainUnknown,
            DomainsError::Domain(_) | DomainsError::TooMany => Code::DomainInvalid,
            DomainsError::ProofFailed(..) => Code::DomainProofFailed,
            DomainsError::Unproved(_) => Code::DomainUnproved,
            DomainsError::Taken(_) => Code::DomainTaken,
            DomainsError::InUse(..) => Code::DomainInUse,
            DomainsError::Certificate(_) => Code::CertificateInvalid,
            DomainsError::NoCertificate(_) => Code::CertificateUnknown,
            DomainsError::NotIssued(..) => Code::CertificateNotIssued,
            DomainsError::Random(_) => Code::Internal,
            DomainsError::Unexpected(error) => return error.into(),
            DomainsError::Tenant(error) => return error.into(),
            DomainsError::Store(error) => return error.into(),
        };
        Self::new(code, error.to_string())
    }
}

impl From<SecretError> for ApiError {
    fn from(error: SecretError) -> Self {
        let code = match error {
            SecretError::ZeroByte(_) => Code::SettingsInvalid,
            SecretError::Value { .. }
            | SecretError::Gone(..)
            | SecretError::Answer(_)
            | SecretError::Certificate(..)
            | SecretError::Account(_) => Code::SecretUnreadable,
            SecretError::Keyring(KeyringError::Foreign) => Code::KeyForeign,
            SecretError::Keyring(_) => Code::StoreFailed,
            SecretError::Store(error) => return error.into(),
        };
        Self::new(code, error.to_string())
    }
}

impl From<Unexpected> for ApiError {
    fn from(error: Unexpected) -> Self {
        Self::new(Code::PreconditionFailed, error.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let code = match error {
            StoreError::DiskFull { .. } => Code::DiskFull,
            StoreError::Conflict { .. } => Code::Conflict,
            StoreError::Damaged { .. } | StoreError::Failed { .. } | StoreError::TooLarge(_) => {
                Code::StoreFailed
            }
        };
        Self::new(code, error.to_string())
    }
}

impl From<io::Error> for ApiError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::new(
                Code::DiskFull,
                "the disk of the data folder is full: make room and try again",
            ),
            _ => Self::new(
                Code::StoreFailed,
                format!("a file of the data folder: {error}"),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_code_is_one_word_of_its_own() {
        let words: HashSet<_> = Code::ALL.iter().map(|code| code.entry().1).collect();
        assert_eq!(words.len(), Code::ALL.len());
        let word = |word: &&str| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        assert!(words.iter().all(word));
    }

    #[test]
    fn every_code_is_in_the_documents() {
        let page = include_str!("../../../docs/errors.md");
        let (_, page) = page.split_once("<!-- api: begin -->").unwrap();
        let (table, _) = page.split_once("<!-- api: end -->").unwrap();
        let mut rows = table.lines().filter(|line| line.starts_with("| `"));
        for code in Code::ALL {
            let (status, word, title) = code.entry();
            let row = rows.next().unwrap_or_default();
            let begin = format!("| `{word}` | {} | {title} | ", status.as_u16());
            assert!(row.starts_with(&begin), "docs/errors.md: {row} for {begin}");
            assert!(row.len() > begin.len() + 3, "{word}: what is to be done?");
        }
        assert_eq!(rows.next(), None, "docs/errors.md");
    }

    #[test]
    fn a_full_disk_is_told_apart() {
        let error = ApiError::from(io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(error.code, Code::DiskFull);
        assert_eq!(error.problem().status, 507);
    }
}
