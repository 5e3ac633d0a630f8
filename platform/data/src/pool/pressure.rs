//! Whether memory is short, as the kernel tells it: pressure stall information (PSI).
//!
//! Source: Linux `Documentation/accounting/psi.rst`, and `memory.pressure` in `Documentation/admin-guide/cgroup-v2.rst`.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// Share of the time in which somebody waited for memory, from which on memory is short.
const SHORT: f64 = 0.1;

/// The kernel's counters of stalls: the whole machine's, and the own control group's, which may have less.
pub(crate) struct Pressure {
    counters: Vec<Counter>,
    passed: Duration,
}

struct Counter {
    file: PathBuf,
    /// Microseconds of stalls so far; `None` before the first look.
    stalled: Option<u64>,
}

impl Pressure {
    /// The counters that this machine has. Without any, memory is never said to be short.
    pub(crate) fn new() -> Self {
        let group = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = own_group(&group).map(|path| {
            Path::new("/sys/fs/cgroup")
                .join(path)
                .join("memory.pressure")
        });
        let files = [Some(PathBuf::from("/proc/pressure/memory")), own];
        Pressure::of(files.into_iter().flatten())
    }

    fn of(files: impl Iterator<Item = PathBuf>) -> Self {
        let counters = files.map(|file| Counter {
            file,
            stalled: None,
        });
        Pressure {
            counters: counters.collect(),
            passed: Duration::ZERO,
        }
    }

    /// Whether memory was short since the last look; `passed` is the time since the last call.
    pub(crate) fn is_short(&mut self, passed: Duration) -> bool {
        self.passed += passed;
        if self.passed < LOOK {
            return false;
        }
        let bound = std::mem::take(&mut self.passed).mul_f64(SHORT);
        // Every counter is looked at, for the next look's sake.
        self.counters
            .iter_mut()
            .map(|counter| counter.stalled() >= bound)
            .fold(false, |short, one| short | one)
    }
}

impl Counter {
    /// Time in which somebody waited since the last call.
    fn stalled(&mut self) -> Duration {
        let now = std::fs::read_to_string(&self.file)
            .ok()
            .and_then(|text| total(&text));
        let last = std::mem::replace(&mut self.stalled, now);
        match (last, now) {
            (Some(last), Some(now)) => Duration::from_micros(now.saturating_sub(last)),
            _ => Duration::ZERO,
        }
    }
}

/// The `total` of the line `some`.
fn total(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with("some "))?;
    let field = line.split(' ').find_map(|word| word.strip_prefix("total="));
    field?.parse().ok()
}

/// The control group of the unified hierarchy, relative to its root; `None` for the root itself, which is the whole machine.
fn own_group(text: &str) -> Option<&str> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    (!path.is_empty()).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_short_while_somebody_waits_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("memory");
        let stalls = |micros: u64| {
            let text = format!(
                "some avg10=0.00 avg60=0.00 avg300=0.00 total={micros}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n"
            );
            std::fs::write(&file, text).unwrap();
        };
        let mut pressure = Pressure::of([file.clone()].into_iter());
        stalls(1_000_000);
        assert!(
            !pressure.is_short(LOOK),
            "what was before the start does not count"
        );
        stalls(1_100_000);
        assert!(
            !pressure.is_short(LOOK / 2),
            "it is not looked at all the time"
        );
        assert!(pressure.is_short(LOOK / 2));
        stalls(1_110_000);
        assert!(!pressure.is_short(LOOK), "4 % are not much");
        std::fs::remove_file(&file).unwrap();
        assert!(
            !pressure.is_short(LOOK),
            "a kernel without PSI is no machine without memory"
        );
    }

    #[test]
    fn own_groups() {
        assert_eq!(
            own_group("0::/system.slice/cloisterd.service\n"),
            Some("system.slice/cloisterd.service")
        );
        assert_eq!(own_group("4:memory:/a\n0::/\n"), None);
        assert_eq!(own_group(""), None);
    }
}
