//! The processor: what guests need, and what they are better with.

use super::Check;

const NAME: &str = "processor";

/// Without these a guest does not start: the boot state and the clock depend on them.
const NEEDED: [&str; 5] = ["lm", "nx", "tsc", "cx16", "sse4_1"];

/// Without these a guest works, with what is said.
const WANTED: [(&str, &str); 5] = [
    ("constant_tsc", "clocks may run unevenly"),
    ("nonstop_tsc", "clocks may stop in idle states"),
    ("avx2", "vector code is slower"),
    ("fsgsbase", "thread switches are slower"),
    ("rdrand", "random numbers have the host's seed alone"),
];

/// The flags of the first processor.
fn flags(cpuinfo: &str) -> Vec<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("flags"));
    let list = line
        .and_then(|line| line.split_once(':'))
        .map(|(_, list)| list);
    list.unwrap_or_default().split_whitespace().collect()
}

/// Judges `/proc/cpuinfo`.
pub(super) fn check(cpuinfo: &str) -> Check {
    if cfg!(not(target_arch = "x86_64")) {
        return Check::fail(
            NAME,
            std::env::consts::ARCH,
            "use an x86-64 host: guests are x86-64 programs",
        );
    }
    let flags = flags(cpuinfo);
    if flags.is_empty() {
        return Check::warn(NAME, "/proc/cpuinfo cannot be read", "mount /proc");
    }
    let count = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
    let model = model
        .and_then(|line| line.split_once(':'))
        .map_or("unknown", |(_, name)| name.trim());
    let missing: Vec<_> = NEEDED
        .into_iter()
        .filter(|flag| !flags.contains(flag))
        .collect();
    if !missing.is_empty() {
        let detail = format!("{model} lacks {}", missing.join(", "));
        return Check::fail(
            NAME,
            detail,
            "use a processor of 2013 or later; in a virtual machine pass the host's model through",
        );
    }
    let lacking: Vec<_> = WANTED
        .into_iter()
        .filter(|(flag, _)| !flags.contains(flag))
        .collect();
    let detail = format!("{count} × {model}");
    if lacking.is_empty() {
        return Check::ok(NAME, detail);
    }
    let without: Vec<_> = lacking
        .iter()
        .map(|(flag, effect)| format!("{flag} ({effect})"))
        .collect();
    let detail = format!("{detail}, without {}", without.join(", "));
    Check::warn(
        NAME,
        detail,
        "in a virtual machine pass the host's processor model through",
    )
}

/// Whether this host is itself a virtual machine: everything works, exits from a VM cost more.
pub(super) fn nested(cpuinfo: &str) -> Check {
    const NAME: &str = "virtualization";
    let flags = flags(cpuinfo);
    let own = if flags.contains(&"vmx") {
        "VT-x"
    } else if flags.contains(&"svm") {
        "SVM"
    } else {
        "neither VT-x nor SVM is shown"
    };
    if flags.contains(&"hypervisor") {
        let detail = format!(
            "this host is a virtual machine ({own}): an exit from a guest costs tens of microseconds"
        );
        return Check::warn(
            NAME,
            detail,
            "measure on bare metal; nothing else is to be done",
        );
    }
    Check::ok(NAME, format!("bare metal ({own})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    const FULL: &str = "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: lm nx tsc cx16 sse4_1 constant_tsc nonstop_tsc \
                        avx2 fsgsbase rdrand svm\nprocessor\t: 1\n";

    #[test]
    fn processors() {
        let check = super::check(FULL);
        assert_eq!(
            (check.state, check.detail.as_str()),
            (State::Ok, "2 × Some CPU")
        );
        let check = super::check(&FULL.replace(" avx2", ""));
        assert_eq!(check.state, State::Warn);
        assert!(check.detail.contains("without avx2 (vector"), "{check:?}");
        let check = super::check(&FULL.replace(" nx", ""));
        assert_eq!(
            (check.state, check.detail.as_str()),
            (State::Fail, "Some CPU lacks nx")
        );
        assert_eq!(super::check("").state, State::Warn);
    }

    #[test]
    fn virtual_or_not() {
        assert_eq!(nested(FULL).state, State::Ok);
        assert_eq!(
            nested(&FULL.replace("svm", "svm hypervisor")).state,
            State::Warn
        );
    }
}
