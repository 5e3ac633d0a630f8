//! Uploads of components.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use platform_model::ComponentUpload;

use super::Api;
use super::input::OfTenant;
use crate::engine::Origin;
use crate::problem::{ApiError, Code};

/// Largest component, in bytes.
pub(super) const MAX_COMPONENT: u64 = 256 << 20;

/// How much of a body that is too long is read before it is refused, in bytes: a client that is still sending when the
/// answer comes would see a broken connection and not the answer.
const MAX_DISCARD: u64 = 4 * MAX_COMPONENT;

/// How long that may take.
const DISCARD_TIME: Duration = Duration::from_secs(30);

/// How long the next bytes of a body may take.
const BODY_IDLE: Duration = Duration::from_secs(60);

/// Takes a component. Sent again, it is the same one: it needs no `Idempotency-Key`.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/components", tag = "apps", operation_id = "upload_component", params(OfTenant),
    request_body(content_type = "application/wasm", description = "The component, up to 256 MiB."),
    responses((status = 201, description = "It is there.", body = ComponentUpload))
)]
pub(super) async fn upload(
    State(api): State<Api>,
    OfTenant(tenant): OfTenant,
    origin: Origin,
    headers: HeaderMap,
    mut body: Body,
) -> Result<(StatusCode, Json<ComponentUpload>), ApiError> {
    if !origin.creates_tenants() {
        api.known(&tenant).await?;
    }
    let length = headers.get(http::header::CONTENT_LENGTH);
    let length = length.and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > MAX_COMPONENT) {
        return Err(too_large(body).await);
    }
    let mut upload = api.engine.upload().await?;
    while let Some(bytes) = next(&mut body).await? {
        if upload.size() + bytes.len() as u64 > MAX_COMPONENT {
            return Err(too_large(body).await);
        }
        upload.write(&bytes).await?;
    }
    let uploaded = api.engine.uploaded(&origin, &tenant, upload).await?;
    Ok((StatusCode::CREATED, Json(uploaded)))
}

/// The next bytes of a body; none at its end.
async fn next(body: &mut Body) -> Result<Option<bytes::Bytes>, ApiError> {
    loop {
        let Ok(frame) = tokio::time::timeout(BODY_IDLE, body.frame()).await else {
            let detail = format!("no bytes came for {} s", BODY_IDLE.as_secs());
            return Err(ApiError::new(Code::BodyIncomplete, detail));
        };
        match frame {
            None => return Ok(None),
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
            Some(Err(e)) => {
                let detail = format!("the component was cut off on its way: {e}");
                return Err(ApiError::new(Code::BodyIncomplete, detail));
            }
        }
    }
}

/// Refuses a body, after its client has had the time to send it.
async fn too_large(mut body: Body) -> ApiError {
    let discard = async {
        let mut left = MAX_DISCARD;
        while let Ok(Some(bytes)) = next(&mut body).await {
            left = left.saturating_sub(bytes.len() as u64);
            if left == 0 {
                break;
            }
        }
    };
    // Whether it came to its end or not, it is refused.
    let _ = tokio::time::timeout(DISCARD_TIME, discard).await;
    let detail = format!(
        "the component is larger than the {} MiB that are possible",
        MAX_COMPONENT >> 20
    );
    ApiError::new(Code::BodyTooLarge, detail)
}
