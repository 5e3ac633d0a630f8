//! Around every answer: a request id, the body of a problem, and a line in the node's log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use platform_model::Problem;
use tracing::Instrument as _;

/// Header of the request's id.
const REQUEST_ID: &str = "x-request-id";

/// Numbers the requests.
static REQUESTS: AtomicU64 = AtomicU64::new(1);

/// The id of a request.
#[derive(Debug, Clone)]
pub(super) struct RequestId(pub(super) Arc<str>);

pub(super) async fn trace(mut request: Request, next: Next) -> Response {
    let id = format!("admin-{}", REQUESTS.fetch_add(1, Ordering::Relaxed));
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    request
        .extensions_mut()
        .insert(RequestId(id.as_str().into()));
    let begin = Instant::now();
    // Whatever the node's log has to say meanwhile carries the id.
    let span = tracing::info_span!("admin", request = %id);
    let mut response = next.run(request).instrument(span).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        response = with_problem(response, problem.with_request_id(&id));
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let status = response.status().as_u16();
    tracing::debug!(request = %id, %method, path, status, took = ?begin.elapsed(), "admin request");
    response
}

/// Gives a response its problem as body.
fn with_problem(mut response: Response, problem: Problem) -> Response {
    if problem.status >= 500 {
        tracing::error!(
            request = problem.request_id,
            code = problem.code,
            detail = problem.detail,
            "admin request failed"
        );
    }
    // A problem is numbers and texts: always JSON.
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    *response.body_mut() = Body::from(body);
    let kind = HeaderValue::from_static(platform_model::problem::CONTENT_TYPE);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response.headers_mut().remove(http::header::CONTENT_LENGTH);
    response
}
