//! Whether records lead where they say, and whether what is counted is what there is.

use std::collections::{BTreeMap, BTreeSet};

use platform_model::{AppName, TenantName};

use super::{Report, hosts};
use crate::store::records::{
    AcmeAccountRecord, AppRecord, AuditRecord, CanaryRecord, CertificateRecord, ComponentRecord,
    DeploymentRecord, DomainOwnerRecord, DomainRecord, HistoryRecord, IdempotencyRecord,
    IssuanceRecord, LastRecord, Page, Prefix, Record, RoutesRecord, SecretRecord, SettingsRecord,
    Stored, TenantAuditRecord, TenantRecord, TokenRecord, UsageRecord,
};
use crate::store::{Records, StoreError};

/// Records that are read at once.
const PAGE: usize = 1_000;

/// All records of a store.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) tenants: Vec<Stored<TenantRecord>>,
    pub(super) usages: Vec<Stored<UsageRecord>>,
    pub(super) components: Vec<Stored<ComponentRecord>>,
    pub(super) apps: Vec<Stored<AppRecord>>,
    pub(super) deployments: Vec<Stored<DeploymentRecord>>,
    pub(super) lasts: Vec<Stored<LastRecord>>,
    pub(super) settings: Vec<Stored<SettingsRecord>>,
    pub(super) secrets: Vec<Stored<SecretRecord>>,
    pub(super) tokens: Vec<Stored<TokenRecord>>,
    pub(super) tenant_audits: Vec<Stored<TenantAuditRecord>>,
    pub(super) audits: Vec<Stored<AuditRecord>>,
    pub(super) requests: Vec<Stored<IdempotencyRecord>>,
    pub(super) history: Vec<Stored<HistoryRecord>>,
    pub(super) canaries: Vec<Stored<CanaryRecord>>,
    pub(super) routes: Vec<Stored<RoutesRecord>>,
    pub(super) domains: Vec<Stored<DomainRecord>>,
    pub(super) domain_owners: Vec<Stored<DomainOwnerRecord>>,
    pub(super) certificates: Vec<Stored<CertificateRecord>>,
    pub(super) issuances: Vec<Stored<IssuanceRecord>>,
    pub(super) accounts: Vec<Stored<AcmeAccountRecord>>,
}

impl Content {
    /// Reads them all.
    pub(super) fn read(records: &Records) -> Result<Self, StoreError> {
        Ok(Self {
            tenants: all(records)?,
            usages: all(records)?,
            components: all(records)?,
            apps: all(records)?,
            deployments: all(records)?,
            lasts: all(records)?,
            settings: all(records)?,
            secrets: all(records)?,
            tokens: all(records)?,
            tenant_audits: all(records)?,
            audits: all(records)?,
            requests: all(records)?,
            history: all(records)?,
            canaries: all(records)?,
            routes: all(records)?,
            domains: all(records)?,
            domain_owners: all(records)?,
            certificates: all(records)?,
            issuances: all(records)?,
            accounts: all(records)?,
        })
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        let counts = [
            self.tenants.len(),
            self.usages.len(),
            self.components.len(),
            self.apps.len(),
            self.deployments.len(),
            self.lasts.len(),
            self.settings.len(),
            self.secrets.len(),
            self.tokens.len(),
            self.tenant_audits.len(),
            self.audits.len(),
            self.requests.len(),
            self.history.len(),
            self.canaries.len(),
            self.routes.len(),
            self.domains.len(),
            self.domain_owners.len(),
            self.certificates.len(),
            self.issuances.len(),
            self.accounts.len(),
        ];
        counts.iter().sum::<usize>() as u64
    }
}

/// All records of a kind with their revisions.
fn all<R: Record>(records: &Records) -> Result<Vec<Stored<R>>, StoreError> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let Page { items, next } = records.page(&Prefix::all(), after.as_deref(), PAGE)?;
        all.extend(items);
        match next {
            Some(next) => after = Some(next),
            None => return Ok(all),
        }
    }
}

