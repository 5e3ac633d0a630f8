//! Environment variables of a deployment, as the component reads them with `wasi:cli/environment` or
//! `wasi:config/store`.

use std::collections::BTreeMap;
use std::str::FromStr;

/// Most bytes that the names and values of one deployment may have together.
pub const MAX_ENV_BYTES: usize = 64 * 1024;

/// Why variables are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// There is no `=`.
    #[error("{0:?} is not a variable: write NAME=VALUE")]
    NoEquals(String),
    /// The name is empty, or has `=` or a zero byte.
    #[error(
        "{0:?} is not a name of a variable: it must not be empty and must not have '=' or a zero byte"
    )]
    Name(String),
    /// The value has a zero byte.
    #[error("the value of {0:?} has a zero byte")]
    Value(String),
    /// All of them together are too long.
    #[error("the environment has {0} bytes, at most {MAX_ENV_BYTES} are possible")]
    TooLong(usize),
}

/// One variable, as `NAME=VALUE` on a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvVar {
    /// The name: not empty, without `=`.
    pub name: String,
    /// The value: may be empty.
    pub value: String,
}

impl FromStr for EnvVar {
    type Err = EnvError;

    fn from_str(text: &str) -> Result<Self, EnvError> {
        let short = || text.chars().take(80).collect();
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| EnvError::NoEquals(short()))?;
        check_one(name, value)?;
        Ok(Self {
            name: name.to_owned(),
            value: value.to_owned(),
        })
    }
}

/// Checks the variables of a deployment: each by itself, and all for their size.
///
/// # Errors
/// The first variable that is wrong, or the size.
pub fn check(env: &BTreeMap<String, String>) -> Result<(), EnvError> {
    check_with(env, 0)
}

/// Checks variables of a deployment that has `others` bytes of variables besides, names and values together.
///
/// # Errors
/// The first variable that is wrong, or the size of all.
pub fn check_with(env: &BTreeMap<String, String>, others: u64) -> Result<(), EnvError> {
    let mut bytes = usize::try_from(others).unwrap_or(usize::MAX);
    for (name, value) in env {
        check_one(name, value)?;
        bytes = bytes.saturating_add(name.len() + value.len() + 2);
    }
    if bytes > MAX_ENV_BYTES {
        Err(EnvError::TooLong(bytes))
    } else {
        Ok(())
    }
}

fn check_one(name: &str, value: &str) -> Result<(), EnvError> {
    let short = || name.chars().take(80).collect();
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(EnvError::Name(short()));
    }
    if value.contains('\0') {
        Err(EnvError::Value(short()))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables() {
        let var: EnvVar = "A=b=c".parse().unwrap();
        assert_eq!((var.name.as_str(), var.value.as_str()), ("A", "b=c"));
        assert!("A=".parse::<EnvVar>().is_ok());
        assert!(matches!("A".parse::<EnvVar>(), Err(EnvError::NoEquals(_))));
        assert!(matches!("=b".parse::<EnvVar>(), Err(EnvError::Name(_))));
        assert!(matches!("A=\0".parse::<EnvVar>(), Err(EnvError::Value(_))));
    }

    #[test]
    fn size() {
        let env = BTreeMap::from([("A".to_owned(), "x".repeat(MAX_ENV_BYTES))]);
        assert!(matches!(check(&env), Err(EnvError::TooLong(_))));
    }
}
