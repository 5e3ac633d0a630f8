//! What the kernel says of this process, under the names that Prometheus' own clients give it.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// Figures of this process. What cannot be read is none.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Process {
    /// Processor time, in seconds.
    pub(super) cpu_seconds: Option<f64>,
    /// Resident memory, in bytes.
    pub(super) resident_bytes: Option<u64>,
    /// Open files.
    pub(super) open_fds: Option<u64>,
    /// Files that may be open.
    pub(super) max_fds: Option<u64>,
}

/// Reads them.
pub(super) fn read() -> Process {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is the name in parentheses, which may hold anything; numbers come behind it.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = |number: usize| rest.split_whitespace().nth(number - 3)?.parse::<u64>().ok();
    let ticks = field(14).zip(field(15)).map(|(user, system)| user + system);
    let fds = fs::read_dir("/proc/self/fd").ok();
    Process {
        cpu_seconds: ticks.map(|ticks| ticks as f64 / clock_ticks_per_second() as f64),
        resident_bytes: field(24).map(|pages| pages.saturating_mul(page_size() as u64)),
        open_fds: fds.map(|fds| fds.count() as u64),
        max_fds: getrlimit(Resource::Nofile).current,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_figures() {
        let process = read();
        assert!(
            process
                .cpu_seconds
                .is_some_and(|seconds| (0.0..3600.0).contains(&seconds))
        );
        assert!(
            process
                .resident_bytes
                .is_some_and(|bytes| (100_000..1 << 40).contains(&bytes))
        );
        assert!(
            process
                .open_fds
                .is_some_and(|open| (3..=process.max_fds.unwrap()).contains(&open))
        );
    }
}
