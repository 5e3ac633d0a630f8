//! What `/proc` tells about the processes of a node.

use std::path::PathBuf;
use std::time::Duration;

/// What the open descriptors of a process lead to.
///
/// # Panics
/// When the process is gone.
#[must_use]
pub fn descriptors(pid: u32) -> Vec<PathBuf> {
    let folder = format!("/proc/{pid}/fd");
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("cannot read {folder}: {e}"));
    // A descriptor may be closed between its listing and the look at it.
    entries
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .collect()
}

/// Whether a process has a descriptor of KVM: the device, a VM or a vCPU.
#[must_use]
pub fn has_kvm(pid: u32) -> bool {
    descriptors(pid).iter().any(|path| {
        let path = path.to_string_lossy();
        path.contains("/dev/kvm") || path.contains("anon_inode:kvm")
    })
}

/// Whether a process lives (a zombie does not).
#[must_use]
pub fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name, which is in brackets and may hold anything.
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Processes whose parent is `pid`.
#[must_use]
pub fn children(pid: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|child| field(*child, "PPid").is_some_and(|parent| parent == u64::from(pid)))
        .collect()
}

/// Processor time that a process has used, its own and the kernel's for it, to a hundredth of a second.
#[must_use]
pub fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // `proc_pid_stat(5)`: the name, in brackets, is the second field; 14 and 15 are ticks of 10 ms.
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks = fields.split(' ').skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|n| n.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// Most memory that a process has had resident since [`reset_peak`] or its start, in bytes.
#[must_use]
pub fn peak_bytes(pid: u32) -> u64 {
    field(pid, "VmHWM").unwrap_or_default() * 1024
}

/// Memory that a process has resident, in bytes.
#[must_use]
pub fn resident_bytes(pid: u32) -> u64 {
    field(pid, "VmRSS").unwrap_or_default() * 1024
}

/// Makes [`peak_bytes`] begin again at what is resident now.
///
/// # Panics
/// When the process is not one's own to ask.
pub fn reset_peak(pid: u32) {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
}

/// Kills a process at once, as the kernel does when memory runs out.
///
/// # Panics
/// When there is no such process.
pub fn kill(pid: u32) {
    signal(pid, rustix::process::Signal::KILL);
}

/// Asks a process to end.
///
/// # Panics
/// When there is no such process.
pub fn terminate(pid: u32) {
    signal(pid, rustix::process::Signal::TERM);
}

/// Has a process end as after a bug, with a core file where it may leave one. Its own limit on that is lifted, where this
/// user may do so.
///
/// # Panics
/// When there is no such process.
pub fn abort(pid: u32) {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    // Where it may not be lifted, it holds.
    let _ = prlimit(
        Pid::from_raw(i32::try_from(pid).unwrap()),
        Resource::Core,
        unlimited,
    );
    signal(pid, rustix::process::Signal::ABORT);
}

/// A stretch of a process's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// Where it is, what may be done with it and what it shows, as `/proc/PID/smaps` has it.
    pub name: String,
    /// Whether a core file has it.
    pub dumped: bool,
}

/// The stretches of a process's memory that have `text` in them.
///
/// # Errors
/// When this user may not look at the process's memory.
pub fn memory_with(pid: u32, text: &[u8]) -> std::io::Result<Vec<Stretch>> {
    use std::os::unix::fs::FileExt as _;
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let memory = std::fs::File::open(format!("/proc/{pid}/mem"))?;
    let (mut found, mut name, mut resident) = (Vec::new(), "", true);
    for line in smaps.lines() {
        match line.split_once(char::is_whitespace) {
            Some(("Rss:", size)) => resident = size.trim() != "0 kB",
            Some(("VmFlags:", flags)) if resident => {
                let mut flags = flags.split_whitespace();
                // Neither memory of a device nor what cannot be read.
                if !name.contains(" r") || flags.clone().any(|flag| flag == "io" || flag == "pf") {
                    continue;
                }
                let range = name
                    .split_once(' ')
                    .and_then(|(range, _)| range.split_once('-'));
                let (start, end) = range.unwrap_or_else(|| panic!("no range: {name}"));
                let [start, end] = [start, end].map(|at| u64::from_str_radix(at, 16).unwrap());
                let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
                // What cannot be read, as `[vvar]`, is nobody's memory.
                let read = memory.read_at(&mut bytes, start).unwrap_or(0);
                bytes.truncate(read);
                if bytes.windows(text.len()).any(|window| window == text) {
                    found.push(Stretch {
                        name: name.to_owned(),
                        dumped: !flags.any(|flag| flag == "dd"),
                    });
                }
            }
            Some((first, _)) if !first.ends_with(':') => (name, resident) = (line, true),
            _ => {}
        }
    }
    Ok(found)
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    let id = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(id, signal)
        .unwrap_or_else(|error| panic!("cannot signal process {pid}: {error}"));
}

fn field(pid: u32, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}
