//! The times of one incoming exchange, looked at by the sweep instead of by a timer each.

use std::time::Duration;

use platform_model::Limits;

use super::exchange::Exchange;
use super::failure::Deadline;

/// Milliseconds that a guest has to end an exchange which the host has given up: on a busy host, putting back an instance that
/// used all of its memory takes seconds.
const GRACE: u64 = 10_000;

/// What a look at the times found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Fine,
    /// A time ran out now: the exchange is to be reset.
    Expired(Deadline),
    /// The guest did not end an exchange that was reset.
    Overdue,
}

/// The times, in milliseconds of the link's clock.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    began: u64,
    head_by: u64,
    wall_by: u64,
    post_return: u64,
    ended_at: Option<u64>,
    /// The host gave up: the guest has to say `DONE` by then.
    done_by: Option<u64>,
}

impl Watch {
    /// An exchange begins.
    pub(crate) fn begin(&mut self, now: u64, limits: &Limits) {
        *self = Watch {
            began: now,
            head_by: now.saturating_add(limits.head_timeout_ms),
            wall_by: now.saturating_add(limits.wall_ms),
            post_return: limits.post_return_ms,
            ended_at: None,
            done_by: None,
        };
    }

    /// Time since the exchange began, at most a millisecond too long.
    pub(crate) fn passed(&self, now: u64) -> Duration {
        Duration::from_millis(now.saturating_sub(self.began).saturating_add(1))
    }

    /// The host has reset the exchange.
    pub(crate) fn gave_up(&mut self, now: u64) {
        self.done_by.get_or_insert(now.saturating_add(GRACE));
    }

    /// Looks at an exchange that is open.
    pub(crate) fn check(&mut self, now: u64, exchange: &Exchange, released: bool) -> Verdict {
        if let Some(by) = self.done_by {
            return if now > by {
                Verdict::Overdue
            } else {
                Verdict::Fine
            };
        }
        if exchange.ended() && released && self.ended_at.is_none() {
            self.ended_at = Some(now);
        }
        let expired = if exchange.head_due() && now > self.head_by {
            Deadline::Head
        } else if self.ended_at.is_none() && now > self.wall_by {
            Deadline::Wall
        } else if self
            .ended_at
            .is_some_and(|at| now > at.saturating_add(self.post_return).saturating_add(GRACE))
        {
            Deadline::PostReturn
        } else {
            return Verdict::Fine;
        };
        self.gave_up(now);
        Verdict::Expired(expired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            head_timeout_ms: 100,
            wall_ms: 1000,
            post_return_ms: 50,
            ..Limits::default()
        }
    }

    #[test]
    fn the_head_is_due_first_and_the_guest_has_its_grace() {
        let (mut watch, mut exchange) = (Watch::default(), Exchange::default());
        exchange.begin(true, false);
        watch.begin(0, &limits());
        assert_eq!(watch.check(100, &exchange, false), Verdict::Fine);
        assert_eq!(
            watch.check(101, &exchange, false),
            Verdict::Expired(Deadline::Head)
        );
        assert_eq!(watch.check(101 + GRACE, &exchange, false), Verdict::Fine);
        assert_eq!(watch.check(102 + GRACE, &exchange, false), Verdict::Overdue);
    }

    #[test]
    fn after_the_response_only_the_rest_counts() {
        let (mut watch, mut exchange) = (Watch::default(), Exchange::default());
        exchange.begin(false, true);
        watch.begin(0, &limits());
        assert_eq!(watch.check(900, &exchange, true), Verdict::Fine);
        assert_eq!(watch.check(1500, &exchange, true), Verdict::Fine);
        assert_eq!(
            watch.check(951 + GRACE, &exchange, true),
            Verdict::Expired(Deadline::PostReturn)
        );
    }
}
