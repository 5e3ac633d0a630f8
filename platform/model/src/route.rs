//! What the paths of a host lead to: prefixes and redirects, as values that were checked.
//!
//! A prefix is compared with a request's path as the client wrote it, segment by segment: nothing is decoded and no
//! `..` resolved, so `/a%70i` is not below `/api`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use crate::schema::{schema, text};

/// Longest prefix, and longest target of a redirect, in bytes.
const MAX_LENGTH: usize = 1024;

/// Why a text is no prefix, or no target of a redirect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// A prefix that does not begin with a slash.
    #[error("the path {0:?} does not begin with '/'")]
    NotAbsolute(String),
    /// Longer than possible.
    #[error("the text has {0} bytes, at most {MAX_LENGTH} are possible")]
    TooLong(usize),
    /// A character that has no place there.
    #[error(
        "{0:?} has the character {1:?}: only those of a URL's path are possible, others percent-encoded"
    )]
    Character(String, char),
    /// A segment that clients resolve before they send it.
    #[error("the path {0:?} has an empty segment, '.' or '..': no client would send it so")]
    Segment(String),
    /// A redirect to neither a path nor a URL.
    #[error("a redirect goes to https://HOST/…, http://HOST/… or /PATH, not to {0:?}")]
    Target(String),
    /// A status that does not redirect.
    #[error("the status of a redirect is 301, 302, 307 or 308, not {0}")]
    Status(u16),
}

/// A prefix of paths: `/` for all of them, or segments such as `/api/v1` for that path and those below it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathPrefix(Arc<str>);

impl PathPrefix {
    /// The prefix of every path.
    #[must_use]
    pub fn root() -> Self {
        Self("/".into())
    }

    /// The prefix as text; only the root's ends with a slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the prefix of every path.
    #[must_use]
    pub fn is_root(&self) -> bool {
        &*self.0 == "/"
    }

    /// Whether `path` is this path or below it.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        self.is_root()
            || path
                .strip_prefix(&*self.0)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl Default for PathPrefix {
    fn default() -> Self {
        Self::root()
    }
}

/// Whether a byte may stand in a path as it is: `pchar` of RFC 3986, `%` and the slash.
fn is_of_path(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@%/".contains(c)
}

impl FromStr for PathPrefix {
    type Err = RouteError;

    /// Reads a prefix; a slash at its end makes no difference.
    fn from_str(text: &str) -> Result<Self, RouteError> {
        if !text.starts_with('/') {
            return Err(RouteError::NotAbsolute(text.to_owned()));
        }
        if text.len() > MAX_LENGTH {
            return Err(RouteError::TooLong(text.len()));
        }
        if let Some(other) = text.chars().find(|&c| !is_of_path(c)) {
            return Err(RouteError::Character(text.to_owned(), other));
        }
        let bare = text.strip_suffix('/').unwrap_or(text);
        if bare.is_empty() {
            return Ok(Self::root());
        }
        if bare
            .split('/')
            .skip(1)
            .any(|segment| matches!(segment, "" | "." | ".."))
        {
            return Err(RouteError::Segment(text.to_owned()));
        }
        Ok(Self(bare.into()))
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for PathPrefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for PathPrefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

schema!(
    PathPrefix,
    "PathPrefix",
    text(
        "A prefix of paths: `/` for all of them, or segments such as `/api/v1` for that path and those below it.",
        "^/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*$",
        "/api"
    )
);

/// An answer that sends the client elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// Where to: a URL of `http` or `https`, or a path of the same host.
    pub to: String,
    /// 301, 302, 307 or 308. Default 308: for good, with the same method and body.
    #[serde(default = "permanent")]
    pub status: u16,
    /// Whether what comes behind the route's prefix, and the query, are put behind `to`. Default true.
    #[serde(default = "yes")]
    pub keep_path: bool,
}

fn permanent() -> u16 {
    308
}

fn yes() -> bool {
    true
}

impl Redirect {
    /// A redirect for good that keeps path and query.
    #[must_use]
    pub fn new(to: &str) -> Self {
        Self {
            to: to.to_owned(),
            status: permanent(),
            keep_path: yes(),
        }
    }

