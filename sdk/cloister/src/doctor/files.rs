//! Files: how many may be open, and the disk that the data goes to.

use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};

use super::Check;
use crate::quantity::size;

/// A VM has its memory and two eventfds in the daemon, a connection one descriptor.
const COMFORT: u64 = 16_384;

/// Less than this is soon used up.
const LEAST: u64 = 1_024;

/// Judges the limit on open files that a node started from here would have: it raises its own as far as it may.
pub(super) fn limit() -> Check {
    judge_limit(getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX))
}

fn judge_limit(most: u64) -> Check {
    const NAME: &str = "open-files";
    let fix = format!(
        "raise the hard limit: LimitNOFILE={COMFORT} in the node's unit, or nofile in /etc/security/limits.conf"
    );
    match most {
        ..LEAST => Check::fail(NAME, format!("at most {most} (hard limit)"), fix),
        LEAST..COMFORT => {
            let detail = format!("at most {most} (hard limit): a connection needs one, a VM three");
            Check::warn(NAME, detail, fix)
        }
        COMFORT.. => Check::ok(NAME, format!("at most {most}")),
    }
}

/// Judges the disk below the data folder, and whether the folder can be written.
pub(super) fn disk(data: &Path) -> Check {
    const NAME: &str = "disk";
    let folder = nearest(data);
    let shown = folder.display();
    let stat = match rustix::fs::statvfs(&folder) {
        Ok(stat) => stat,
        Err(error) => {
            return Check::fail(
                NAME,
                format!("{shown}: {error}"),
                "choose another folder with --data",
            );
        }
    };
    if let Err(error) = tempfile::tempfile_in(&folder) {
        return Check::fail(
            NAME,
            format!("{shown} cannot be written: {error}"),
            "choose another folder with --data, or its owner",
        );
    }
    judge_disk(&folder, stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn judge_disk(folder: &Path, free: u64) -> Check {
    const NAME: &str = "disk";
    const LEAST: u64 = 64 << 20;
    const COMFORT: u64 = 1 << 30;
    let detail = format!("{} free in {}", size(free), folder.display());
    match free {
        ..LEAST => Check::fail(
            NAME,
            detail,
            "free some, or choose another folder with --data",
        ),
        LEAST..COMFORT => Check::warn(
            NAME,
            detail,
            "enough for few components: each is kept as it came and compiled",
        ),
        COMFORT.. => Check::ok(NAME, detail),
    }
}

/// The folder itself, or the nearest above it that exists.
fn nearest(data: &Path) -> PathBuf {
    let absolute = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
    let found = absolute.ancestors().find(|folder| folder.is_dir());
    found.unwrap_or(Path::new("/")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn limits() {
        assert_eq!(judge_limit(256).state, State::Fail);
        let check = judge_limit(4_096);
        assert_eq!(check.state, State::Warn);
        assert!(check.fix.unwrap().contains("LimitNOFILE"));
        assert_eq!(judge_limit(u64::MAX).state, State::Ok);
    }

    #[test]
    fn disks() {
        assert_eq!(judge_disk(Path::new("/x"), 0).state, State::Fail);
        assert_eq!(judge_disk(Path::new("/x"), 100 << 20).state, State::Warn);
        assert_eq!(
            judge_disk(Path::new("/x"), 5 << 30).detail,
            "5.0 GiB free in /x"
        );
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(nearest(&folder.path().join("a/b")), folder.path());
        assert_eq!(disk(Path::new("/proc/self")).state, State::Fail);
    }
}
