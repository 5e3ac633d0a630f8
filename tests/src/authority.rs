//! A certificate authority that speaks ACME: Pebble, the one that Let's Encrypt tests clients with (Debian's package `pebble`).

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use serde_json::json;
use tempfile::TempDir;

use crate::tls;
use crate::wait::until;

/// How long it has to come up.
const START: Duration = Duration::from_secs(20);

/// A running authority; it ends when this is dropped.
#[derive(Debug)]
pub struct Authority {
    child: Child,
    listen: SocketAddr,
    management: SocketAddr,
    folder: TempDir,
    /// The certificate of its server, PEM.
    own: String,
}

impl Authority {
    /// Starts one that looks names up with `dns`, asks for answers at `http_port`, and makes certificates that are valid for
    /// so many seconds.
    ///
    /// # Panics
    /// When it does not come up: it may not be installed.
    pub async fn start(dns: SocketAddr, http_port: u16, validity_seconds: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let names = vec![own_address().to_string()];
        let own = CertificateParams::new(names).unwrap();
        let own = own.self_signed(&key).unwrap().pem();
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("cert.pem"), &own).unwrap();
        std::fs::write(file("key.pem"), key.serialize_pem()).unwrap();
        let [listen, management] = [14_000, 15_000].map(|port| (own_address(), port).into());
        let config = json!({"pebble": {
            "listenAddress": listen, "managementListenAddress": management, "certificate": file("cert.pem"),
            "privateKey": file("key.pem"), "httpPort": http_port, "tlsPort": 1, "ocspResponderURL": "",
            "externalAccountBindingRequired": false, "certificateValidityPeriod": validity_seconds,
        }});
        std::fs::write(file("config.json"), config.to_string()).unwrap();
        let log = std::fs::File::create(file("log")).unwrap();
        let child = Command::new("pebble")
            .arg("-config")
            .arg(file("config.json"))
            .args(["-dnsserver", &dns.to_string()])
            .env("PEBBLE_VA_NOSLEEP", "1")
            // Each order proves the domain again.
            .env("PEBBLE_AUTHZREUSE", "0")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| {
                panic!("pebble cannot be started, `apt install pebble` has it: {e}")
            });
        let authority = Self {
            child,
            listen,
            management,
            folder,
            own,
        };
        until(START, "pebble", || async { authority.try_roots().await }).await;
        authority
    }

    /// The URL of its directory.
    #[must_use]
    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.listen)
    }

    /// A file with the certificate that its server is trusted by.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    /// The roots of the certificates that it makes, PEM.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn roots(&self) -> String {
        self.try_roots().await.unwrap()
    }

    async fn try_roots(&self) -> Option<String> {
        let host = self.management.ip().to_string();
        let roots = tls::get(self.management, &host, "/roots/0", &self.own, false);
        let roots = roots.await.ok()?.answer;
        (roots.status == 200).then(|| roots.text())
    }

    /// What it wrote.
    ///
    /// # Panics
    /// When that cannot be read.
    #[must_use]
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address of the loopback that no other process of these tests uses: ports there can be chosen ahead, where one server has to
/// know that of another before it starts.
#[must_use]
pub fn own_address() -> Ipv4Addr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 | (high & 63), middle, low)
}
