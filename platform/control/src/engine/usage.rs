//! What a tenant has, against what it may have.

use platform_model::TenantName;

use crate::store::records::{TenantRecord, UsageRecord};
use crate::store::{Change, StoreError};

/// A tenant would have more than it may.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "tenant {tenant} may have {most} {what} and would have {wanted}: delete what is not needed, or have the quota {quota} raised"
)]
pub struct QuotaError {
    /// The tenant.
    pub tenant: TenantName,
    /// The quota, as in JSON.
    pub quota: &'static str,
    /// What it is of.
    pub what: &'static str,
    /// The quota's value.
    pub most: u64,
    /// What the tenant would have.
    pub wanted: u64,
}

/// What a change gives a tenant, or, below zero, takes from it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) apps: i64,
    pub(super) deployments: i64,
    pub(super) disk_bytes: i64,
}

/// Adds to what a tenant has, within a change. Where the tenant gets more, its quotas are looked at; having less is always
/// possible.
pub(super) fn charge<E: From<StoreError> + From<QuotaError>>(
    change: &mut Change<'_>,
    tenant: &TenantName,
    cost: Cost,
) -> Result<(), E> {
    let before = change.get(&UsageRecord::at(tenant))?;
    let mut usage = before.unwrap_or_else(|| UsageRecord::none(tenant));
    let quotas = change.get(&TenantRecord::at(tenant))?;
    let quotas = quotas.map(|tenant| tenant.quotas).unwrap_or_default();
    let table = [
        (
            &mut usage.apps,
            cost.apps,
            u64::from(quotas.apps),
            ("apps", "apps"),
        ),
        (
            &mut usage.deployments,
            cost.deployments,
            u64::from(quotas.deployments),
            ("deployments", "deployments"),
        ),
        (
            &mut usage.disk_bytes,
            cost.disk_bytes,
            quotas.disk_bytes,
            ("disk_bytes", "bytes on the disk"),
        ),
    ];
    for (has, cost, most, (quota, what)) in table {
        *has = has.saturating_add_signed(cost);
        if cost > 0 && *has > most {
            return Err(E::from(QuotaError {
                tenant: tenant.clone(),
                quota,
                what,
                most,
                wanted: *has,
            }));
        }
    }
    change.put(&usage)?;
    Ok(())
}

/// A size as a cost.
pub(super) fn bytes(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
