//! Whether routes lead to apps that are there, over hosts that are theirs, and whether a domain is that of one tenant.

use std::collections::{BTreeMap, BTreeSet};

use super::Report;
use super::records::{Content, key};
use crate::store::records::Stored;

pub(super) fn check(content: &Content, report: &mut Report) {
    routes(content, report);
    domains(content, report);
}

/// Routes are of apps that are there, and on hosts that are theirs.
fn routes(content: &Content, report: &mut Report) {
    let apps = content.apps.iter().map(|app| &app.record);
    let apps: BTreeSet<_> = apps.map(|app| (&app.tenant, &app.app)).collect();
    let domains = content.domains.iter().map(|domain| &domain.record);
    let proved = domains.filter(|domain| domain.proved_at.is_some());
    let proved: BTreeSet<_> = proved.map(|d| (&d.tenant, &d.domain)).collect();
    for Stored { record, .. } in &content.routes {
        if !apps.contains(&(&record.tenant, &record.app)) {
            report.problem(key(record), "its app is not there".to_owned());
        }
        let own = record.app.host(&record.tenant);
        for host in record.routes.iter().map(|route| &route.host) {
            if host.as_str() != own && !proved.contains(&(&record.tenant, host)) {
                let why = format!("it has a route on {host}, which is not its tenant's");
                report.problem(key(record), why);
            }
        }
    }
}

/// A domain that is proved has one owner, and what is of a domain is of one that is there.
fn domains(content: &Content, report: &mut Report) {
    let owners = content.domain_owners.iter().map(|owner| &owner.record);
    let mut owners: BTreeMap<_, _> = owners.map(|owner| (&owner.domain, owner)).collect();
    let mut there = BTreeSet::new();
    for Stored { record, .. } in &content.domains {
        there.insert((&record.tenant, &record.domain));
        let owner = owners.get(&record.domain);
        let owns = owner.is_some_and(|owner| owner.tenant == record.tenant);
        match (record.proved_at.is_some(), owns) {
            (true, true) => _ = owners.remove(&record.domain),
            (true, false) => {
                report.problem(
                    key(record),
                    "it is proved, and is not its tenant's".to_owned(),
                );
            }
            (false, true) => {
                report.problem(key(record), "it is its tenant's without a proof".to_owned());
            }
            (false, false) => {}
        }
    }
    for owner in owners.into_values() {
        report.problem(key(owner), "its tenant has no such domain".to_owned());
    }
    let certificates = content.certificates.iter().map(|c| &c.record);
    let of_domains = certificates.map(|c| (&c.tenant, &c.domain, key(c)));
    let issuances = content.issuances.iter().map(|issuance| &issuance.record);
    let issuances = issuances.map(|i| (&i.tenant, &i.domain, key(i)));
    for (tenant, domain, key) in of_domains.chain(issuances) {
        if !there.contains(&(tenant, domain)) {
            report.problem(key, "its domain is not there".to_owned());
        }
    }
}
