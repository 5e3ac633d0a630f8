//! When a deployment gets more VMs, and when fewer. Numbers in, a decision out.

use std::time::Duration;

use platform_model::Scale;

/// Time that the requests of one VM may need together before another one helps.
const BACKLOG: Duration = Duration::from_millis(5);
/// Looks in a row that must see too much work.
const HOT_LOOKS: u32 = 2;
/// Looks in a row that must see too little work for so many VMs.
const COOL_LOOKS: u32 = 200;

/// What a look at a deployment sees.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    /// VMs that serve or start.
    pub(crate) vms: u32,
    /// Requests that they have now.
    pub(crate) active: u32,
    /// Requests that wait for a place in any of them.
    pub(crate) placeless: u32,
    /// Requests that hold on to it, and others who wait for a VM: as long as there are any, it is not idle.
    pub(crate) held: u32,
    /// Requests that have ended so far.
    pub(crate) ended: u64,
    /// Processor time that these took.
    pub(crate) cpu: Duration,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Nothing.
    Stay,
    /// One VM more.
    More,
    /// One VM less.
    Fewer,
    /// No VM beyond the least.
    Idle,
}

/// What was seen of a deployment over time.
#[derive(Debug, Default)]
pub(crate) struct Scaler {
    last: Seen,
    hot: u32,
    cool: u32,
    idle: Duration,
}

impl Scaler {
    /// Time without a request, as of the last look.
    pub(crate) fn idle(&self) -> Duration {
        self.idle
    }

    /// Looks at a deployment, so long after the last look. `processors`: those of the node.
    pub(crate) fn look(
        &mut self,
        seen: Seen,
        passed: Duration,
        scale: &Scale,
        processors: u32,
    ) -> Decision {
        let last = std::mem::replace(&mut self.last, seen);
        let ended = seen.ended.saturating_sub(last.ended);
        let cpu = seen.cpu.saturating_sub(last.cpu);
        let most = if scale.max == 0 {
            processors
        } else {
            scale.max
        };
        if seen.active == 0 && seen.placeless == 0 && seen.held == 0 && ended == 0 {
            self.hot = 0;
            self.idle += passed;
            if self.idle < scale.idle() || seen.vms <= scale.min {
                return Decision::Stay;
            }
            // Whoever wakes it up finds it as if it had never slept.
            self.idle = Duration::ZERO;
            return Decision::Idle;
        }
        self.idle = Duration::ZERO;
        let hot = seen.vms < most && is_hot(&seen, ended, cpu);
        self.hot = if hot { self.hot + 1 } else { 0 };
        // The others could do it with a fifth of their time to spare.
        let others = seen.vms.saturating_sub(1);
        let cool = others >= scale.min.max(1)
            && seen.placeless == 0
            && cpu
                < passed
                    .saturating_mul(others)
                    .mul_f64(0.8)
                    .saturating_sub(BACKLOG);
        self.cool = if cool && !hot { self.cool + 1 } else { 0 };
        if self.hot >= HOT_LOOKS {
            self.hot = 0;
            return Decision::More;
        }
        if self.cool >= COOL_LOOKS {
            self.cool = 0;
            return Decision::Fewer;
        }
        Decision::Stay
    }
}

/// Whether the requests need longer than they should with the VMs that there are.
fn is_hot(seen: &Seen, ended: u64, cpu: Duration) -> bool {
    if seen.placeless > 0 {
        return true;
    }
    let vms = seen.vms.max(1);
    if seen.active < 2 * vms {
        return false;
    }
    match u32::try_from(ended) {
        // They hold the processor, or wait for something; which, is not known. Another VM costs little.
        Ok(0) => true,
        Ok(ended) => (cpu / ended).saturating_mul(seen.active / vms) > BACKLOG,
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Duration = Duration::from_millis(50);

    /// Looks so often at a deployment with `active` requests of which `rate` end between two looks, `each` long.
    fn looks(
        scaler: &mut Scaler,
        n: u32,
        vms: u32,
        active: u32,
        rate: u64,
        each: Duration,
    ) -> Decision {
        let mut decision = Decision::Stay;
        for _ in 0..n {
            let seen = Seen {
                vms,
                active,
                placeless: 0,
                held: active,
                ended: scaler.last.ended + rate,
                cpu: scaler.last.cpu + each.saturating_mul(u32::try_from(rate).unwrap()),
            };
            decision = scaler.look(seen, LOOK, &Scale::default(), 4);
            if decision != Decision::Stay {
                break;
            }
        }
        decision
    }

    #[test]
    fn short_requests_need_one_vm_and_long_ones_more() {
        let us = Duration::from_micros;
        let mut scaler = Scaler::default();
        assert_eq!(looks(&mut scaler, 10, 1, 64, 5000, us(10)), Decision::Stay);
        assert_eq!(looks(&mut scaler, 10, 1, 64, 300, us(150)), Decision::More);
        assert_eq!(
            looks(&mut scaler, 10, 4, 64, 300, us(600)),
            Decision::Stay,
            "as many as there are processors"
        );
        assert_eq!(
            looks(&mut scaler, 10, 1, 8, 0, us(0)),
            Decision::More,
            "nothing ends"
        );
        assert_eq!(
            looks(&mut scaler, 10, 1, 1, 0, us(0)),
            Decision::Stay,
            "one request has one VM"
        );
    }

    #[test]
    fn what_wakes_up_is_not_given_up_at_once() {
        let scale = Scale {
            idle_ms: 100,
            ..Scale::default()
        };
        let mut scaler = Scaler::default();
        let seen = Seen {
            vms: 1,
            ..Seen::default()
        };
        let held = Seen { held: 1, ..seen };
        for decision in [Decision::Stay, Decision::Idle, Decision::Stay] {
            assert_eq!(scaler.look(seen, LOOK, &scale, 4), decision);
        }
        for _ in 0..10 {
            assert_eq!(
                scaler.look(held, LOOK, &scale, 4),
                Decision::Stay,
                "somebody waits for the VM"
            );
        }
        assert_eq!(scaler.look(seen, LOOK, &scale, 4), Decision::Stay);
        assert_eq!(scaler.look(seen, LOOK, &scale, 4), Decision::Idle);
        let at_once = Scale {
            idle_ms: 0,
            ..scale
        };
        assert_eq!(scaler.look(held, LOOK, &at_once, 4), Decision::Stay);
        assert_eq!(scaler.look(seen, LOOK, &at_once, 4), Decision::Idle);
    }

    #[test]
    fn fewer_when_there_is_less_to_do_and_none_when_there_is_nothing() {
        let us = Duration::from_micros;
        let mut scaler = Scaler::default();
        assert_eq!(
            looks(&mut scaler, 150, 2, 1, 10, us(100)),
            Decision::Stay,
            "not at once"
        );
        assert_eq!(looks(&mut scaler, 100, 2, 1, 10, us(100)), Decision::Fewer);
        assert_eq!(
            looks(&mut scaler, 400, 2, 2, 300, us(290)),
            Decision::Stay,
            "one would not do"
        );
        assert_eq!(looks(&mut scaler, 1000, 1, 0, 0, us(0)), Decision::Stay);
        assert_eq!(looks(&mut scaler, 1000, 1, 0, 0, us(0)), Decision::Idle);
        let mut scaler = Scaler::default();
        let kept = Scale {
            min: 1,
            ..Scale::default()
        };
        for _ in 0..5000 {
            let seen = Seen {
                vms: 1,
                ..Seen::default()
            };
            assert_eq!(scaler.look(seen, LOOK, &kept, 4), Decision::Stay);
        }
    }
}