    /// Checks what the types alone do not.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), RouteError> {
        let bad = || RouteError::Target(self.to.clone());
        if !matches!(self.status, 301 | 302 | 307 | 308) {
            return Err(RouteError::Status(self.status));
        }
        if self.to.len() > MAX_LENGTH {
            return Err(RouteError::TooLong(self.to.len()));
        }
        let queried = |c: &char| !self.keep_path && *c == '?';
        if let Some(other) = self
            .to
            .chars()
            .find(|c| !is_of_path(*c) && !"[]".contains(*c) && !queried(c))
        {
            return Err(RouteError::Character(self.to.clone(), other));
        }
        let after = |scheme: &str| self.to.strip_prefix(scheme);
        match after("https://").or_else(|| after("http://")) {
            Some(rest) => {
                let authority = rest.split(['/', '?']).next().unwrap_or_default();
                let fits = !authority.is_empty() && !authority.contains('@');
                fits.then_some(()).ok_or_else(bad)
            }
            // "//HOST" would be another host.
            None if self.to.starts_with('/') && !self.to.starts_with("//") => Ok(()),
            None => Err(bad()),
        }
    }

    /// The value of `Location`, where `rest` is what stands behind the route's prefix, and `query` the query.
    #[must_use]
    pub fn location(&self, rest: &str, query: Option<&str>) -> String {
        if !self.keep_path {
            return self.to.clone();
        }
        // One slash between the two, however many the client sent: "//HOST" would be another host.
        let mut location = self.to.trim_end_matches('/').to_owned();
        let rest = rest.trim_start_matches('/');
        if !rest.is_empty() || location.is_empty() || self.to.ends_with('/') {
            location.push('/');
        }
        location.push_str(rest);
        if let Some(query) = query {
            location.push('?');
            location.push_str(query);
        }
        location
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> PathPrefix {
        text.parse().unwrap()
    }

    #[test]
    fn prefixes_are_whole_segments() {
        assert!(prefix("/").covers("/x") && prefix("/").covers("*"));
        let api = prefix("/api/");
        assert_eq!(api, prefix("/api"));
        for (path, covered) in [
            ("/api", true),
            ("/api/", true),
            ("/api/v1", true),
            ("/apis", false),
            ("/", false),
            ("/API", false),
        ] {
            assert_eq!(api.covers(path), covered, "{path}");
        }
    }

    #[test]
    fn what_is_no_prefix() {
        for bad in [
            "", "api", "/a b", "/a?b", "/a#b", "/ä", "//", "/a//b", "/./a", "/a/..",
        ] {
            assert!(bad.parse::<PathPrefix>().is_err(), "{bad:?}");
        }
        assert!("/a".repeat(600).parse::<PathPrefix>().is_err());
    }

    #[test]
    fn redirects_are_checked() {
        for good in [
            "https://a.example",
            "http://a.example:8080/x/",
            "https://[::1]:4/",
            "/",
            "/x",
        ] {
            assert_eq!(Redirect::new(good).check(), Ok(()), "{good}");
        }
        for bad in [
            "",
            "x",
            "//a.example",
            "https://",
            "https:///x",
            "https://u@a/",
            "ftp://a/",
            "/x?y",
            "/x#y",
            "/x\r\ny: z",
        ] {
            assert!(Redirect::new(bad).check().is_err(), "{bad:?}");
        }
        let mut fixed = Redirect::new("/x?y");
        fixed.keep_path = false;
        assert_eq!(fixed.check(), Ok(()));
        fixed.status = 200;
        assert_eq!(fixed.check(), Err(RouteError::Status(200)));
    }

    #[test]
    fn a_redirect_keeps_the_path_and_stays_where_it_was_sent() {
        let to = |to: &str, rest: &str, query| Redirect::new(to).location(rest, query);
        assert_eq!(
            to("https://b.example", "/x/y", Some("q=1")),
            "https://b.example/x/y?q=1"
        );
        assert_eq!(to("https://b.example/", "/", None), "https://b.example/");
        assert_eq!(to("https://b.example/v2", "", None), "https://b.example/v2");
        assert_eq!(to("/", "//evil.example/x", None), "/evil.example/x");
        assert_eq!(
            to("https://b.example", "@evil.example", None),
            "https://b.example/@evil.example"
        );
    }

    #[test]
    fn json_has_defaults_and_refuses_what_it_does_not_know() {
        let redirect: Redirect = serde_json::from_str(r#"{"to":"/x"}"#).unwrap();
        assert_eq!(redirect, Redirect::new("/x"));
        assert!(serde_json::from_str::<Redirect>(r#"{"to":"/x","code":301}"#).is_err());
        assert_eq!(serde_json::to_string(&prefix("/a/")).unwrap(), "\"/a\"");
    }
}
