//! How much one app may write: a bucket that fills with time.

use std::time::Instant;

/// Bytes a second that an app may write for long.
const RATE: f64 = 4.0 * 1024.0 * 1024.0;

/// Bytes that it may write at once.
const BURST: f64 = 8.0 * 1024.0 * 1024.0;

/// What an app may still write.
#[derive(Debug)]
pub(super) struct Budget {
    left: f64,
    at: Instant,
}

impl Budget {
    /// A full bucket.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            at: now,
        }
    }

    /// What it holds now.
    fn level(&self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.left + passed * RATE).min(BURST)
    }

    /// Whether it holds all that it can.
    pub(super) fn is_full(&self, now: Instant) -> bool {
        self.level(now) >= BURST
    }

    /// Takes `bytes` where there is so much; whether there was.
    pub(super) fn take(&mut self, bytes: usize, now: Instant) -> bool {
        let rest = self.level(now) - bytes as f64;
        if rest < 0.0 {
            return false;
        }
        (self.left, self.at) = (rest, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        assert!(budget.take(8 << 20, start));
        assert!(!budget.take(1, start));
        let later = start + Duration::from_secs(1);
        assert!(!budget.take((4 << 20) + 1, later));
        assert!(budget.take(4 << 20, later));
    }
}
