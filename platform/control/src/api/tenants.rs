//! Tenants.

use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use platform_model::{List, Tenant, TenantName};
use time::OffsetDateTime;

use super::Api;
use super::input::OfTenant;
use crate::problem::{ApiError, Code};
use crate::store::StoreError;

/// All tenants.
pub(super) async fn list(State(api): State<Api>) -> Result<Json<List<Tenant>>, ApiError> {
    let items = api
        .engine
        .ask(|store| {
            let mut apps = HashMap::<_, u64>::new();
            for app in store.apps(None)? {
                *apps.entry(app.tenant).or_default() += 1;
            }
            let tenants = store.tenants()?.into_iter();
            Ok(tenants
                .map(|record| Tenant {
                    apps: apps.get(&record.tenant).copied().unwrap_or_default(),
                    tenant: record.tenant,
                    created_at: record.created_at,
                })
                .collect())
        })
        .await?;
    Ok(Json(List { items }))
}

/// Creates a tenant: 201, or 200 where it is there.
pub(super) async fn create(
    State(api): State<Api>,
    OfTenant(name): OfTenant,
) -> Result<(StatusCode, Json<Tenant>), ApiError> {
    let create = move |store: &dyn crate::store::MetadataStore| {
        let now = OffsetDateTime::now_utc();
        let created = store.create_tenant(&name, now)?;
        let created_at = store.tenant(&name)?.map_or(now, |record| record.created_at);
        let apps = store.apps(Some(&name))?.len() as u64;
        let tenant = Tenant {
            tenant: name,
            created_at,
            apps,
        };
        Ok::<_, StoreError>((created, tenant))
    };
    let (created, tenant) = api.engine.ask(create).await?;
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

/// There is no such tenant.
pub(super) fn unknown(tenant: &TenantName) -> ApiError {
    ApiError::new(Code::TenantUnknown, format!("there is no tenant {tenant}"))
}
