//! The audit log.

use axum::Json;
use axum::extract::State;
use platform_model::{Audit, List};

use super::Api;
use super::input::{OfTenant, QueryOf};
use super::page::PageQuery;
use crate::problem::ApiError;

/// Who changed what on the node, and what came of it: the latest first.
#[utoipa::path(
    get, path = "/v1/audit", tag = "access", operation_id = "list_audit", params(PageQuery),
    responses((status = 200, description = "Lines of the log.", body = List<Audit>))
)]
pub(super) async fn list(
    State(api): State<Api>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<List<Audit>>, ApiError> {
    let limit = query.limit();
    let (items, next) = api.engine.audit(query.after, limit).await?;
    Ok(Json(List { items, next }))
}

/// Who changed what of a tenant, and what came of it: the latest first.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/audit", tag = "access", operation_id = "list_tenant_audit",
    params(OfTenant, PageQuery),
    responses((status = 200, description = "Lines of the log.", body = List<Audit>))
)]
pub(super) async fn list_of_tenant(
    State(api): State<Api>,
    OfTenant(tenant): OfTenant,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<List<Audit>>, ApiError> {
    api.known(&tenant).await?;
    let limit = query.limit();
    let (items, next) = api.engine.tenant_audit(&tenant, query.after, limit).await?;
    Ok(Json(List { items, next }))
}
