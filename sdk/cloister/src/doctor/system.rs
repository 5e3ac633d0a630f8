//! The kernel, and what of it a node uses beside KVM.

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::Check;

/// The oldest kernel that a node is meant for: the first long-term one with all that it calls.
const OLDEST: (u32, u32) = (5, 10);

/// Judges the kernel's version.
pub(super) fn kernel(release: &str) -> Check {
    const NAME: &str = "kernel";
    let release = release.trim();
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return Check::warn(
            NAME,
            format!("version {release:?} cannot be read"),
            "mount /proc",
        );
    };
    if (major, minor) < OLDEST {
        let fix = format!("use Linux {}.{} or later", OLDEST.0, OLDEST.1);
        return Check::fail(NAME, format!("Linux {release}"), fix);
    }
    Check::ok(NAME, format!("Linux {release}"))
}

/// Makes memory as a VM's rings are made of, and seals it.
pub(super) fn memfd() -> Check {
    const NAME: &str = "sealed-memory";
    let made = memfd_create("doctor", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .and_then(|memory| fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW));
    match made {
        Ok(()) => Check::ok(NAME, "memfd_create and seals work"),
        Err(error) => {
            let detail = format!("memory cannot be made and sealed: {error}");
            Check::fail(
                NAME,
                detail,
                "allow memfd_create and fcntl in the seccomp profile of this container",
            )
        }
    }
}

/// Judges whether the compiler can have namespaces of its own.
pub(super) fn namespaces(max_user: &str) -> Check {
    const NAME: &str = "namespaces";
    match max_user.trim().parse::<u64>() {
        Ok(0) | Err(_) => Check::warn(
            NAME,
            "no user namespaces: the compiler is confined by its limits alone",
            "`sudo sysctl user.max_user_namespaces=10000`",
        ),
        Ok(_) => Check::ok(NAME, "user namespaces can be made"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn versions() {
        assert_eq!(kernel("6.1.0-18-amd64\n").detail, "Linux 6.1.0-18-amd64");
        assert_eq!(kernel("5.10").state, State::Ok);
        assert_eq!(kernel("5.4.0-generic").state, State::Fail);
        assert_eq!(kernel("4.19.1").state, State::Fail);
        assert_eq!(kernel("").state, State::Warn);
    }

    #[test]
    fn what_the_kernel_offers() {
        assert_eq!(memfd().state, State::Ok);
        assert_eq!(namespaces("0\n").state, State::Warn);
        assert_eq!(namespaces("100").state, State::Ok);
    }
}
