//! Which certificate a client gets: by the name that it asks for.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::{Certificate, Current};

/// Host names and their certificates. Swapped whole.
#[derive(Debug, Clone, Default)]
pub struct CertificateTable {
    hosts: HashMap<String, Arc<Certificate>>,
}

impl CertificateTable {
    /// A table without certificates: every handshake fails.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves a certificate to clients that ask for `host`, in any case. The last one for a host counts.
    pub fn insert(&mut self, host: &str, certificate: Arc<Certificate>) {
        self.hosts.insert(host.to_ascii_lowercase(), certificate);
    }

    /// The certificate of a host in lower case.
    pub(crate) fn find(&self, host: &str) -> Option<&Arc<Certificate>> {
        self.hosts.get(host.strip_suffix('.').unwrap_or(host))
    }
}

/// Answers rustls.
#[derive(Debug)]
pub(super) struct Resolver(pub(super) Current);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name()?.to_ascii_lowercase();
        let table = self.0.load();
        table.find(&name).map(|found| Arc::clone(&found.key))
    }
}
