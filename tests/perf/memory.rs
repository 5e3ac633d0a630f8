//! What processes and the machine have of memory and descriptors, as `/proc` tells it.

use anyhow::{Context, Result};
use cloister_tests::process;

/// A mebibyte.
pub(crate) const MIB: f64 = 1024.0 * 1024.0;

/// A process and its children.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let mut pids = process::children(pid);
    pids.push(pid);
    pids
}

/// Proportional set sizes of a process and its children together, in bytes: each page counted once.
pub(crate) fn of_family(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for pid in family(pid) {
        sum += kib(&format!("/proc/{pid}/smaps_rollup"), "Pss:")? * 1024;
    }
    Ok(sum)
}

/// Memory that the kernel could still give, in bytes.
pub(crate) fn available() -> Result<u64> {
    Ok(kib("/proc/meminfo", "MemAvailable:")? * 1024)
}

/// Memory that a process has resident, in bytes.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    Ok(kib(&format!("/proc/{pid}/status"), "VmRSS:")? * 1024)
}

/// Open descriptors of a process.
fn descriptors_of(pid: u32) -> Result<u64> {
    let folder = format!("/proc/{pid}/fd");
    let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))?;
    Ok(entries.count() as u64)
}

/// Open descriptors of a process and its children together.
pub(crate) fn descriptors(pid: u32) -> Result<u64> {
    family(pid).into_iter().map(descriptors_of).sum()
}

/// Open descriptors of that one of a process and its children which has the most.
pub(crate) fn most_descriptors(pid: u32) -> Result<u64> {
    let all: Result<Vec<u64>> = family(pid).into_iter().map(descriptors_of).collect();
    Ok(all?.into_iter().max().unwrap_or(0))
}

fn kib(file: &str, name: &str) -> Result<u64> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    let number = number.with_context(|| format!("no {name} in {file}"))?;
    Ok(number.parse()?)
}
