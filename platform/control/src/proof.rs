//! Whether a domain is that of who says so: a TXT record in DNS, or an answer over plain HTTP.
//!
//! The node asks a host that somebody else names. It is asked for one path, over the port of HTTP, with a time limit, and
//! redirects are not followed; unless the operator allows it, only addresses of the public internet are asked, and the
//! connection is made to the very address that was looked at.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use platform_data::is_public;
use platform_model::{HostName, Proof};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;

use crate::sandbox::BoxFuture;

/// Time for one of the two ways.
const TIME: Duration = Duration::from_secs(8);

/// Longest answer over HTTP, in bytes: what is right is shorter.
const MAX_ANSWER: usize = 1 << 10;

/// Addresses of a name that are tried.
const MAX_ADDRESSES: usize = 4;

/// What the body of the answer over HTTP is a hash of, besides the token: nobody who only repeats what he is asked for can
/// answer it.
const BODY_LABEL: &[u8] = b"cloister proof of a domain\0";

/// How a domain is proved with a token.
#[must_use]
pub fn proof_of(domain: &HostName, token: &str) -> Proof {
    let hash = Sha256::new().chain_update(BODY_LABEL).chain_update(token);
    let hash = hash.finalize();
    Proof {
        txt_name: format!("_cloister.{domain}"),
        txt_value: token.to_owned(),
        http_url: format!("http://{domain}/.well-known/cloister/{token}"),
        http_body: hash.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

/// A domain is not proved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("by DNS: {dns}; by HTTP: {http}")]
pub struct Unproved {
    /// What became of the TXT record.
    pub dns: String,
    /// What became of the answer over HTTP.
    pub http: String,
}

/// Finds out whether a domain is that of who says so.
pub trait Prover: std::fmt::Debug + Send + Sync + 'static {
    /// Looks for a proof.
    ///
    /// # Errors
    /// That there is none, and what was found instead.
    fn prove<'a>(
        &'a self,
        domain: &'a HostName,
        proof: &'a Proof,
    ) -> BoxFuture<'a, Result<(), Unproved>>;
}

/// How proofs are looked for.
#[derive(Debug, Clone)]
pub struct ProofConfig {
    /// The name server that is asked; none for those of the system.
    pub resolver: Option<SocketAddr>,
    /// Whether addresses that are not public are asked too.
    pub private: bool,
    /// The port of HTTP: 80, where a test does not need another.
    pub port: u16,
}

impl Default for ProofConfig {
    /// The system's name servers, public addresses, port 80.
    fn default() -> Self {
        Self {
            resolver: None,
            private: false,
            port: 80,
        }
    }
}

/// Asks DNS and HTTP.
#[derive(Clone)]
pub struct NetworkProver {
    config: ProofConfig,
}

impl std::fmt::Debug for NetworkProver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("NetworkProver").field(&self.config).finish()
    }
}

impl NetworkProver {
    /// A prover; nothing is asked yet.
    #[must_use]
    pub fn new(config: ProofConfig) -> Self {
        Self { config }
    }

    /// A resolver without a memory: what is in DNS may have been put there a second ago.
    fn resolver(&self) -> Result<TokioResolver, NetError> {
        let provider = TokioRuntimeProvider::default();
        let mut builder = match self.config.resolver {
            None => TokioResolver::builder_tokio()?,
            Some(address) => {
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
                let connections = connections.map(|mut connection| {
                    connection.port = address.port();
                    connection
                });
                let server = NameServerConfig::new(address.ip(), true, connections.into());
                let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
                TokioResolver::builder_with_config(config, provider)
            }
        };
        let options: &mut ResolverOpts = builder.options_mut();
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        builder.build()
    }

    async fn by_dns(&self, proof: &Proof) -> Result<(), String> {
        let name = &proof.txt_name;
        let resolver = self.resolver().map_err(|error| error.to_string())?;
        // With a dot at its end the name is not looked for below the host's own domain.
        let found = resolver.txt_lookup(format!("{name}."));
        let found = found
            .await
            .map_err(|error| match error.is_no_records_found() {
                true => format!("{name} has no TXT record"),
                false => format!("{name} could not be looked up: {error}"),
            })?;
        let is_it = |data: &RData| match data {
            RData::TXT(txt) => txt.txt_data.concat() == proof.txt_value.as_bytes(),
            _ => false,
        };
        match found.answers().iter().any(|record| is_it(&record.data)) {
            true => Ok(()),
            false => Err(format!("no TXT record of {name} is {}", proof.txt_value)),
        }
    }

