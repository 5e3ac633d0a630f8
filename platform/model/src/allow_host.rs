//! One entry of a deployment's list of hosts that its component may call.
//!
//! An entry is `HOST` or `HOST:PORT`; without a port every port is meant. `HOST` is a name or an address; an IPv6
//! address with a port stands in brackets. There are no wildcards. What an entry means for an address that a name
//! resolves to is decided by the data plane; here is only what the text says.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::schema::{self, schema};

/// Longest host name, in characters.
const MAX_HOST: usize = 253;

/// Why a text is not a host that could be allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllowHostError {
    /// There is no host.
    #[error("the host is empty: give HOST or HOST:PORT")]
    Empty,
    /// A whole URL was given.
    #[error("{0:?} is not a host: give HOST or HOST:PORT, without http:// and without a path")]
    Url(String),
    /// A wildcard was given.
    #[error("{0:?} has a wildcard: name each host, there are no wildcards")]
    Wildcard(String),
    /// The port is not a number from 1 to 65535.
    #[error("{0:?} is not a port: give a number from 1 to 65535, or none to allow every port")]
    Port(String),
    /// The host is neither a name nor an address.
    #[error(
        "{0:?} is neither a host name nor an IP address (an IPv6 address with a port stands in brackets)"
    )]
    Host(String),
}

/// The host of an entry: an address is never compared as text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Host {
    /// A name in lower case without a dot at its end.
    Name(String),
    /// An address, written so literally.
    Address(IpAddr),
}

impl Host {
    /// Reads a name or an address; brackets round an IPv6 address may be there.
    fn read(text: &str) -> Option<Self> {
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        if let Some(inside) = bare {
            return inside
                .parse::<Ipv6Addr>()
                .ok()
                .map(|address| Self::Address(address.into()));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Self::Address(address));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        is_host_name(&name).then_some(Self::Name(name))
    }
}

/// Whether a text in lower case is a host name that no resolver could take for an address.
fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    // "127.1" and "0x7f.1" are addresses to some resolvers.
    let last = name.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x");
    name.len() <= MAX_HOST && !numeric && name.split('.').all(label)
}

/// A host that a component may call, and the port, or every port of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AllowHost {
    host: Host,
    port: Option<u16>,
}

impl AllowHost {
    /// The port, or none where every port is allowed.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The address, where the entry is one: only such an entry allows a loopback, link-local or private address.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self.host {
            Host::Address(address) => Some(address),
            Host::Name(_) => None,
        }
    }

    /// The name in lower case, where the entry is not an address.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match &self.host {
            Host::Name(name) => Some(name),
            Host::Address(_) => None,
        }
    }

    /// Whether a call of `host` (a name or an address, as it stands in a URL) at `port` is what this entry allows.
    #[must_use]
    pub fn matches(&self, host: &str, port: u16) -> bool {
        self.port.is_none_or(|own| own == port)
            && Host::read(host).is_some_and(|host| host == self.host)
    }
}

schema!(
    AllowHost,
    "AllowHost",
    schema::free_text(
        "A host that may be called: `HOST` or `HOST:PORT`, a name or an address.",
        MAX_HOST + 6,
        "api.example.com:443",
    )
);

impl FromStr for AllowHost {
    type Err = AllowHostError;

    fn from_str(text: &str) -> Result<Self, AllowHostError> {
        let short = || text.chars().take(80).collect::<String>();
        if text.is_empty() {
            return Err(AllowHostError::Empty);
        }
        if text.contains('/') {
            return Err(AllowHostError::Url(short()));
        }
        if text.contains('*') {
            return Err(AllowHostError::Wildcard(short()));
        }
        let (host, port) = match text.rsplit_once(':') {
            // A bare IPv6 address has colons and no port.
            Some(_) if text.parse::<Ipv6Addr>().is_ok() || text.ends_with(']') => (text, None),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        if host.is_empty() {
            return Err(AllowHostError::Empty);
        }
        let unbracketed = host.contains(':') && !host.starts_with('[');
        let host = Host::read(host).filter(|_| !unbracketed || port.is_none());
        let host = host.ok_or_else(|| AllowHostError::Host(short()))?;
        let port = match port {
            None => None,
            Some(digits) => match digits.parse::<u16>() {
                Ok(port) if port != 0 && digits.bytes().all(|b| b.is_ascii_digit()) => Some(port),
                _ => return Err(AllowHostError::Port(digits.chars().take(80).collect())),
            },
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for AllowHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, self.port) {
            (Host::Name(name), None) => f.write_str(name),
            (Host::Name(name), Some(port)) => write!(f, "{name}:{port}"),
            (Host::Address(address), None) => write!(f, "{address}"),
            (Host::Address(address), Some(port)) => {
                write!(f, "{}", std::net::SocketAddr::new(*address, port))
            }
        }
    }
}

impl From<Ipv4Addr> for AllowHost {
    /// Every port of the address.
    fn from(address: Ipv4Addr) -> Self {
        Self {
            host: Host::Address(address.into()),
            port: None,
        }
    }
}

impl Serialize for AllowHost {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AllowHost {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> AllowHost {
        text.parse().unwrap()
    }

    #[test]
    fn texts_and_back() {
        for (text, canonical) in [
            ("example.com", "example.com"),
            ("API.Example.COM.", "api.example.com"),
            ("example.com:443", "example.com:443"),
            ("localhost:8080", "localhost:8080"),
            ("127.0.0.1", "127.0.0.1"),
            ("10.0.0.7:80", "10.0.0.7:80"),
            ("::1", "::1"),
            ("[::1]", "::1"),
            ("[::1]:80", "[::1]:80"),
            ("my_service.internal", "my_service.internal"),
        ] {
            assert_eq!(parse(text).to_string(), canonical);
            assert_eq!(parse(canonical), parse(text));
        }
    }

    #[test]
    fn refused() {
        let error = |text: &str| text.parse::<AllowHost>().unwrap_err();
        assert_eq!(error(""), AllowHostError::Empty);
        assert_eq!(error(":80"), AllowHostError::Empty);
        assert!(matches!(
            error("http://example.com"),
            AllowHostError::Url(_)
        ));
        assert!(matches!(
            error("*.example.com"),
            AllowHostError::Wildcard(_)
        ));
        for port in ["a:0", "a:65536", "a:", "a:+1", "a:x", "[::1]:"] {
            assert!(matches!(error(port), AllowHostError::Port(_)), "{port}");
        }
        for host in [
            "a b",
            "käse.de",
            "127.1",
            "0x7f.1",
            "256.1.1.1",
            "a..b",
            "-a.b",
            "[::1",
            "user@host",
            "[127.0.0.1]",
        ] {
            assert!(matches!(error(host), AllowHostError::Host(_)), "{host}");
        }
    }

    #[test]
    fn matching() {
        assert!(parse("Example.com").matches("example.COM", 1));
        assert!(parse("example.com").matches("example.com.", 80));
        assert!(!parse("example.com:80").matches("example.com", 81));
        assert!(!parse("example.com").matches("www.example.com", 80));
        assert!(parse("::1").matches("[0:0::1]", 80));
        assert!(!parse("127.0.0.1").matches("localhost", 80));
        assert_eq!(
            parse("127.0.0.1:80").address(),
            Some(IpAddr::from([127, 0, 0, 1]))
        );
        assert_eq!(parse("a.example").name(), Some("a.example"));
    }
}
