//! HTTPS as a client speaks it that looks at what certificate it got.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use http::Request;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_cert::der::Decode as _;

use crate::client::{Answer, Connection, empty};

/// An answer over TLS.
#[derive(Debug)]
pub struct Secure {
    /// The answer.
    pub answer: Answer,
    /// Whether it was HTTP/2.
    pub h2: bool,
    /// The serial number of the certificate, in hexadecimal digits.
    pub serial: String,
}

/// `GET`s `https://HOST/PATH` at an address, trusting the certificates in `roots` (PEM). With `h2` HTTP/2 is offered before
/// HTTP/1.1.
///
/// # Errors
/// When the certificate is not good for the host, or there is no whole answer.
pub async fn get(
    address: SocketAddr,
    host: &str,
    path: &str,
    roots: &str,
    h2: bool,
) -> anyhow::Result<Secure> {
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots.as_bytes()) {
        store.add(root?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if h2 {
        config.alpn_protocols.insert(0, b"h2".to_vec());
    }
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(host.to_owned())?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?;
    let (_, session) = stream.get_ref();
    let own = session.peer_certificates().and_then(<[_]>::first);
    let own = x509_cert::Certificate::from_der(own.context("no certificate")?)?;
    let serial = own.tbs_certificate().serial_number().to_string();
    let agreed = session.alpn_protocol() == Some(b"h2");
    let request = Request::get(format!("https://{host}{path}"));
    let (mut connection, request) = match agreed {
        true => (Connection::h2_over(stream).await?, request),
        false => {
            let request = Request::get(path).header("host", host);
            (Connection::h1_over(stream).await?, request)
        }
    };
    let answer = connection.call(request.body(empty())?).await?;
    Ok(Secure {
        answer,
        h2: agreed,
        serial,
    })
}
