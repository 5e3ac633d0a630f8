//! Around every operation that changes something: it is carried out to its end even where the client goes away, once where
//! it has an `Idempotency-Key`, and the audit log has what came of it.

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use platform_model::{Problem, Role, Scope, TenantName};

use super::Api;
use super::auth::{Principal, address};
use super::idempotency;
use super::input::Params;
use super::trace::RequestId;
use crate::engine::{Asked, Origin};
use crate::problem::{ApiError, Code};

/// What the layer is made with.
#[derive(Clone)]
pub(super) struct Changes {
    pub(super) api: Api,
    /// Whether the operation takes an `Idempotency-Key`.
    pub(super) once: bool,
}

/// Marks an answer to somebody who only asked whether something can be changed: the audit log has nothing of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct OnlyAsked;

/// Carries out what changes something.
pub(super) async fn carry_out(
    State(Changes { api, once }): State<Changes>,
    params: Params,
    request: Request,
    next: Next,
) -> Response {
    let Some(principal) = request.extensions().get::<Principal>().cloned() else {
        return ApiError::new(Code::TokenMissing, "send a token").into_response();
    };
    let asked = asked(&principal, &params, &request);
    if !once {
        return run(&api, Origin::request(asked), request, next).await;
    }
    let (request, key) = match idempotency::read(&principal, request).await {
        Ok(read) => read,
        Err(error) => return error.into_response(),
    };
    let Some(key) = key else {
        return run(&api, Origin::request(asked), request, next).await;
    };
    let turn = match idempotency::turn(&api, &key).await {
        Ok(idempotency::Turn::First(turn)) => turn,
        Ok(idempotency::Turn::Again(answer)) => return *answer,
        Err(error) => return error.into_response(),
    };
    let once = Some(key);
    let origin = Origin::request(Asked { once, ..asked });
    let response = run(&api, origin.clone(), request, next).await;
    let response = idempotency::remember(&api, &origin, response).await;
    drop(turn);
    response
}

/// What the audit log will have of a request.
fn asked(principal: &Principal, params: &Params, request: &Request) -> Asked {
    let of_path = || params.get::<TenantName>("tenant").ok();
    let id = request.extensions().get::<RequestId>();
    Asked {
        who: principal.id.to_string(),
        from: address(request),
        what: format!("{} {}", request.method(), request.uri().path()),
        // What somebody of a tenant tries elsewhere is in the log of that tenant, and of no other.
        tenant: principal.scope.tenant().cloned().or_else(of_path),
        request_id: id.map(|RequestId(id)| id.to_string()),
        once: None,
        creates_tenants: principal.scope == Scope::Node && principal.role == Role::Admin,
    }
}

/// Runs the operation to its end, and writes into the audit log where nothing came of it.
async fn run(api: &Api, origin: Origin, mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(origin.clone());
    let (api, asked) = (api.clone(), origin);
    let carried_out = tokio::spawn(async move {
        let response = next.run(request).await;
        let noted = response.extensions().get::<OnlyAsked>().is_none();
        if !asked.is_made() && noted {
            let problem = response.extensions().get::<Problem>();
            let code = problem.map(|problem| problem.code.clone());
            let status = response.status().as_u16();
            let written = api.engine.note_unmade(&asked, status, code).await;
            if let Err(error) = written {
                tracing::error!(%error, "the audit log could not be written");
            }
        }
        response
    });
    carried_out.await.unwrap_or_else(|_| {
        // The panic was reported when it happened.
        ApiError::new(Code::Internal, "a bug of the node: its log has more").into_response()
    })
}

impl<S: Sync> FromRequestParts<S> for Origin {
    type Rejection = ApiError;

    /// The origin of a request that changes something.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let origin = parts.extensions.get::<Self>().cloned();
        origin.ok_or_else(|| ApiError::new(Code::Internal, "a request without an origin"))
    }
}
