//! Records of format 1, which the first version wrote, made those of format 2. Called once, when such a store is opened.
//!
//! What is new in format 2: values have a revision (the store's own affair), a tenant's usage is kept, and the last number
//! of a deleted app says whose it is.

use std::collections::BTreeMap;

use platform_model::{AppName, DeploymentId, TenantName};

use super::{
    AppRecord, ComponentRecord, DeploymentRecord, LastRecord, Record, TenantRecord, UsageRecord,
    encode,
};

/// Makes all records of format 1 those of format 2; the text says which one cannot be read.
pub(in crate::store) fn migrate(
    old: Vec<(String, Vec<u8>)>,
) -> Result<Vec<(String, Vec<u8>)>, String> {
    let mut usages = BTreeMap::<TenantName, UsageRecord>::new();
    let mut new = Vec::with_capacity(old.len());
    for (key, value) in old {
        let unreadable = || format!("the record {key:?} cannot be read");
        let kind = key.split('/').next().unwrap_or_default();
        let encoded = match kind {
            TenantRecord::KIND => recode::<TenantRecord>(&value, |_| {}),
            ComponentRecord::KIND => recode::<ComponentRecord>(&value, |component| {
                usage_of(&mut usages, &component.tenant).disk_bytes += component.size;
            }),
            AppRecord::KIND => recode::<AppRecord>(&value, |app| {
                usage_of(&mut usages, &app.tenant).apps += 1;
            }),
            DeploymentRecord::KIND => recode::<DeploymentRecord>(&value, |deployment| {
                usage_of(&mut usages, &deployment.tenant).deployments += 1;
            }),
            LastRecord::KIND => last(&key, &value),
            _ => None,
        };
        let (encoded, value) = encoded.ok_or_else(unreadable)?;
        if encoded != key {
            return Err(unreadable());
        }
        new.push((encoded, value));
    }
    for usage in usages.values() {
        let (key, value) = encode(usage).map_err(|error| error.to_string())?;
        new.push((key.as_str().to_owned(), value));
    }
    Ok(new)
}

/// The usage of a tenant so far.
fn usage_of<'a>(
    usages: &'a mut BTreeMap<TenantName, UsageRecord>,
    tenant: &TenantName,
) -> &'a mut UsageRecord {
    let none = || UsageRecord::none(tenant);
    usages.entry(tenant.clone()).or_insert_with(none)
}

/// Reads a record whose fields were the same or fewer, and writes it again.
fn recode<R: Record>(value: &[u8], look: impl FnOnce(&R)) -> Option<(String, Vec<u8>)> {
    let record = serde_json::from_slice::<R>(value).ok()?;
    look(&record);
    let (key, value) = encode(&record).ok()?;
    Some((key.as_str().to_owned(), value))
}

/// The last number of an app: in format 1 it was a number alone.
fn last(key: &str, value: &[u8]) -> Option<(String, Vec<u8>)> {
    let mut parts = key.split('/').skip(1);
    let record = LastRecord {
        tenant: parts.next()?.parse().ok()?,
        app: parts.next()?.parse::<AppName>().ok()?,
        last: serde_json::from_slice::<DeploymentId>(value).ok()?,
    };
    let (key, value) = encode(&record).ok()?;
    Some((key.as_str().to_owned(), value))
}