/// Looks at every record.
pub(super) fn check(content: &Content, report: &mut Report) {
    tenants_are_there(content, report);
    apps(content, report);
    deployments(content, report);
    releases(content, report);
    secrets(content, report);
    hosts::check(content, report);
    usages(content, report);
}

/// The key of a record, as text.
pub(super) fn key<R: Record>(record: &R) -> String {
    record.key().as_str().to_owned()
}

/// What is of a tenant is of one that is there.
fn tenants_are_there(content: &Content, report: &mut Report) {
    let tenants: BTreeSet<_> = content.tenants.iter().map(|t| &t.record.tenant).collect();
    let mut need = |tenant: &TenantName, key: String| {
        if !tenants.contains(tenant) {
            report.problem(key, format!("there is no tenant {tenant}"));
        }
    };
    for Stored { record, .. } in &content.apps {
        need(&record.tenant, key(record));
    }
    for Stored { record, .. } in &content.components {
        need(&record.tenant, key(record));
    }
    for Stored { record, .. } in &content.settings {
        need(&record.tenant, key(record));
    }
    for Stored { record, .. } in &content.usages {
        need(&record.tenant, key(record));
    }
    for Stored { record, .. } in &content.domains {
        need(&record.tenant, key(record));
    }
    for Stored { record, .. } in &content.tenant_audits {
        need(&record.log, key(record));
    }
    for Stored { record, .. } in &content.tokens {
        if let Some(tenant) = record.id.tenant() {
            need(tenant, key(record));
        }
    }
    for Stored { record, .. } in &content.tokens {
        if record.scope.tenant() != record.id.tenant() {
            let why = format!("it is over {}, and its id says another", record.scope);
            report.problem(key(record), why);
        }
    }
}

/// Apps point at deployments that are there, and count them.
fn apps(content: &Content, report: &mut Report) {
    let mut numbers = BTreeMap::<(&TenantName, &AppName), BTreeSet<u64>>::new();
    for Stored { record, .. } in &content.deployments {
        let of = (&record.tenant, &record.app);
        numbers.entry(of).or_default().insert(record.deployment.0);
    }
    let none = BTreeSet::new();
    for Stored { record, .. } in &content.apps {
        let of = (&record.tenant, &record.app);
        let has = numbers.get(&of).unwrap_or(&none);
        for number in record.answering().into_iter().chain([record.active]) {
            if !has.contains(&number.0) {
                let why = format!("it points at deployment {number}, which is not there");
                report.problem(key(record), why);
            }
        }
        if record.deployments != has.len() as u64 {
            let (says, are) = (record.deployments, has.len());
            report.problem(
                key(record),
                format!("it counts {says} deployments, there are {are}"),
            );
        }
        if has.last().is_some_and(|last| *last > record.last.0) {
            let why = format!(
                "it has given out numbers up to {}, and there is a higher one",
                record.last
            );
            report.problem(key(record), why);
        }
        numbers.remove(&of);
    }
    for ((tenant, app), has) in numbers {
        let why = format!("{} deployment(s) of an app that is not there", has.len());
        report.problem(format!("deployment/{tenant}/{app}"), why);
    }
}

/// History and canaries are of apps that are there, and a canary answers its part.
fn releases(content: &Content, report: &mut Report) {
    let apps = content.apps.iter().map(|app| &app.record);
    let apps: BTreeMap<_, _> = apps.map(|app| ((&app.tenant, &app.app), app)).collect();
    for Stored { record, .. } in &content.history {
        if !apps.contains_key(&(&record.tenant, &record.app)) {
            report.problem(key(record), "its app is not there".to_owned());
        }
    }
    for Stored { record, .. } in &content.canaries {
        match apps.get(&(&record.tenant, &record.app)) {
            None => report.problem(key(record), "its app is not there".to_owned()),
            Some(app) if app.traffic() != record.traffic() => {
                let (has, wants) = (app.traffic(), record.traffic());
                let why = format!("it is to share {wants}, and its app has {has}");
                report.problem(key(record), why);
            }
            Some(_) => {}
        }
    }
}

