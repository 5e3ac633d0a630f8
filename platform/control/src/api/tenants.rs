//! Tenants.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use platform_model::{List, Tenant, TenantChanges, TenantName, Usage};

use super::Api;
use super::etag::{IfMatch, Tagged};
use super::input::{JsonOf, OfTenant, QueryOf};
use super::page::PageQuery;
use crate::engine::Origin;
use crate::problem::{ApiError, Code};
use crate::store::StoreError;
use crate::store::records::{Prefix, Stored, TenantRecord, UsageRecord};

/// The tenants.
#[utoipa::path(
    get, path = "/v1/tenants", tag = "access", operation_id = "list_tenants", params(PageQuery),
    responses((status = 200, description = "Tenants by name.", body = List<Tenant>))
)]
pub(super) async fn list(
    State(api): State<Api>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<List<Tenant>>, ApiError> {
    let list = api
        .engine
        .ask(move |records| {
            let limit = query.limit();
            let page = records.page(
                &Prefix::<TenantRecord>::all(),
                query.after.as_deref(),
                limit,
            )?;
            let with_usage = |stored: Stored<TenantRecord>| {
                let usage = records.get(&UsageRecord::at(&stored.record.tenant))?;
                Ok(tenant_of(stored.record, usage.map(|stored| stored.record)))
            };
            let items = page.items.into_iter().map(with_usage);
            let items = items.collect::<Result<_, StoreError>>()?;
            let next = page.next;
            Ok(List { items, next })
        })
        .await?;
    Ok(Json(list))
}

/// Creates a tenant: 201, or 200 where it is there.
#[utoipa::path(
    put, path = "/v1/tenants/{tenant}", tag = "access", operation_id = "create_tenant", params(OfTenant),
    responses(
        (status = 200, description = "It was there.", body = Tenant),
        (status = 201, description = "It was created.", body = Tenant),
    )
)]
pub(super) async fn create(
    State(api): State<Api>,
    OfTenant(name): OfTenant,
    origin: Origin,
) -> Result<(StatusCode, Json<Tenant>), ApiError> {
    let (record, created) = api.engine.create_tenant(&origin, &name).await?;
    let tenant = tenant_of(record, api.usage(&name).await?);
    let status = if created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(tenant)))
}

/// Deletes a tenant that has no apps.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}", tag = "access", operation_id = "delete_tenant", params(OfTenant),
    responses((status = 204, description = "It is deleted."))
)]
pub(super) async fn delete(
    State(api): State<Api>,
    OfTenant(name): OfTenant,
    origin: Origin,
) -> Result<StatusCode, ApiError> {
    api.engine.delete_tenant(&origin, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// One tenant, with its quotas and what it has.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}", tag = "access", operation_id = "get_tenant", params(OfTenant),
    responses((status = 200, description = "The tenant.", body = Tenant, headers(("etag" = String, description = "Its state."))))
)]
pub(super) async fn get(
    State(api): State<Api>,
    OfTenant(name): OfTenant,
) -> Result<Tagged<Tenant>, ApiError> {
    let key = TenantRecord::at(&name);
    let found = api.engine.ask(move |records| records.get(&key)).await?;
    let Stored { record, revision } = found.ok_or_else(|| unknown(&name))?;
    Ok(Tagged(revision, tenant_of(record, api.usage(&name).await?)))
}

/// Changes what a tenant may have and take. What is left out stays.
#[utoipa::path(
    patch, path = "/v1/tenants/{tenant}", tag = "access", operation_id = "change_tenant",
    params(OfTenant, IfMatch), request_body = TenantChanges,
    responses((status = 200, description = "The tenant.", body = Tenant, headers(("etag" = String, description = "Its state."))))
)]
pub(super) async fn change(
    State(api): State<Api>,
    OfTenant(name): OfTenant,
    IfMatch(expected): IfMatch,
    origin: Origin,
    JsonOf(changes): JsonOf<TenantChanges>,
) -> Result<Tagged<Tenant>, ApiError> {
    let changed = api.engine.change_tenant(&origin, &name, expected, changes);
    let Stored { record, revision } = changed.await?;
    Ok(Tagged(revision, tenant_of(record, api.usage(&name).await?)))
}

impl Api {
    /// What a tenant has.
    async fn usage(&self, tenant: &TenantName) -> Result<Option<UsageRecord>, ApiError> {
        let key = UsageRecord::at(tenant);
        let found = self.engine.ask(move |records| records.get(&key)).await?;
        Ok(found.map(|stored| stored.record))
    }
}

/// A tenant as the API gives it.
fn tenant_of(record: TenantRecord, usage: Option<UsageRecord>) -> Tenant {
    let usage = usage.map(|usage| Usage {
        apps: usage.apps,
        deployments: usage.deployments,
        tokens: usage.tokens,
        disk_bytes: usage.disk_bytes,
    });
    let usage = usage.unwrap_or_default();
    Tenant {
        tenant: record.tenant,
        created_at: record.created_at,
        apps: usage.apps,
        quotas: record.quotas,
        policy: record.policy,
        usage,
    }
}

/// There is no such tenant.
pub(super) fn unknown(tenant: &TenantName) -> ApiError {
    ApiError::new(Code::TenantUnknown, format!("there is no tenant {tenant}"))
}