    async fn by_http(&self, domain: &HostName, proof: &Proof) -> Result<(), String> {
        let resolver = self.resolver().map_err(|error| error.to_string())?;
        let found = resolver.lookup_ip(format!("{domain}."));
        let found = found
            .await
            .map_err(|_| format!("{domain} has no address in DNS"))?;
        let found: Vec<IpAddr> = found.iter().collect();
        let allowed = found.into_iter();
        let allowed = allowed.filter(|address| self.config.private || is_public(*address));
        let mut last = format!("{domain} leads only to addresses that are not public");
        for address in allowed.take(MAX_ADDRESSES) {
            match ask(SocketAddr::new(address, self.config.port), domain, proof).await {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl Prover for NetworkProver {
    fn prove<'a>(
        &'a self,
        domain: &'a HostName,
        proof: &'a Proof,
    ) -> BoxFuture<'a, Result<(), Unproved>> {
        Box::pin(async move {
            let late = |what: &str| format!("{what} took longer than {} s", TIME.as_secs());
            let dns = tokio::time::timeout(TIME, self.by_dns(proof));
            let Err(dns) = dns.await.unwrap_or_else(|_| Err(late("the lookup"))) else {
                return Ok(());
            };
            let http = tokio::time::timeout(TIME, self.by_http(domain, proof));
            match http.await.unwrap_or_else(|_| Err(late("the answer"))) {
                Ok(()) => Ok(()),
                Err(http) => Err(Unproved { dns, http }),
            }
        })
    }
}

/// Asks one address for the answer. What else it answers is not told: it could be a host that only the node can reach.
async fn ask(address: SocketAddr, domain: &HostName, proof: &Proof) -> Result<(), String> {
    let url = &proof.http_url;
    let failed = || format!("{url} does not answer");
    let stream = TcpStream::connect(address).await.map_err(|_| failed())?;
    let connection = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = connection.map_err(|_| failed())?;
    let path = url.strip_prefix(&format!("http://{domain}")).unwrap_or("/");
    let request = Request::get(path)
        .header("host", domain.as_str())
        .header("user-agent", "cloister")
        .body(Empty::<Bytes>::new())
        .map_err(|_| failed())?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(|_| failed())?;
        if answer.status() != StatusCode::OK {
            return Err(format!("{url} does not answer with the status 200"));
        }
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|_| failed())?.to_bytes();
        match body.trim_ascii() == proof.http_body.as_bytes() {
            true => Ok(()),
            false => Err(format!("{url} answers something else than the proof")),
        }
    };
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        // A server that closes behind its answer: what it sent is there.
        _ = connection => answer.await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Serves one answer on an address.
    async fn answers(answer: String) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let read = stream.read(&mut head).await.unwrap();
            let head = String::from_utf8_lossy(&head[..read]).into_owned();
            assert!(
                head.starts_with("GET /.well-known/cloister/abc HTTP/1.1\r\n"),
                "{head}"
            );
            assert!(head.contains("host: shop.example\r\n"), "{head}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        address
    }

    #[tokio::test]
    async fn only_the_right_answer_is_a_proof() {
        let domain: HostName = "shop.example".parse().unwrap();
        let proof = proof_of(&domain, "abc");
        assert_eq!(proof.txt_name, "_cloister.shop.example");
        assert!(!proof.http_body.contains("abc"));
        let of = |status: &str, body: &str| {
            format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        let good = format!("{}\n", proof.http_body);
        for (answer, right) in [
            (of("200 OK", &good), true),
            (of("200 OK", "abc"), false),
            (of("200 OK", &good.repeat(100)), false),
            (of("404 Not Found", &good), false),
            (of("302 Found\r\nlocation: http://127.0.0.1/", &good), false),
            ("nonsense\r\n\r\n".to_owned(), false),
            (String::new(), false),
        ] {
            let address = answers(answer.clone()).await;
            let asked = ask(address, &domain, &proof).await;
            assert_eq!(asked.is_ok(), right, "{answer:?}: {asked:?}");
        }
    }
}
