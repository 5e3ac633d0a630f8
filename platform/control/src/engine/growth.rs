//! What a deployment wants more than the one that it is to take the place of: told before it gets it.

use std::collections::BTreeSet;

use platform_model::{Growth, LimitGrowth, Limits};

use crate::store::records::DeploymentRecord;

/// What `after` wants more than `before`.
pub(super) fn growth(before: &DeploymentRecord, after: &DeploymentRecord) -> Growth {
    let hosts = after.allow_hosts.iter();
    let hosts = hosts.filter(|host| !before.allow_hosts.contains(host));
    let imports = match (&before.imports, &after.imports) {
        (Some(before), Some(after)) => {
            let had = packages(before);
            let wants = packages(after);
            wants
                .difference(&had)
                .map(|&name| name.to_owned())
                .collect()
        }
        // Nobody looked at the imports of one of them.
        _ => Vec::new(),
    };
    let limits = amounts(&before.limits).into_iter();
    let limits = limits.zip(amounts(&after.limits));
    let limits = limits.filter_map(|((limit, from), (_, to))| {
        let limit = limit.to_owned();
        (to > from).then_some(LimitGrowth { limit, from, to })
    });
    Growth {
        allow_hosts: hosts.cloned().collect(),
        imports,
        limits: limits.collect(),
    }
}

/// The packages of interfaces: `wasi:sockets` of `wasi:sockets/tcp`.
fn packages(imports: &[String]) -> BTreeSet<&str> {
    let package = |import: &'_ String| import.find('/').unwrap_or(import.len());
    let packages = imports.iter().map(|import| (import, package(import)));
    packages
        .filter_map(|(import, end)| import.get(..end))
        .collect()
}

/// The limits that a deployment costs others, with their names as in JSON.
fn amounts(limits: &Limits) -> [(&'static str, u64); 8] {
    [
        ("memory_bytes", limits.memory_bytes),
        ("vm_memory_bytes", limits.vm_memory_bytes),
        ("cpu_ms", limits.cpu_ms),
        ("wall_ms", limits.wall_ms),
        ("post_return_ms", limits.post_return_ms),
        ("concurrency", limits.concurrency.into()),
        ("request_body_bytes", limits.request_body_bytes),
        ("scratch_bytes", limits.scratch_bytes),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use platform_model::{DeploymentId, Digest};
    use time::OffsetDateTime;

    use super::*;

    fn record(hosts: &[&str], imports: Option<&[&str]>, cpu_ms: u64) -> DeploymentRecord {
        DeploymentRecord {
            tenant: "t".parse().unwrap(),
            app: "a".parse().unwrap(),
            deployment: DeploymentId(1),
            digest: Digest::from_sha256([0; 32]),
            env: BTreeMap::new(),
            config: BTreeMap::new(),
            secrets: BTreeMap::new(),
            allow_hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
            limits: Limits {
                cpu_ms,
                ..Limits::default()
            },
            isolation: platform_model::Isolation::default(),
            scale: platform_model::Scale::default(),
            health: None,
            growth: Growth::default(),
            imports: imports.map(|names| names.iter().map(|&name| name.to_owned()).collect()),
            created_at: OffsetDateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn more_is_growth_and_less_is_none() {
        let http: &[&str] = &["wasi:http/types", "wasi:io/streams"];
        let sockets: &[&str] = &["wasi:http/outgoing-handler", "wasi:sockets/tcp"];
        let before = record(&["a.example"], Some(http), 10);
        let grown = growth(
            &before,
            &record(&["a.example", "b.example"], Some(sockets), 20),
        );
        let told = "host b.example, imports wasi:sockets, cpu_ms 20 instead of 10";
        assert_eq!(grown.to_string(), told);
        assert!(growth(&before, &record(&[], Some(http), 5)).is_empty());
        let unknown = record(&["a.example"], None, 10);
        assert!(growth(&unknown, &before).is_empty());
        assert!(growth(&before, &unknown).is_empty());
    }
}
