//! Tokens, and whose one is.

use axum::extract::State;
use axum::{Extension, Json};
use http::StatusCode;
use platform_model::{CreatedToken, List, TenantName, Token, TokenId, TokenRequest, Whoami};
use utoipa::IntoParams;

use super::Api;
use super::auth::Principal;
use super::input::{JsonOf, OfTenant, Params, QueryOf};
use super::page::PageQuery;
use crate::engine::Origin;
use crate::problem::{ApiError, Code};

/// Who the sender of the request is.
#[utoipa::path(
    get, path = "/v1/whoami", tag = "access", operation_id = "whoami",
    responses((status = 200, description = "The token's own rights.", body = Whoami))
)]
pub(super) async fn whoami(Extension(principal): Extension<Principal>) -> Json<Whoami> {
    Json(Whoami {
        id: principal.id.to_string(),
        scope: principal.scope,
        role: principal.role,
        label: principal.label,
        expires_at: principal.expires_at,
    })
}

/// The tokens of the node.
#[utoipa::path(
    get, path = "/v1/tokens", tag = "access", operation_id = "list_node_tokens", params(PageQuery),
    responses((status = 200, description = "Tokens by id.", body = List<Token>))
)]
pub(super) async fn list_of_node(
    State(api): State<Api>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<List<Token>>, ApiError> {
    api.tokens(None, query).await
}

/// The tokens of a tenant and of its apps.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/tokens", tag = "access", operation_id = "list_tokens",
    params(OfTenant, PageQuery),
    responses((status = 200, description = "Tokens by id.", body = List<Token>))
)]
pub(super) async fn list(
    State(api): State<Api>,
    OfTenant(tenant): OfTenant,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<List<Token>>, ApiError> {
    api.known(&tenant).await?;
    api.tokens(Some(&tenant), query).await
}

/// Makes a token of the node. The answer is the only one that has the token itself.
#[utoipa::path(
    post, path = "/v1/tokens", tag = "access", operation_id = "create_node_token", request_body = TokenRequest,
    responses((status = 201, description = "The token.", body = CreatedToken))
)]
pub(super) async fn create_of_node(
    State(api): State<Api>,
    origin: Origin,
    JsonOf(request): JsonOf<TokenRequest>,
) -> Result<(StatusCode, Json<CreatedToken>), ApiError> {
    api.create_token(&origin, None, request).await
}

/// Makes a token of a tenant, or of one of its apps. The answer is the only one that has the token itself.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/tokens", tag = "access", operation_id = "create_token", params(OfTenant),
    request_body = TokenRequest,
    responses((status = 201, description = "The token.", body = CreatedToken))
)]
pub(super) async fn create(
    State(api): State<Api>,
    OfTenant(tenant): OfTenant,
    origin: Origin,
    JsonOf(request): JsonOf<TokenRequest>,
) -> Result<(StatusCode, Json<CreatedToken>), ApiError> {
    api.create_token(&origin, Some(tenant), request).await
}

/// `{token}` of the path.
#[derive(IntoParams)]
#[into_params(names("token"), parameter_in = Path)]
#[expect(
    dead_code,
    reason = "only described: what it says of the tenant is compared by hand"
)]
pub(super) struct OfToken(TokenId);

/// Takes a token of the node back. It is good for nothing from now on.
#[utoipa::path(
    delete, path = "/v1/tokens/{token}", tag = "access", operation_id = "revoke_node_token", params(OfToken),
    responses((status = 204, description = "It is revoked."))
)]
pub(super) async fn revoke_of_node(
    State(api): State<Api>,
    params: Params,
    origin: Origin,
) -> Result<StatusCode, ApiError> {
    api.revoke_token(&origin, None, params.get("token")?).await
}

/// Takes a token of a tenant, or of one of its apps, back. It is good for nothing from now on.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/tokens/{token}", tag = "access", operation_id = "revoke_token",
    params(OfTenant, OfToken),
    responses((status = 204, description = "It is revoked."))
)]
pub(super) async fn revoke(
    State(api): State<Api>,
    OfTenant(tenant): OfTenant,
    params: Params,
    origin: Origin,
) -> Result<StatusCode, ApiError> {
    let id = params.get("token")?;
    api.revoke_token(&origin, Some(&tenant), id).await
}

impl Api {
    async fn tokens(
        &self,
        tenant: Option<&TenantName>,
        query: PageQuery,
    ) -> Result<Json<List<Token>>, ApiError> {
        let limit = query.limit();
        let page = self.engine.tokens(tenant, query.after, limit).await?;
        Ok(Json(page.list(|record| record.token())))
    }

    async fn create_token(
        &self,
        origin: &Origin,
        tenant: Option<TenantName>,
        request: TokenRequest,
    ) -> Result<(StatusCode, Json<CreatedToken>), ApiError> {
        let created = self.engine.create_token(origin, tenant, request).await;
        let (record, token) = created?;
        let info = record.token();
        Ok((StatusCode::CREATED, Json(CreatedToken { info, token })))
    }

    /// Takes a token back that is of the tenant, or of the node: one of another is not there.
    async fn revoke_token(
        &self,
        origin: &Origin,
        tenant: Option<&TenantName>,
        id: TokenId,
    ) -> Result<StatusCode, ApiError> {
        if id.tenant() != tenant {
            let detail = format!("there is no token {id}");
            return Err(ApiError::new(Code::TokenUnknown, detail));
        }
        self.engine.revoke_token(origin, id).await?;
        Ok(StatusCode::NO_CONTENT)
    }
}
