//! Seals values so that the disk does not tell them: XChaCha20-Poly1305 under a key of the node.
//!
//! A sealed value is bound to what it is a value of (tenant, app, name, version): moved to another place, it does not open.
//! There is one key that seals, and there may be older ones that only open; a rotation makes a new one, seals everything anew,
//! and forgets the old.
//!
//! ```text
//! DIR/secret-key   one key a line, 64 hexadecimal digits, the one that seals first (0600)
//! CLOISTER_KEY     the same, with commas for line ends; takes the place of the file
//! ```

use std::fmt;

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use platform_model::Secret;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Bytes of a key.
const KEY: usize = 32;

/// Bytes of a nonce: random ones never meet.
const NONCE: usize = 24;

/// What a key's id is a hash of, besides the key.
const ID_LABEL: &[u8] = b"cloister secret-key id\0";

/// Why a value was not sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The key that it was sealed with is not there.
    #[error(
        "it is sealed with the key {0}, which is not in the file secret-key and not in CLOISTER_KEY: put it there"
    )]
    KeyUnknown(String),
    /// It is not what was sealed, or not where it was sealed for.
    #[error(
        "it does not open: it was changed, or moved from another place; restore the data folder from a backup"
    )]
    Changed,
    /// There is no randomness.
    #[error("the system gives no random bytes: {0}")]
    Random(#[from] getrandom::Error),
    /// The value cannot be sealed.
    #[error("it cannot be sealed")]
    Unsealable,
}

/// The text holds no keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// One of them is none. Which text it is, is not told.
    #[error("key number {0} is not 64 hexadecimal digits")]
    Malformed(usize),
    /// There is none.
    #[error("there is no key in it")]
    None,
}

/// A sealed value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The id of the key.
    pub key: String,
    /// The nonce, in hexadecimal digits.
    nonce: String,
    /// The ciphertext with its tag, in hexadecimal digits.
    text: String,
}

/// What a value is a value of. It is sealed with the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a>(pub &'a [&'a str]);

impl Place<'_> {
    /// The parts, each with its length before it: no two places look alike.
    fn bytes(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in self.0 {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }
}

/// A key.
#[derive(Clone)]
struct Key {
    id: String,
    bytes: Zeroizing<[u8; KEY]>,
}

impl Key {
    fn new(bytes: Zeroizing<[u8; KEY]>) -> Self {
        let hash = Sha256::new().chain_update(ID_LABEL).chain_update(*bytes);
        let id = hex(&hash.finalize()).chars().take(16).collect();
        Self { id, bytes }
    }

    fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = Zeroizing::new([0; KEY]);
        getrandom::fill(bytes.as_mut())?;
        Ok(Self::new(bytes))
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.bytes).into())
    }
}

/// The keys of a node: the first seals, all open.
#[derive(Clone)]
pub struct Keys {
    current: Key,
    older: Vec<Key>,
}

impl fmt::Debug for Keys {
    /// The ids.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.all().map(|key| &key.id))
            .finish()
    }
}

