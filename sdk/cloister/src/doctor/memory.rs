//! Memory: enough of it, and none of it where it should not be.

use super::Check;
use crate::quantity::size;

/// Less than this does not hold a node and one VM.
const LEAST: u64 = 256 << 20;

/// Less than this holds few VMs.
const COMFORT: u64 = 1 << 30;

/// Judges `/proc/meminfo` and the limit of this control group.
pub(super) fn available(meminfo: &str, cgroup_max: &str) -> Check {
    const NAME: &str = "memory";
    let kib = |key: &str| {
        let line = meminfo.lines().find(|line| line.starts_with(key))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    let (Some(free), Some(total)) = (kib("MemAvailable:"), kib("MemTotal:")) else {
        return Check::warn(NAME, "/proc/meminfo cannot be read", "mount /proc");
    };
    let limit = cgroup_max.trim().parse::<u64>().ok();
    let free = limit.unwrap_or(u64::MAX).min(free * 1024);
    let group = limit
        .map(|limit| format!(", of which this control group may have {}", size(limit)))
        .unwrap_or_default();
    let detail = format!("{} free of {}{group}", size(free), size(total * 1024));
    match free {
        ..LEAST => Check::fail(
            NAME,
            detail,
            format!("free memory until {} are left", size(LEAST)),
        ),
        LEAST..COMFORT => Check::warn(
            NAME,
            detail,
            "enough for few VMs: an app has up to 512 MiB by default",
        ),
        COMFORT.. => Check::ok(NAME, detail),
    }
}

/// Judges what lets memory of one tenant be seen by another, or on a disk.
pub(super) fn sharing(ksm: &str, swaps: &str) -> Check {
    const NAME: &str = "memory-sharing";
    let mut found = Vec::new();
    let mut fixes = Vec::new();
    if !matches!(ksm.trim(), "" | "0") {
        found.push("KSM merges pages, so tenants can learn of each other's by their timing");
        fixes.push("`echo 0 | sudo tee /sys/kernel/mm/ksm/run`");
    }
    // One line is the heading.
    if swaps.lines().count() > 1 {
        found.push("swap is on, so secrets of apps may reach a disk and answers may take long");
        fixes.push("`sudo swapoff -a`, or encrypt the swap");
    }
    if found.is_empty() {
        Check::ok(NAME, "no KSM, no swap")
    } else {
        Check::warn(NAME, found.join("; "), fixes.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    fn meminfo(available: u64) -> String {
        format!("MemTotal:       16384000 kB\nMemFree: 1 kB\nMemAvailable:   {available} kB\n")
    }

    #[test]
    fn amounts() {
        let check = available(&meminfo(8_192_000), "max\n");
        assert_eq!(
            (check.state, check.detail.as_str()),
            (State::Ok, "7.8 GiB free of 15.6 GiB")
        );
        assert_eq!(available(&meminfo(600_000), "").state, State::Warn);
        assert_eq!(available(&meminfo(100_000), "").state, State::Fail);
        let check = available(&meminfo(8_192_000), "134217728\n");
        assert_eq!(check.state, State::Fail);
        assert!(
            check.detail.contains("control group may have 128 MiB"),
            "{check:?}"
        );
        assert_eq!(available("", "").state, State::Warn);
    }

    #[test]
    fn nothing_shared() {
        let heading = "Filename Type Size Used Priority\n";
        assert_eq!(sharing("0\n", heading).state, State::Ok);
        assert_eq!(sharing("1\n", heading).state, State::Warn);
        let check = sharing("1", &format!("{heading}/swapfile file 1 0 -2\n"));
        assert!(check.fix.unwrap().contains("; `sudo swapoff"));
    }
}
