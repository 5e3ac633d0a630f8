//! How many requests a token may make, and how many wrong tokens an address may send.
//!
//! A right token is never refused because of the wrong ones that came from its address: 256 random bits cannot be guessed, so
//! that what is limited is what the guesses cost the node, and nobody can lock somebody else out.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock as _, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

use crate::problem::{ApiError, Code};

/// Seconds' worth of requests that a token may make at once after a pause.
const BURST: NonZeroU32 = NonZeroU32::new(5).unwrap();

/// Wrong tokens that an address may send at once, and how long it takes until it may send one more.
const FAILURES: NonZeroU32 = NonZeroU32::new(20).unwrap();
const FAILURE: Duration = Duration::from_secs(3);

/// Keys that are kept before those are let go that say nothing any more.
const KEPT: usize = 4_096;

type Limiter<K> = RateLimiter<
    K,
    HashMapStateStore<K>,
    MonotonicClock,
    NoOpMiddleware<<MonotonicClock as governor::clock::Clock>::Instant>,
>;

/// The limits of one API.
#[derive(Debug)]
pub(super) struct Rates {
    /// By the id of the token.
    requests: Limiter<Arc<str>>,
    /// By the address.
    failures: Limiter<IpAddr>,
}

impl Rates {
    /// With so many requests in a second for each token.
    pub(super) fn new(per_second: NonZeroU32) -> Self {
        let burst = per_second.saturating_mul(BURST);
        let failure = Quota::with_period(FAILURE).unwrap_or(Quota::per_second(FAILURES));
        Self {
            requests: limiter(Quota::per_second(per_second).allow_burst(burst)),
            failures: limiter(failure.allow_burst(FAILURES)),
        }
    }

    /// Counts a request of a token.
    ///
    /// # Errors
    /// When there were too many.
    pub(super) fn request(&self, token: &Arc<str>) -> Result<(), ApiError> {
        take(&self.requests, token).map_err(|wait| {
            let detail = format!("the token makes too many requests: wait {wait} s");
            ApiError::new(Code::RateLimited, detail).retry_after(wait)
        })
    }

    /// Counts a wrong token from an address.
    ///
    /// # Errors
    /// When there were too many.
    pub(super) fn failure(&self, from: Option<IpAddr>) -> Result<(), ApiError> {
        let Some(from) = from else {
            return Ok(());
        };
        take(&self.failures, &network(from)).map_err(|wait| {
            let detail = format!(
                "too many wrong tokens came from {from}: correct the token, and wait {wait} s"
            );
            ApiError::new(Code::TooManyFailures, detail).retry_after(wait)
        })
    }
}

fn limiter<K: Hash + Eq + Clone>(quota: Quota) -> Limiter<K> {
    RateLimiter::new(quota, HashMapStateStore::default(), MonotonicClock)
}

/// Takes one from what a key may have; the seconds to wait where there is none.
fn take<K: Hash + Eq + Clone>(limiter: &Limiter<K>, key: &K) -> Result<(), u64> {
    if limiter.len() > KEPT {
        limiter.retain_recent();
    }
    limiter.check_key(key).map_err(|until| {
        let wait = until.wait_time_from(MonotonicClock.now());
        wait.as_secs() + 1
    })
}

/// What counts as one address: of IPv6 the 64 bits that one customer gets at the least.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(network.into())
        }
        four => four,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(per_second: u32) -> Rates {
        Rates::new(NonZeroU32::new(per_second).unwrap())
    }

    #[test]
    fn a_token_has_a_burst_and_others_do_not_pay_for_it() {
        let rates = rates(2);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        for _ in 0..10 {
            rates.request(&a).unwrap();
        }
        let error = rates.request(&a).unwrap_err();
        assert_eq!((error.code, error.wait), (Code::RateLimited, Some(1)));
        rates.request(&b).unwrap();
    }

    #[test]
    fn wrong_tokens_are_counted_by_address() {
        let rates = rates(1);
        let from = |text: &str| Some(text.parse().unwrap());
        for _ in 0..20 {
            rates.failure(from("192.0.2.1")).unwrap();
        }
        let error = rates.failure(from("::ffff:192.0.2.1")).unwrap_err();
        assert_eq!((error.code, error.wait), (Code::TooManyFailures, Some(3)));
        rates.failure(from("192.0.2.2")).unwrap();
        for host in 0..20 {
            rates.failure(from(&format!("2001:db8::{host}"))).unwrap();
        }
        assert!(rates.failure(from("2001:db8::ffff")).is_err());
        rates.failure(from("2001:db8:0:1::1")).unwrap();
    }

    #[test]
    fn what_says_nothing_any_more_is_let_go() {
        let rates = rates(1_000_000);
        for number in 0..3 * KEPT {
            rates.request(&number.to_string().into()).unwrap();
        }
        let kept = rates.requests.len();
        assert!(kept <= KEPT + 1, "{kept}");
    }
}
