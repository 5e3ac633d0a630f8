//! What a tenant has, against what it may have.

use platform_model::{AppName, Quotas, TenantName};

use super::deploy::Mode;
use crate::store::records::{AppRecord, DeploymentRecord, TenantRecord, UsageRecord};
use crate::store::{Change, Records, StoreError};

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
    pub(super) tokens: i64,
}

/// Adds to what a tenant has, within a change. Where the tenant gets more, its quotas are looked at; having less is always
/// possible.
pub(super) fn charge<E: From<StoreError> + From<QuotaError>>(
    change: &mut Change<'_>,
    tenant: &TenantName,
    cost: Cost,
) -> Result<(), E> {
    let usage = change.get(&UsageRecord::at(tenant))?;
    let quotas = change.get(&TenantRecord::at(tenant))?;
    let usage = with(tenant, usage, quotas.map(|tenant| tenant.quotas), cost)?;
    change.put(&usage)?;
    Ok(())
}

/// Whether a tenant may have more, as things are: asked before work is done that would be in vain.
///
/// # Errors
/// That it may not.
pub(super) fn afford<E: From<StoreError> + From<QuotaError>>(
    records: &Records,
    tenant: &TenantName,
    cost: Cost,
) -> Result<(), E> {
    let usage = records.get(&UsageRecord::at(tenant))?;
    let quotas = records.get(&TenantRecord::at(tenant))?;
    let usage = usage.map(|stored| stored.record);
    with(
        tenant,
        usage,
        quotas.map(|stored| stored.record.quotas),
        cost,
    )?;
    Ok(())
}

/// Whether a tenant may have the memory of a VM more, for an app, beside that of what answers then. Where the new VM takes
/// the place of the app's others, those do not count.
///
/// # Errors
/// That it may not.
pub(super) fn afford_memory<E: From<StoreError> + From<QuotaError>>(
    records: &Records,
    tenant: &TenantName,
    (app, mode): (&AppName, &Mode),
    vm_memory: u64,
) -> Result<(), E> {
    let mut wanted = vm_memory;
    for other in records.all(&AppRecord::of(tenant))? {
        let mut answering = other.answering();
        if other.app == *app && *mode == Mode::Switch {
            answering.clone_from(&other.previews);
        }
        for number in answering {
            let key = DeploymentRecord::at(tenant, &other.app, number);
            if let Some(deployment) = records.get(&key)? {
                wanted = wanted.saturating_add(deployment.record.limits.vm_memory_bytes);
            }
        }
    }
    let quotas = records.get(&TenantRecord::at(tenant))?;
    let quotas = quotas.map(|stored| stored.record.quotas);
    let most = quotas.unwrap_or_default().memory_bytes;
    if wanted <= most {
        return Ok(());
    }
    Err(E::from(QuotaError {
        tenant: tenant.clone(),
        quota: "memory_bytes",
        what: "bytes of memory for its VMs",
        most,
        wanted,
    }))
}

/// What a tenant has with a cost more.
fn with(
    tenant: &TenantName,
    usage: Option<UsageRecord>,
    quotas: Option<Quotas>,
    cost: Cost,
) -> Result<UsageRecord, QuotaError> {
    let mut usage = usage.unwrap_or_else(|| UsageRecord::none(tenant));
    let quotas = quotas.unwrap_or_default();
    let (apps, deployments) = (quotas.apps.into(), quotas.deployments.into());
    let (tokens, disk) = (quotas.tokens.into(), quotas.disk_bytes);
    let table = [
        ("apps", "apps", &mut usage.apps, cost.apps, apps),
        (
            "deployments",
            "deployments",
            &mut usage.deployments,
            cost.deployments,
            deployments,
        ),
        ("tokens", "tokens", &mut usage.tokens, cost.tokens, tokens),
        (
            "disk_bytes",
            "bytes on the disk",
            &mut usage.disk_bytes,
            cost.disk_bytes,
            disk,
        ),
    ];
    for (quota, what, has, cost, most) in table {
        *has = has.saturating_add_signed(cost);
        if cost > 0 && *has > most {
            return Err(QuotaError {
                tenant: tenant.clone(),
                quota,
                what,
                most,
                wanted: *has,
            });
        }
    }
    Ok(usage)
}

/// A size as a cost.
pub(super) fn bytes(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
