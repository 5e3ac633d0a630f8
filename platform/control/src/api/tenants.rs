//! Tenants.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use platform_model::{List, Tenant, TenantName};

use super::Api;
use super::input::OfTenant;
use crate::problem::{ApiError, Code};
use crate::store::records::{Prefix, TenantRecord, UsageRecord};

/// All tenants.
pub(super) async fn list(State(api): State<Api>) -> Result<Json<List<Tenant>>, ApiError> {
    let items = api
        .engine
        .ask(|records| {
            let tenants = records.all::<TenantRecord>(&Prefix::all())?;
            let with_usage = |record: TenantRecord| {
                let usage = records.get(&UsageRecord::at(&record.tenant))?;
                Ok(tenant_of(record, usage.map(|stored| stored.record)))
            };
            tenants.into_iter().map(with_usage).collect()
        })
        .await?;
    Ok(Json(List { items }))
}

/// Creates a tenant: 201, or 200 where it is there.
pub(super) async fn create(
    State(api): State<Api>,
    OfTenant(name): OfTenant,
) -> Result<(StatusCode, Json<Tenant>), ApiError> {
    let (record, created) = api.engine.create_tenant(&name).await?;
    let usage = api
        .engine
        .ask(move |records| records.get(&UsageRecord::at(&name)))
        .await?;
    let tenant = tenant_of(record, usage.map(|stored| stored.record));
    let status = if created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(tenant)))
}

/// Deletes a tenant that has no apps.
pub(super) async fn delete(
    State(api): State<Api>,
    OfTenant(name): OfTenant,
) -> Result<StatusCode, ApiError> {
    if api.engine.delete_tenant(&name).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(unknown(&name))
    }
}

/// A tenant as the API gives it.
fn tenant_of(record: TenantRecord, usage: Option<UsageRecord>) -> Tenant {
    Tenant {
        tenant: record.tenant,
        created_at: record.created_at,
        apps: usage.map_or(0, |usage| usage.apps),
    }
}

/// There is no such tenant.
pub(super) fn unknown(tenant: &TenantName) -> ApiError {
    ApiError::new(Code::TenantUnknown, format!("there is no tenant {tenant}"))
}