impl Keys {
    /// One new key.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn random() -> Result<Self, getrandom::Error> {
        Ok(Self {
            current: Key::random()?,
            older: Vec::new(),
        })
    }

    /// Reads keys: one a line, or with commas or spaces between them.
    ///
    /// # Errors
    /// Which one is none; the text itself is not told.
    pub fn read(text: &str) -> Result<Self, KeyError> {
        let parts = text.split([',', '\n', '\r', ' ', '\t']);
        let mut keys = Vec::new();
        for part in parts.filter(|part| !part.is_empty()) {
            let mut bytes = Zeroizing::new([0; KEY]);
            unhex_into(part, bytes.as_mut()).ok_or(KeyError::Malformed(keys.len() + 1))?;
            keys.push(Key::new(bytes));
        }
        let mut keys = keys.into_iter();
        let current = keys.next().ok_or(KeyError::None)?;
        let older = keys.collect();
        Ok(Self { current, older })
    }

    /// The keys as [`Keys::read`] reads them, one a line.
    #[must_use]
    pub fn text(&self) -> Secret {
        let lines = self.all().map(|key| hex(&*key.bytes) + "\n");
        Secret::new(lines.collect::<String>())
    }

    /// A new key before these.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn with_new(&self) -> Result<Self, getrandom::Error> {
        Ok(Self {
            current: Key::random()?,
            older: self.all().cloned().collect(),
        })
    }

    /// These keys, and those of `others` to open with.
    #[must_use]
    pub fn and_older(mut self, others: &Self) -> Self {
        for key in others.all() {
            if self.key(&key.id).is_none() {
                self.older.push(key.clone());
            }
        }
        self
    }

    /// The one that seals, alone.
    #[must_use]
    pub fn only_current(&self) -> Self {
        Self {
            current: self.current.clone(),
            older: Vec::new(),
        }
    }

    /// The public id of the key that seals.
    #[must_use]
    pub fn current(&self) -> &str {
        &self.current.id
    }

    /// Whether the key with this id is among them.
    #[must_use]
    pub fn has(&self, id: &str) -> bool {
        self.key(id).is_some()
    }

    /// Whether there are keys that only open.
    #[must_use]
    pub fn has_older(&self) -> bool {
        !self.older.is_empty()
    }

    fn all(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.current).chain(&self.older)
    }

    fn key(&self, id: &str) -> Option<&Key> {
        self.all().find(|key| key.id == id)
    }

    /// Seals a value for a place.
    ///
    /// # Errors
    /// When there is no randomness, or the value is too long for the cipher.
    pub fn seal(&self, place: Place<'_>, value: &Secret) -> Result<Sealed, SealError> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce)?;
        let payload = Payload {
            msg: value.expose().as_bytes(),
            aad: &place.bytes(),
        };
        let cipher = self.current.cipher();
        let text = cipher.encrypt(&XNonce::from(nonce), payload);
        Ok(Sealed {
            key: self.current.id.clone(),
            nonce: hex(&nonce),
            text: hex(&text.map_err(|_| SealError::Unsealable)?),
        })
    }

    /// Opens a value that was sealed for a place.
    ///
    /// # Errors
    /// When its key is not among these, or it is not what was sealed for this place.
    pub fn open(&self, place: Place<'_>, sealed: &Sealed) -> Result<Secret, SealError> {
        let key = self.key(&sealed.key);
        let key = key.ok_or_else(|| SealError::KeyUnknown(sealed.key.clone()))?;
        let mut nonce = [0; NONCE];
        unhex_into(&sealed.nonce, &mut nonce).ok_or(SealError::Changed)?;
        let mut text = vec![0; sealed.text.len() / 2];
        unhex_into(&sealed.text, &mut text).ok_or(SealError::Changed)?;
        let payload = Payload {
            msg: &text,
            aad: &place.bytes(),
        };
        let opened = key.cipher().decrypt(&XNonce::from(nonce), payload);
        let opened = Zeroizing::new(opened.map_err(|_| SealError::Changed)?);
        let text = std::str::from_utf8(&opened).map_err(|_| SealError::Changed)?;
        Ok(Secret::new(text))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads hexadecimal digits that fill `bytes` exactly.
fn unhex_into(text: &str, bytes: &mut [u8]) -> Option<()> {
    let digits = text.as_bytes();
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        for digit in pair {
            let value = char::from(*digit).to_digit(16)?;
            *byte = *byte << 4 | u8::try_from(value).ok()?;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'_> = Place(&["secret", "acme", "shop", "PASSWORD", "3"]);

    fn value() -> Secret {
        Secret::new("hunter2")
    }

    #[test]
    fn what_was_sealed_opens_in_its_place_and_nowhere_else() {
        let keys = Keys::random().unwrap();
        let sealed = keys.seal(PLACE, &value()).unwrap();
        assert_eq!(keys.open(PLACE, &sealed), Ok(value()));
        for other in [
            &["secret", "rival", "shop", "PASSWORD", "3"][..],
            &["secret", "acme", "blog", "PASSWORD", "3"],
            &["secret", "acme", "shop", "TOKEN", "3"],
            &["secret", "acme", "shop", "PASSWORD", "4"],
            &["secret", "acmes", "hop", "PASSWORD", "3"],
            &["secret", "acme", "shop", "PASSWORD3"],
        ] {
            assert_eq!(
                keys.open(Place(other), &sealed),
                Err(SealError::Changed),
                "{other:?}"
            );
        }
        assert_ne!(
            keys.seal(PLACE, &value()).unwrap(),
            sealed,
            "a nonce is used once"
        );
    }

    #[test]
    fn what_was_changed_does_not_open() {
        let keys = Keys::random().unwrap();
        let sealed = keys.seal(PLACE, &value()).unwrap();
        let flip = |text: &str, at: usize| {
            let mut text = text.to_owned();
            let other = if text[at..].starts_with('0') {
                "1"
            } else {
                "0"
            };
            text.replace_range(at..=at, other);
            text
        };
        for at in [0, 20, sealed.text.len() - 1] {
            let text = flip(&sealed.text, at);
            let changed = Sealed {
                text,
                ..sealed.clone()
            };
            assert_eq!(keys.open(PLACE, &changed), Err(SealError::Changed));
        }
        let nonce = flip(&sealed.nonce, 5);
        let changed = Sealed {
            nonce,
            ..sealed.clone()
        };
        assert_eq!(keys.open(PLACE, &changed), Err(SealError::Changed));
        for text in ["", "zz", "abc"] {
            let changed = Sealed {
                text: text.to_owned(),
                ..sealed.clone()
            };
            assert_eq!(keys.open(PLACE, &changed), Err(SealError::Changed));
        }
    }

    #[test]
    fn keys_follow_each_other() {
        let first = Keys::random().unwrap();
        let sealed = first.seal(PLACE, &value()).unwrap();
        let second = first.with_new().unwrap();
        assert_eq!(second.open(PLACE, &sealed), Ok(value()));
        let again = second.seal(PLACE, &value()).unwrap();
        assert_eq!(again.key, second.current());
        let alone = second.only_current();
        let unknown = SealError::KeyUnknown(first.current().to_owned());
        assert_eq!(alone.open(PLACE, &sealed), Err(unknown));
        assert_eq!(alone.open(PLACE, &again), Ok(value()));
        let both = alone.and_older(&first);
        assert_eq!(both.open(PLACE, &sealed), Ok(value()));
    }

    #[test]
    fn keys_are_read_and_not_shown() {
        let keys = Keys::random().unwrap().with_new().unwrap();
        let text = keys.text();
        let again = Keys::read(text.expose()).unwrap();
        assert_eq!((again.current(), again.has_older()), (keys.current(), true));
        let commas = text.expose().trim().replace('\n', ",");
        assert_eq!(Keys::read(&commas).unwrap().current(), keys.current());
        assert!(!format!("{keys:?}").contains(&commas[..16]));
        assert_eq!(Keys::read(" \n").unwrap_err(), KeyError::None);
        let error = Keys::read(&format!("{commas},hunter2")).unwrap_err();
        assert_eq!(error, KeyError::Malformed(3));
        assert!(!error.to_string().contains("hunter2"));
    }

    /// A vector of the draft, A.3.1: the cipher is the one that it says it is.
    #[test]
    fn the_cipher_is_xchacha20_poly1305() {
        let key: Vec<_> = (0x80..=0x9f)
            .map(|byte: u8| format!("{byte:02x}"))
            .collect();
        let keys = Keys::read(&key.concat()).unwrap();
        let nonce: Vec<u8> = (0x40..=0x57).collect();
        let nonce: [u8; NONCE] = nonce.try_into().unwrap();
        let text = "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
                    sunscreen would be it.";
        let mut aad = [0; 12];
        unhex_into("50515253c0c1c2c3c4c5c6c7", &mut aad).unwrap();
        let payload = Payload {
            msg: text.as_bytes(),
            aad: &aad,
        };
        let sealed = keys
            .current
            .cipher()
            .encrypt(&XNonce::from(nonce), payload)
            .unwrap();
        let sealed = hex(&sealed);
        assert!(
            sealed.starts_with("bd6d179d3e83d43b9576579493c0e939"),
            "{sealed}"
        );
        assert!(
            sealed.ends_with("c0875924c1c7987947deafd8780acf49"),
            "{sealed}"
        );
    }
}
