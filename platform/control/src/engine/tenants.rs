//! Tenants: made, given quotas, deleted.

use platform_model::{HostName, PolicyError, QuotaRangeError, TenantChanges, TenantName};
use time::OffsetDateTime;

use super::{Engine, Expected, Origin, Unexpected, domains};
use crate::store::records::{
    AppRecord, ComponentRecord, IdempotencyRecord, SettingsRecord, Stored, TenantAuditRecord,
    TenantRecord, TokenRecord, UsageRecord,
};
use crate::store::{Change, Records, StoreError};

/// Why a tenant was not changed.
#[derive(Debug, thiserror::Error)]
pub enum TenantError {
    /// There is none.
    #[error("there is no tenant {0}")]
    Unknown(TenantName),
    /// It has apps.
    #[error("the tenant has {0} app(s): delete them first")]
    NotEmpty(u64),
    /// A quota is not possible.
    #[error(transparent)]
    Quotas(#[from] QuotaRangeError),
    /// The policy is not possible.
    #[error("policy: {0}")]
    Policy(#[from] PolicyError),
    /// It is not the one that the caller has seen.
    #[error(transparent)]
    Unexpected(#[from] Unexpected),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Engine {
    /// Creates a tenant that is not there; tells whether it did.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn create_tenant(
        &self,
        origin: &Origin,
        tenant: &TenantName,
    ) -> Result<(TenantRecord, bool), StoreError> {
        let (tenant, now) = (tenant.clone(), OffsetDateTime::now_utc());
        self.change(origin, move |change| ensure(change, &tenant, now))
            .await
    }

    /// Changes what a tenant may have; the tenant as it is then.
    ///
    /// # Errors
    /// When there is no such tenant, it is not the expected one, or what it is to have is not possible.
    pub async fn change_tenant(
        &self,
        origin: &Origin,
        tenant: &TenantName,
        expected: Expected,
        changes: TenantChanges,
    ) -> Result<Stored<TenantRecord>, TenantError> {
        let key = TenantRecord::at(tenant);
        let tenant = tenant.clone();
        let plan = move |change: &mut Change<'_>| {
            let Some(Stored { record, revision }) = change.stored(&key)? else {
                return Err(TenantError::Unknown(tenant.clone()));
            };
            expected.check(Some(revision))?;
            let before = record.clone();
            let record = TenantRecord {
                quotas: changes.quotas.apply(&before.quotas),
                policy: changes.policy.clone().unwrap_or(record.policy),
                ..record
            };
            record.quotas.check()?;
            record.policy.check()?;
            if record != before {
                change.put(&record)?;
            }
            Ok(Stored { record, revision })
        };
        let _served = self.tenants.lock().await;
        let (stored, written) = self.change_at(origin, plan).await?;
        let revision = written.unwrap_or(stored.revision);
        self.serve_tenant(&stored.record.tenant, stored.record.policy.clone());
        Ok(Stored { revision, ..stored })
    }

    /// Deletes a tenant that has no apps.
    ///
    /// # Errors
    /// [`TenantError::Unknown`], [`TenantError::NotEmpty`], or when the store cannot be written.
    pub async fn delete_tenant(
        &self,
        origin: &Origin,
        tenant: &TenantName,
    ) -> Result<(), TenantError> {
        let name = tenant.clone();
        let _turn = self.domain_turn.lock().await;
        let served = self.tenants.lock().await;
        let domains = self.change(origin, move |change| delete(change, &name));
        for domain in domains.await? {
            self.serve_domain(&domain, None);
        }
        self.serve_tenant_no_more(tenant);
        drop(served);
        self.collect_later().await;
        tracing::info!(%tenant, "tenant deleted");
        Ok(())
    }
}

/// The tenant, which is created where it is not there; tells whether it was.
fn ensure(
    change: &mut Change<'_>,
    tenant: &TenantName,
    now: OffsetDateTime,
) -> Result<(TenantRecord, bool), StoreError> {
    if let Some(record) = change.get(&TenantRecord::at(tenant))? {
        return Ok((record, false));
    }
    let record = TenantRecord::new(tenant.clone(), now);
    change.put(&record)?;
    Ok((record, true))
}

/// Creates the default tenant where it is not there.
pub(super) fn ensure_default(records: &Records) -> Result<(), StoreError> {
    let now = OffsetDateTime::now_utc();
    records.change(|change| ensure(change, &TenantName::default(), now).map(drop))?;
    Ok(())
}

/// Sees to it that a tenant is there for what is made in it. The default one always is; another is created where the caller
/// may do that.
pub(super) fn need(
    change: &mut Change<'_>,
    tenant: &TenantName,
    now: OffsetDateTime,
    creates: bool,
) -> Result<(), TenantError> {
    if creates || tenant.is_default() {
        ensure(change, tenant, now)?;
    } else if change.get(&TenantRecord::at(tenant))?.is_none() {
        return Err(TenantError::Unknown(tenant.clone()));
    }
    Ok(())
}

/// Deletes a tenant with what is nobody else's; the domains that were served.
fn delete(change: &mut Change<'_>, tenant: &TenantName) -> Result<Vec<HostName>, TenantError> {
    if change.get(&TenantRecord::at(tenant))?.is_none() {
        return Err(TenantError::Unknown(tenant.clone()));
    }
    let usage = change.get(&UsageRecord::at(tenant))?;
    let apps = usage.map_or(0, |usage| usage.apps);
    if apps > 0 {
        return Err(TenantError::NotEmpty(apps));
    }
    change.require_empty(&AppRecord::of(tenant));
    change.require_empty(&SettingsRecord::of(tenant));
    change.delete(&TenantRecord::at(tenant));
    change.delete(&UsageRecord::at(tenant));
    change.delete_all(&TokenRecord::of(Some(tenant)));
    change.delete_all(&ComponentRecord::of(tenant));
    change.delete_all(&TenantAuditRecord::of(tenant));
    change.delete_all(&IdempotencyRecord::of(tenant));
    Ok(domains::delete_all(change, tenant)?)
}
