//! TLS in front of the router: certificates by the name that a client asks for (SNI), HTTP/2 or HTTP/1.1 by ALPN.
//!
//! Certificates are an immutable table that is swapped whole; nothing here obtains, stores or renews one.

mod certificate;
mod table;

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring;
use tokio_rustls::TlsAcceptor;

pub use self::certificate::{Certificate, CertificateError};
pub use self::table::CertificateTable;
use self::table::Resolver;

/// HTTP/2 as ALPN names it.
const H2: &[u8] = b"h2";

/// The certificates as they are now.
pub(crate) type Current = Arc<ArcSwap<CertificateTable>>;

/// What a connection was agreed to be.
pub(crate) struct Agreed {
    /// The name that the client asked for, in lower case.
    pub(crate) name: Option<Box<str>>,
    /// Whether the client wants HTTP/2. `None`: it did not say.
    pub(crate) http2: Option<bool>,
}

/// Accepts TLS with the certificates that `current` has at the time of each connection.
pub(crate) fn acceptor(current: Current) -> Result<TlsAcceptor, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Resolver(current)));
    config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
    config.ticketer = ring::Ticketer::new()?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// What a handshake agreed upon.
pub(crate) fn agreed(connection: &rustls::ServerConnection) -> Agreed {
    Agreed {
        name: connection
            .server_name()
            .map(|name| name.to_ascii_lowercase().into()),
        http2: connection.alpn_protocol().map(|protocol| protocol == H2),
    }
}
