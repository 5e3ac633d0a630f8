//! Domains of tenants, and their certificates.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use platform_model::{CertificateRequest, Domain, DomainOptions, List};

use super::Api;
use super::etag::{IfMatch, Tagged};
use super::input::{JsonOf, OfDomain, OfTenant, QueryOf, UnquotedJsonOf};
use super::page::PageQuery;
use super::tenants;
use crate::engine::Origin;
use crate::problem::ApiError;
use crate::store::records::{Stored, TenantRecord};

/// The domains of a tenant.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/domains", tag = "hosts", operation_id = "list_domains", params(OfTenant, PageQuery),
    responses((status = 200, description = "Domains by name.", body = List<Domain>))
)]
pub(super) async fn list(
    State(api): State<Api>,
    OfTenant(tenant): OfTenant,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<List<Domain>>, ApiError> {
    let key = TenantRecord::at(&tenant);
    let found = api.engine.ask(move |records| records.get(&key)).await?;
    found.ok_or_else(|| tenants::unknown(&tenant))?;
    let limit = query.limit();
    let list = api.engine.domains(&tenant, query.after, limit);
    Ok(Json(list.await?))
}

/// A domain of a tenant, with what proves it, its certificate, and what is done to obtain one.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/domains/{domain}", tag = "hosts", operation_id = "get_domain",
    params(OfDomain),
    responses((status = 200, description = "The domain.", body = Domain, headers(("etag" = String, description = "Its state."))))
)]
pub(super) async fn get(
    State(api): State<Api>,
    OfDomain(tenant, domain): OfDomain,
) -> Result<Tagged<Domain>, ApiError> {
    let found = api.engine.domain(&tenant, &domain).await;
    Ok(tagged(found?))
}

/// Adds a domain to a tenant, or sets what one is to be. It serves nothing until it is proved to be the tenant's.
#[utoipa::path(
    put, path = "/v1/tenants/{tenant}/domains/{domain}", tag = "hosts", operation_id = "set_domain",
    params(OfDomain, IfMatch), request_body = DomainOptions,
    responses(
        (status = 200, description = "It was there.", body = Domain, headers(("etag" = String, description = "Its state."))),
        (status = 201, description = "It was added.", body = Domain, headers(("etag" = String, description = "Its state."))),
    )
)]
pub(super) async fn set(
    State(api): State<Api>,
    OfDomain(tenant, domain): OfDomain,
    IfMatch(expected): IfMatch,
    origin: Origin,
    JsonOf(options): JsonOf<DomainOptions>,
) -> Result<Response, ApiError> {
    let set = api
        .engine
        .set_domain(&origin, &tenant, &domain, expected, options);
    let (stored, added) = set.await?;
    let status = if added {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, tagged(stored)).into_response())
}

/// Deletes a domain with its certificate. Routes on it have to be taken out first.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/domains/{domain}", tag = "hosts", operation_id = "delete_domain",
    params(OfDomain),
    responses((status = 204, description = "It is deleted."))
)]
pub(super) async fn delete(
    State(api): State<Api>,
    OfDomain(tenant, domain): OfDomain,
    origin: Origin,
) -> Result<StatusCode, ApiError> {
    let deleted = api.engine.delete_domain(&origin, &tenant, &domain);
    deleted.await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Looks for the proof that a domain is the tenant's: a TXT record, or an answer over HTTP. From then on it is served.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/domains/{domain}/verify", tag = "hosts", operation_id = "verify_domain",
    params(OfDomain),
    responses((status = 200, description = "It is proved.", body = Domain, headers(("etag" = String, description = "Its state."))))
)]
pub(super) async fn verify(
    State(api): State<Api>,
    OfDomain(tenant, domain): OfDomain,
    origin: Origin,
) -> Result<Tagged<Domain>, ApiError> {
    let verified = api.engine.verify_domain(&origin, &tenant, &domain).await;
    Ok(tagged(verified?))
}

/// Serves a domain with a certificate, in place of the one that it has. The key is never given back.
#[utoipa::path(
    put, path = "/v1/tenants/{tenant}/domains/{domain}/certificate", tag = "hosts", operation_id = "set_certificate",
    params(OfDomain), request_body = CertificateRequest,
    responses((status = 200, description = "It is served.", body = Domain, headers(("etag" = String, description = "Its state."))))
)]
pub(super) async fn set_certificate(
    State(api): State<Api>,
    OfDomain(tenant, domain): OfDomain,
    origin: Origin,
    UnquotedJsonOf(request): UnquotedJsonOf<CertificateRequest>,
) -> Result<Tagged<Domain>, ApiError> {
    let set = api
        .engine
        .set_certificate(&origin, &tenant, &domain, request);
    Ok(tagged(set.await?))
}

/// Takes the certificate of a domain away. The node then obtains one, where that is its to do.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/domains/{domain}/certificate", tag = "hosts", operation_id = "delete_certificate",
    params(OfDomain),
    responses((status = 204, description = "It is gone."))
)]
pub(super) async fn delete_certificate(
    State(api): State<Api>,
    OfDomain(tenant, domain): OfDomain,
    origin: Origin,
) -> Result<StatusCode, ApiError> {
    let deleted = api.engine.delete_certificate(&origin, &tenant, &domain);
    deleted.await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Has the node obtain or renew the certificate of a domain now. How it goes is told by the domain.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/domains/{domain}/certificate/renew", tag = "hosts",
    operation_id = "renew_certificate", params(OfDomain),
    responses((status = 202, description = "It is being obtained.", body = Domain))
)]
pub(super) async fn renew_certificate(
    State(api): State<Api>,
    OfDomain(tenant, domain): OfDomain,
    origin: Origin,
) -> Result<(StatusCode, Json<Domain>), ApiError> {
    let renewed = api.engine.renew_certificate(&origin, &tenant, &domain);
    Ok((StatusCode::ACCEPTED, Json(renewed.await?.record)))
}

fn tagged(stored: Stored<Domain>) -> Tagged<Domain> {
    Tagged(stored.revision, stored.record)
}
