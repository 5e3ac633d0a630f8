//! Names of hosts that requests come for: those of apps, and domains of tenants.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::schema::{self, schema};

/// Longest name, in characters: a name below it that proves it still fits into DNS.
pub const MAX_HOST: usize = 240;

/// The rule of a name as a regular expression.
const PATTERN: &str = "^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?$";

/// The domain of the hosts that every app has of itself.
const LOCAL: &str = ".localhost";

/// The text is no name of a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not the name of a host: labels of a-z, 0-9 and '-' with dots between them, such as shop.example.com (others as punycode, no address, no port)"
)]
pub struct HostNameError(String);

/// The name of a host in lower case: at least two labels, the last of them no number.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Arc<str>);

impl HostName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is below `localhost`: such a name is an app's own, or nobody's.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.0.ends_with(LOCAL)
    }
}

impl FromStr for HostName {
    type Err = HostNameError;

    /// Reads a name in any case, with a dot at its end or without one.
    fn from_str(text: &str) -> Result<Self, HostNameError> {
        let wrong = || HostNameError(text.chars().take(80).collect());
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let label = |label: &str| {
            let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(fits)
        };
        let (_, last) = name.rsplit_once('.').ok_or_else(wrong)?;
        // A last label that begins with a digit could be part of an address.
        let named = last.starts_with(|c: char| c.is_ascii_lowercase());
        if name.len() <= MAX_HOST && named && name.split('.').all(label) {
            Ok(Self(name.into()))
        } else {
            Err(wrong())
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for HostName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for HostName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

schema!(
    HostName,
    "HostName",
    schema::text(
        "The name of a host: labels with dots between them, in lower case.",
        PATTERN,
        "shop.example.com",
    )
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_hosts() {
        for (text, name) in [
            ("Shop.Example.com", "shop.example.com"),
            ("example.com.", "example.com"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("1.example", "1.example"),
        ] {
            let read: HostName = text.parse().unwrap();
            assert_eq!((read.as_str(), read.is_local()), (name, false));
        }
        assert!("shop.localhost".parse::<HostName>().unwrap().is_local());
        assert!(
            !"notlocalhost.example"
                .parse::<HostName>()
                .unwrap()
                .is_local()
        );
    }

    #[test]
    fn what_is_no_name_of_a_host() {
        let long = format!("{}example", "a.".repeat(120));
        for text in [
            "",
            ".",
            "example",
            "-a.example",
            "a-.example",
            "a..example",
            "*.example.com",
            "a_b.example",
            "bücher.example",
            "127.0.0.1",
            "127.1",
            "0x7f.0x1",
            "[::1]",
            "example.com:80",
            "a/b.example",
            "https://example.com",
            " example.com",
            "example.com..",
            long.as_str(),
        ] {
            assert!(text.parse::<HostName>().is_err(), "{text:?}");
        }
    }
}
