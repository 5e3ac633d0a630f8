//! Tenants: made, asked for, deleted.

use platform_model::TenantName;
use time::OffsetDateTime;

use super::{DeployError, Engine};
use crate::store::records::{AppRecord, ComponentRecord, TenantRecord, UsageRecord};
use crate::store::{Change, StoreError};

impl Engine {
    /// Creates a tenant that is not there; tells whether it did.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn create_tenant(
        &self,
        tenant: &TenantName,
    ) -> Result<(TenantRecord, bool), DeployError> {
        let (tenant, now) = (tenant.clone(), OffsetDateTime::now_utc());
        self.change(move |change| Ok(ensure(change, &tenant, now)?))
            .await
    }

    /// Deletes a tenant that has no apps; tells whether it was there.
    ///
    /// # Errors
    /// [`DeployError::TenantNotEmpty`], or when the store cannot be written.
    pub async fn delete_tenant(&self, tenant: &TenantName) -> Result<bool, DeployError> {
        let name = tenant.clone();
        let deleted = self.change(move |change| delete(change, &name)).await?;
        if deleted {
            self.collect_later().await;
            tracing::info!(%tenant, "tenant deleted");
        }
        Ok(deleted)
    }
}

/// The tenant, which is created where it is not there; tells whether it was.
pub(super) fn ensure(
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

/// Deletes a tenant with what is nobody else's.
fn delete(change: &mut Change<'_>, tenant: &TenantName) -> Result<bool, DeployError> {
    if change.get(&TenantRecord::at(tenant))?.is_none() {
        return Ok(false);
    }
    let usage = change.get(&UsageRecord::at(tenant))?;
    let apps = usage.map_or(0, |usage| usage.apps);
    if apps > 0 {
        return Err(DeployError::TenantNotEmpty(apps));
    }
    change.require_empty(&AppRecord::of(tenant));
    change.delete(&TenantRecord::at(tenant));
    change.delete(&UsageRecord::at(tenant));
    change.delete_all(&ComponentRecord::of(tenant));
    Ok(true)
}
