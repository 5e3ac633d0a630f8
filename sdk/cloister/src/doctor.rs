//! `doctor`: whether this host can run a node, what is wrong where it cannot, and what to do.
//!
//! Each check looks at one thing and judges it by itself; none of them changes anything. What is read is passed in, so
//! that the judgement can be tested on hosts that are not like this one.

mod files;
mod kvm;
mod memory;
mod node;
mod processor;
mod store;
mod system;

use std::path::Path;

use serde::Serialize;

use crate::args::{DoctorArgs, Global};
use crate::failure::CliError;
use crate::table::{Table, text};
use crate::terminal::{Terminal, Tone};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// As it should be.
    Ok,
    /// Works, and something should be known.
    Warn,
    /// A node does not work like this.
    Fail,
}

impl State {
    fn mark(self) -> (&'static str, Tone) {
        match self {
            Self::Ok => ("ok", Tone::Good),
            Self::Warn => ("warn", Tone::Warn),
            Self::Fail => ("FAIL", Tone::Bad),
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// What was looked at; a stable word.
    pub(crate) name: &'static str,
    /// How it is.
    pub(crate) state: State,
    /// What was found.
    pub(crate) detail: String,
    /// What to do, where something is to be done.
    pub(crate) fix: Option<String>,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Ok,
            detail: detail.into(),
            fix: None,
        }
    }

    fn warn(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Warn,
            detail: detail.into(),
            fix: Some(fix.into()),
        }
    }

    fn fail(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Fail,
            detail: detail.into(),
            fix: Some(fix.into()),
        }
    }
}

/// What `doctor --json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    ok: bool,
    version: &'static str,
    checks: &'a [Check],
}

/// Looks at this host. `data` is the folder where a node would keep its data; it need not exist.
pub(crate) fn host(data: &Path) -> Vec<Check> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    vec![
        kvm::check(Path::new("/dev/kvm")),
        processor::check(&read("/proc/cpuinfo")),
        processor::nested(&read("/proc/cpuinfo")),
        system::kernel(&read("/proc/sys/kernel/osrelease")),
        system::memfd(),
        memory::available(&read("/proc/meminfo"), &read("/sys/fs/cgroup/memory.max")),
        memory::sharing(&read("/sys/kernel/mm/ksm/run"), &read("/proc/swaps")),
        files::limit(),
        files::disk(data),
        system::namespaces(&read("/proc/sys/user/max_user_namespaces")),
    ]
}

/// Prints every check; an error when one of them failed.
pub(crate) async fn run(
    args: &DoctorArgs,
    global: &Global,
    terminal: &Terminal,
) -> Result<(), CliError> {
    if args.store {
        return store::run(&args.data, terminal);
    }
    let mut checks = host(&args.data);
    checks.extend(node::checks(global).await);
    let failed = checks
        .iter()
        .filter(|check| check.state == State::Fail)
        .count();
    if terminal.json {
        let report = Report {
            ok: failed == 0,
            version: env!("CARGO_PKG_VERSION"),
            checks: &checks,
        };
        terminal.print_json(&report)?;
    } else {
        terminal.print(&table(&checks, terminal))?;
    }
    if failed > 0 {
        return Err(CliError::Doctor(failed));
    }
    if !terminal.json {
        let warned = checks
            .iter()
            .filter(|check| check.state == State::Warn)
            .count();
        let rest = if warned == 0 {
            String::new()
        } else {
            format!(", {warned} to know about")
        };
        terminal.print(&format!(
            "\n{} this host can run a node{rest}",
            terminal.paint(Tone::Good, "✓")
        ))?;
    }
    Ok(())
}

/// The checks in a table, with what to do below those where something is to be done.
fn table(checks: &[Check], terminal: &Terminal) -> String {
    let mut table = Table::new(terminal, [text("CHECK"), text("STATE"), text("FOUND")]);
    for check in checks {
        let (mark, tone) = check.state.mark();
        let found = match &check.fix {
            Some(fix) => format!("{}\n→ {fix}", check.detail),
            None => check.detail.clone(),
        };
        table.toned([
            (check.name.to_owned(), None),
            (mark.to_owned(), Some(tone)),
            (found, None),
        ]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::Color;

    #[test]
    fn the_host_of_this_test_is_looked_at() {
        let checks = host(Path::new("."));
        let names: std::collections::BTreeSet<_> = checks.iter().map(|check| check.name).collect();
        assert_eq!(names.len(), checks.len(), "each name once");
        for check in &checks {
            assert!(!check.detail.is_empty(), "{check:?}");
            assert_eq!(check.fix.is_none(), check.state == State::Ok, "{check:?}");
        }
    }

    #[test]
    fn shapes() {
        let checks = [
            Check::ok("kvm", "fine"),
            Check::fail("memory", "none", "buy some"),
        ];
        let json = serde_json::to_value(Report {
            ok: false,
            version: "1",
            checks: &checks,
        })
        .unwrap();
        assert_eq!(json["ok"], false);
        assert_eq!(json["checks"][0]["state"], "ok");
        assert_eq!(json["checks"][1]["fix"], "buy some");
        let text = table(&checks, &Terminal::new(false, Color::Never));
        assert_eq!(
            text,
            "CHECK   STATE  FOUND\nkvm     ok     fine\nmemory  FAIL   none\n               → buy some"
        );
    }
}
