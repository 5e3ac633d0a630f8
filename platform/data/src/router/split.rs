//! Which of an app's deployments answers a request: by weight, and the same one for a client that is known again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use http::header::{COOKIE, HeaderMap, HeaderName, HeaderValue, SET_COOKIE};
use platform_model::Sticky;

use crate::pool::deployment::Deployment;

/// Coprime with 100, and far from every simple fraction of it: any run of requests is shared nearly as the whole.
const STRIDE: u32 = 61;

/// A deployment and its part.
pub(crate) struct Share {
    pub(crate) deployment: Arc<Deployment>,
    pub(crate) weight: u8,
    /// Most bytes of a request's body.
    pub(crate) request_body: u64,
}

/// The deployments of an app.
pub(crate) struct Split {
    shares: Box<[Share]>,
    total: u32,
    by: By,
    next: AtomicU32,
}

/// By what a client is known again.
enum By {
    Nothing,
    Header(HeaderName),
    Cookie(String),
}

/// A cookie that is to be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewCookie {
    name: String,
    value: String,
}

impl Split {
    /// Shares by weight. With one deployment only there is nothing to choose.
    pub(crate) fn new(shares: Vec<Share>, sticky: Option<&Sticky>) -> Self {
        let total = shares.iter().map(|share| u32::from(share.weight)).sum();
        let by = match sticky {
            _ if shares.len() < 2 => By::Nothing,
            // A name that HTTP does not allow was not let in by the model.
            Some(Sticky::Header(name)) => {
                HeaderName::try_from(name.as_str()).map_or(By::Nothing, By::Header)
            }
            Some(Sticky::Cookie(name)) => By::Cookie(name.clone()),
            None => By::Nothing,
        };
        Self {
            shares: shares.into(),
            total,
            by,
            next: AtomicU32::new(0),
        }
    }

    /// The deployment for a request with these fields, and the cookie by which its client is known from now on, whose
    /// value `make` makes. `None`: there is no deployment.
    pub(crate) fn choose(
        &self,
        headers: &HeaderMap,
        make: impl FnOnce() -> String,
    ) -> Option<(&Share, Option<NewCookie>)> {
        if let [only] = &*self.shares {
            return Some((only, None));
        }
        let (point, cookie) = match &self.by {
            By::Nothing => (self.turn(), None),
            By::Header(name) => match headers.get(name) {
                Some(value) => (place(value.as_bytes()), None),
                None => (self.turn(), None),
            },
            By::Cookie(name) => match cookie(headers, name) {
                Some(value) => (place(value), None),
                None => {
                    let new = NewCookie {
                        name: name.clone(),
                        value: make(),
                    };
                    (place(new.value.as_bytes()), Some(new))
                }
            },
        };
        Some((self.at(point.checked_rem(self.total)?)?, cookie))
    }

    fn turn(&self) -> u32 {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        (turn % 100) * STRIDE % 100
    }

    /// The share in which a point from 0 to the total lies.
    fn at(&self, mut point: u32) -> Option<&Share> {
        self.shares.iter().find(|share| {
            let weight = u32::from(share.weight);
            let here = point < weight;
            point = point.saturating_sub(weight);
            here
        })
    }
}

/// A number for a text, the same on every node and in every version: FNV-1a, then spread.
fn place(text: &[u8]) -> u32 {
    let hash = text.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let spread = (hash ^ (hash >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    u32::try_from(spread >> 33).unwrap_or(0)
}

/// The value of a cookie, if the client sent one that is not empty.
fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let pairs = headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b';'));
    pairs
        .filter_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes()))
        .find_map(|rest| rest.strip_prefix(b"=").filter(|value| !value.is_empty()))
}

impl NewCookie {
    /// Puts it into a response's head, unless the component sets a cookie of the same name.
    pub(crate) fn put(&self, headers: &mut HeaderMap, secure: bool) {
        let own = |value: &HeaderValue| {
            let rest = value.as_bytes().strip_prefix(self.name.as_bytes());
            rest.is_some_and(|rest| rest.starts_with(b"="))
        };
        if headers.get_all(SET_COOKIE).iter().any(own) {
            return;
        }
        let secure = if secure { "; Secure" } else { "" };
        let Self { name, value } = self;
        let text = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}");
        if let Ok(text) = HeaderValue::try_from(text) {
            headers.append(SET_COOKIE, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let fields = fields.iter().map(|&(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(name, value);
        }
        map
    }

    #[test]
    fn cookies_are_found() {
        let headers = fields(&[("cookie", "a=1; sid=x=y ;b"), ("cookie", "other=2")]);
        assert_eq!(cookie(&headers, "sid"), Some(&b"x=y"[..]));
        assert_eq!(cookie(&headers, "other"), Some(&b"2"[..]));
        assert_eq!(cookie(&headers, "si"), None);
        assert_eq!(cookie(&fields(&[("cookie", "sid=")]), "sid"), None);
    }

    #[test]
    fn a_cookie_of_the_component_counts() {
        let new = NewCookie {
            name: "sid".into(),
            value: "7".into(),
        };
        let mut headers = fields(&[("set-cookie", "sid=own"), ("set-cookie", "x=y")]);
        new.put(&mut headers, false);
        assert_eq!(headers.get_all(SET_COOKIE).iter().count(), 2);
        let mut headers = fields(&[("set-cookie", "sid2=own")]);
        new.put(&mut headers, true);
        let set: Vec<_> = headers.get_all(SET_COOKIE).iter().collect();
        assert_eq!(
            set,
            ["sid2=own", "sid=7; Path=/; HttpOnly; SameSite=Lax; Secure"]
        );
    }

    #[test]
    fn places_are_spread_and_stable() {
        assert_eq!(place(b"client-1") % 100, 30);
        let mut hits = [0_u32; 10];
        for client in 0..10_000 {
            let place = place(format!("{client}").as_bytes()) % 100;
            hits[place as usize / 10] += 1;
        }
        assert!(
            hits.iter().all(|&hits| (800..1200).contains(&hits)),
            "{hits:?}"
        );
    }
}
