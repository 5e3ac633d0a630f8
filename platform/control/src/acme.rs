//! Certificates from a certificate authority by ACME (RFC 8555), with the challenge http-01.
//!
//! One order at a time from its beginning to its end. When a certificate is wanted, where account and certificate are kept,
//! and who answers the challenge is the engine's.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, BodyWrapper, BytesResponse, ChallengeType,
    HttpClient, Identifier, NewAccount, NewOrder, Order, OrderStatus, RetryPolicy,
};
use platform_model::{HostName, Secret};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};

/// Time for one request to the authority.
const REQUEST_TIME: Duration = Duration::from_secs(30);

/// Time that the authority has to look at the answer, and to make the certificate.
const ORDER_TIME: Duration = Duration::from_secs(90);

/// Longest answer of the authority, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// The problem of an account that the authority does not know.
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    /// The extra certificates of authorities.
    #[error("the file of certificates of authorities cannot be used: {0}")]
    Roots(String),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The authority refused, or did not answer.
    #[error("the certificate authority: {0}")]
    Authority(#[from] instant_acme::Error),
    /// The authority offers other challenges only.
    #[error("the certificate authority offers no challenge http-01 for it")]
    NoChallenge,
    /// The authority did not find the answer.
    #[error("the certificate authority could not check the domain: {0}")]
    Invalid(String),
    /// It took too long.
    #[error("the certificate authority took longer than {} s", .0.as_secs())]
    Timeout(Duration),
    /// What is remembered of the account is no account.
    #[error("what is stored of the account with the certificate authority cannot be read")]
    Account,
}

impl AcmeError {
    /// Whether the authority does not know the account: another one is to be made.
    #[must_use]
    pub fn is_no_account(&self) -> bool {
        match self {
            Self::Authority(instant_acme::Error::Api(problem)) => {
                problem.r#type.as_deref() == Some(NO_ACCOUNT)
            }
            _ => false,
        }
    }
}

/// Which authority, and as whom.
#[derive(Debug, Clone)]
pub struct AcmeConfig {
    /// The URL of the authority's directory.
    pub directory: String,
    /// An address of mail that the authority may write to.
    pub contact: Option<String>,
    /// Certificates of further authorities, as PEM, that the server of the directory is trusted by.
    pub roots: Option<Vec<u8>>,
}

/// A certificate that was issued.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The chain as PEM.
    pub chain: String,
    /// The private key as PEM.
    pub key: Secret,
}

/// A client of a certificate authority.
#[derive(Clone)]
pub struct Acme {
    directory: String,
    contact: Option<String>,
    http: Http,
}

impl std::fmt::Debug for Acme {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Acme").field(&self.directory).finish()
    }
}

impl Acme {
    /// A client; nothing is asked yet.
    ///
    /// # Errors
    /// When the certificates of authorities cannot be used.
    pub fn new(config: AcmeConfig) -> Result<Self, AcmeError> {
        Ok(Self {
            http: Http::new(config.roots.as_deref())?,
            directory: config.directory,
            contact: config.contact,
        })
    }

    /// The URL of the authority's directory.
    #[must_use]
    pub fn directory(&self) -> &str {
        &self.directory
    }

    /// A short name of the authority: SHA-256 of the URL, in hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> String {
        let hash = Sha256::digest(&self.directory);
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Makes an account; it, and what it is opened with again.
    ///
    /// # Errors
    /// When the authority refuses.
    pub async fn create_account(&self) -> Result<(Account, Secret), AcmeError> {
        let contact = self.contact.as_ref().map(|mail| format!("mailto:{mail}"));
        let contact: Vec<_> = contact.iter().map(String::as_str).collect();
        let account = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let builder = Account::builder_with_http(Box::new(self.http.clone()));
        let created = builder.create(&account, self.directory.clone(), None);
        let (account, credentials) = created.await?;
        let text = serde_json::to_string(&credentials).map_err(|_| AcmeError::Account)?;
        Ok((account, Secret::new(text)))
    }

    /// Opens an account that was made.
    ///
    /// # Errors
    /// When it cannot be read, or the authority does not answer.
    pub async fn open_account(&self, credentials: &Secret) -> Result<Account, AcmeError> {
        let credentials: AccountCredentials =
            serde_json::from_str(credentials.expose()).map_err(|_| AcmeError::Account)?;
        let builder = Account::builder_with_http(Box::new(self.http.clone()));
        Ok(builder.from_credentials(credentials).await?)
    }
}

/// Obtains a certificate for a domain. `answer` is given the token of the challenge and the answer to it, which must be
/// served from then on.
///
/// # Errors
/// Why there is none.
pub async fn issue(
    account: &Account,
    domain: &HostName,
    answer: impl Fn(&str, &str) + Send + Sync,
) -> Result<Issued, AcmeError> {
    let identifiers = [Identifier::Dns(domain.to_string())];
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let challenge = authorization.challenge(ChallengeType::Http01);
        let mut challenge = challenge.ok_or(AcmeError::NoChallenge)?;
        answer(&challenge.token, challenge.key_authorization().as_str());
        challenge.set_ready().await?;
    }
    let polling = RetryPolicy::new().timeout(ORDER_TIME);
    if order.poll_ready(&polling).await? != OrderStatus::Ready {
        return Err(AcmeError::Invalid(reason(&mut order).await));
    }
    let key = Secret::new(order.finalize().await?);
    let chain = order.poll_certificate(&polling).await?;
    Ok(Issued { chain, key })
}

/// Why an order cannot be fulfilled, as the authority has it.
async fn reason(order: &mut Order) -> String {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else {
            continue;
        };
        let mut errors = state.challenges.iter().filter_map(|c| c.error.as_ref());
        if let Some(error) = errors.next() {
            return error.to_string();
        }
    }
    "it does not say why".to_owned()
}

/// HTTPS to the authority.
#[derive(Clone)]
struct Http(Arc<Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>>);

impl Http {
    fn new(extra: Option<&[u8]>) -> Result<Self, AcmeError> {
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        if let Some(pem) = extra {
            let mut any = false;
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|e| AcmeError::Roots(e.to_string()))?;
                let added = roots.add(certificate);
                added.map_err(|e| AcmeError::Roots(e.to_string()))?;
                any = true;
            }
            if !any {
                return Err(AcmeError::Roots("there is no certificate in it".to_owned()));
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_only()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self(Arc::new(client)))
    }
}

type Answering = Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>>;

impl HttpClient for Http {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Answering {
        let client = Arc::clone(&self.0);
        Box::pin(async move {
            let other = instant_acme::Error::Other;
            let asked = async {
                let answer = client.request(request).await;
                let answer = answer.map_err(|error| other(told(&error).into()))?;
                let (head, body) = answer.into_parts();
                let body = Limited::new(body, MAX_ANSWER).collect().await;
                let body = Full::new(body.map_err(other)?.to_bytes());
                Ok(BytesResponse::from(Response::from_parts(head, body)))
            };
            let late = |_| Err(other("it does not answer".into()));
            tokio::time::timeout(REQUEST_TIME, asked)
                .await
                .unwrap_or_else(late)
        })
    }
}

/// An error with its causes.
fn told(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told = format!("{told}: {error}");
        cause = error.source();
    }
    told
}
