//! A text that is not to be shown: the value of a secret, a token.
//!
//! It has no `Display` and no `Serialize`, its `Debug` hides it, and its memory is wiped when it is dropped. Where it is meant
//! to be read or sent, that is said in the code: [`Secret::expose`], or `#[serde(serialize_with = "secret::expose")]`.

use std::fmt;

use serde::{Deserialize, Deserializer, Serializer};
use utoipa::openapi::schema::ObjectBuilder;
use utoipa::openapi::schema::Type;
use zeroize::Zeroizing;

use crate::schema::schema;

/// A text that is not to be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a text. The caller's own copies of it are the caller's affair.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text of these bytes, which are wiped where they are none.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        match String::from_utf8(bytes) {
            Ok(text) => Some(Self(Zeroizing::new(text))),
            Err(error) => {
                drop(Zeroizing::new(error.into_bytes()));
                None
            }
        }
    }

    /// The text, to be used and not to be kept.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// Writes a secret where it is meant to be seen: in a request that sets it, in the one answer that shows it.
///
/// # Errors
/// Those of the serializer.
pub fn expose<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose())
}

schema!(
    Secret,
    "Secret",
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some("A text that is not to be shown."))
        .into()
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_not_shown() {
        let secret: Secret = serde_json::from_str("\"hunter2\"").unwrap();
        assert_eq!(
            format!("{secret:?} {:?}", Some(&secret)),
            "(secret) Some((secret))"
        );
        assert_eq!(secret.expose(), "hunter2");
    }
}
