//! The description of the API: OpenAPI 3.1, made from the code. `platform/control/openapi.json` is a copy of it, which a test
//! compares and which the node serves.

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};

/// The name of the one way to say who one is.
pub(super) const TOKEN: &str = "token";

/// The copy.
const COPY: &str = include_str!("../../openapi.json");

/// What is not of any operation.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Cloister admin API",
        version = "1",
        description = "Tenants, apps and deployments of a Cloister node. Errors are RFC 9457 problems with stable codes; \
                       API.md beside this file has the list, and the rules that all operations share.",
        license(name = "Apache-2.0 WITH LLVM-exception", identifier = "Apache-2.0 WITH LLVM-exception")
    ),
    components(schemas(platform_model::Problem)),
    tags(
        (name = "node", description = "The node itself."),
        (name = "access", description = "Tenants, tokens, the audit log."),
        (name = "apps", description = "Components, apps, deployments, logs."),
        (name = "releases", description = "Who answers for an app: traffic, rollback, canary, history."),
        (name = "hosts", description = "Which hosts and paths lead to an app: routes, domains, certificates."),
        (name = "settings", description = "Configuration and secrets of apps."),
    )
)]
struct Base;

/// The description without operations.
pub(super) fn document() -> OpenApi {
    let mut document = Base::openapi();
    let token = Http::builder()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "The node's own token, in the file admin-token of its data folder, or one that was made with this API.",
        ))
        .build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme(TOKEN, SecurityScheme::Http(token));
    document
}

/// This description.
#[utoipa::path(
    get, path = "/v1/openapi.json", tag = "node", operation_id = "get_openapi",
    responses((status = 200, description = "The description.", body = serde_json::Value))
)]
pub(super) async fn get() -> Response {
    ([(CONTENT_TYPE, "application/json")], COPY).into_response()
}