/// Deployments have their components, and were written in the order of their numbers.
fn deployments(content: &Content, report: &mut Report) {
    let components = content.components.iter().map(|component| &component.record);
    let components: BTreeSet<_> = components.map(|c| (&c.tenant, c.digest)).collect();
    let secrets: BTreeSet<_> = content.secrets.iter().map(|s| key(&s.record)).collect();
    let mut before: Option<&Stored<DeploymentRecord>> = None;
    for stored in &content.deployments {
        let record = &stored.record;
        if !components.contains(&(&record.tenant, record.digest)) {
            let why = format!("its tenant has no component {}", record.digest);
            report.problem(key(record), why);
        }
        for (name, version) in &record.secrets {
            let at = SecretRecord::at(&record.tenant, &record.app, name, *version);
            if !secrets.contains(at.as_str()) {
                let why =
                    format!("it has the secret {name} (version {version}), which is not there");
                report.problem(key(record), why);
            }
        }
        let same = |other: &&Stored<DeploymentRecord>| {
            (&other.record.tenant, &other.record.app) == (&record.tenant, &record.app)
        };
        if let Some(before) = before.filter(same)
            && before.revision >= stored.revision
        {
            let why = format!(
                "it was written before deployment {}",
                before.record.deployment
            );
            report.problem(key(record), why);
        }
        before = Some(stored);
    }
}

/// Settings have the values of their secrets, and a value is of something.
fn secrets(content: &Content, report: &mut Report) {
    let values: BTreeSet<_> = content.secrets.iter().map(|s| key(&s.record)).collect();
    let mut used = BTreeSet::new();
    for Stored { record, .. } in &content.settings {
        for (name, version) in record.versions() {
            let at = SecretRecord::at(&record.tenant, &record.app, &name, version);
            if !values.contains(at.as_str()) {
                let why =
                    format!("it has the secret {name} (version {version}), which is not there");
                report.problem(key(record), why);
            }
            if version > record.last_version {
                let why = format!("the secret {name} has a version that was not given out");
                report.problem(key(record), why);
            }
            used.insert(at.as_str().to_owned());
        }
    }
    for Stored { record, .. } in &content.deployments {
        for (name, version) in &record.secrets {
            let at = SecretRecord::at(&record.tenant, &record.app, name, *version);
            used.insert(at.as_str().to_owned());
        }
    }
    for value in values.difference(&used) {
        report.leftover(value, "no app and no deployment has it any more");
    }
}

/// What tenants have is what their usage says.
fn usages(content: &Content, report: &mut Report) {
    let mut counted = Counted::default();
    let apps = content
        .apps
        .iter()
        .map(|app| (&app.record.tenant, &app.record.app));
    let settings = content.settings.iter();
    let settings = settings.map(|settings| (&settings.record.tenant, &settings.record.app));
    // An app that has only settings counts as one.
    for (tenant, _) in apps.chain(settings).collect::<BTreeSet<_>>() {
        counted.of(tenant).apps += 1;
    }
    for Stored { record, .. } in &content.deployments {
        counted.of(&record.tenant).deployments += 1;
    }
    for Stored { record, .. } in &content.components {
        counted.of(&record.tenant).disk_bytes += record.disk_bytes();
    }
    for Stored { record, .. } in &content.tokens {
        if let Some(tenant) = record.id.tenant() {
            counted.of(tenant).tokens += 1;
        }
    }
    for Stored { record, .. } in &content.usages {
        let there_is = counted.0.remove(&record.tenant);
        let there_is = there_is.unwrap_or_else(|| UsageRecord::none(&record.tenant));
        if there_is != *record {
            report.problem(
                key(record),
                format!("it says {record:?}, and there is {there_is:?}"),
            );
        }
    }
    for usage in counted.0.into_values() {
        report.problem(
            key(&usage),
            format!("it is not there, and there is {usage:?}"),
        );
    }
}

/// What was counted of each tenant.
#[derive(Default)]
struct Counted(BTreeMap<TenantName, UsageRecord>);

impl Counted {
    fn of(&mut self, tenant: &TenantName) -> &mut UsageRecord {
        let none = || UsageRecord::none(tenant);
        self.0.entry(tenant.clone()).or_insert_with(none)
    }
}
