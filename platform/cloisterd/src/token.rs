//! The token of the admin API: made once, kept in a file that only the node's user may read.

use std::fs::File;
use std::io::{self, Read as _};

use platform_control::data_dir::{DataDir, DataDirError};

/// The file in the data folder.
const FILE: &str = "admin-token";

/// Random bytes of a token.
const BYTES: usize = 32;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file.
    #[error(transparent)]
    File(#[from] DataDirError),
    /// What is in the file is no token.
    #[error(
        "the file {FILE} in the data folder has no token (at least 16 printable characters in one line): write one or remove the file"
    )]
    NoToken,
    /// No randomness.
    #[error("cannot read /dev/urandom")]
    Random(#[source] io::Error),
}

/// Reads the token, or makes one where there is none.
pub(crate) fn read_or_create(dir: &DataDir) -> Result<String, TokenError> {
    if let Some(content) = dir.read_file(FILE)? {
        let text = String::from_utf8(content).map_err(|_| TokenError::NoToken)?;
        let token = text.trim();
        let printable = token.bytes().all(|byte| byte.is_ascii_graphic());
        return if printable && token.len() >= 16 {
            Ok(token.to_owned())
        } else {
            Err(TokenError::NoToken)
        };
    }
    let token = random()?;
    dir.write_file(FILE, token.as_bytes(), 0o600)?;
    Ok(token)
}

fn random() -> Result<String, TokenError> {
    let mut bytes = [0; BYTES];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(TokenError::Random)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn made_once_and_for_this_user_only() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(folder.path()).unwrap();
        let token = read_or_create(&dir).unwrap();
        assert_eq!(token.len(), 64);
        assert_eq!(read_or_create(&dir).unwrap(), token);
        let metadata = std::fs::metadata(folder.path().join(FILE)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_without_a_token_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(folder.path()).unwrap();
        for content in ["", "short", "two lines of words\nand more"] {
            dir.write_file(FILE, content.as_bytes(), 0o600).unwrap();
            assert!(matches!(read_or_create(&dir), Err(TokenError::NoToken)));
        }
    }
}
