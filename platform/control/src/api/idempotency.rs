//! `Idempotency-Key`: a request that is sent again with the same key gets the answer of the first time, and nothing is done
//! a second time. Keys are a token's own, and are remembered for [`REMEMBERED`](crate::engine::REMEMBERED).

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use platform_model::Problem;
use sha2::{Digest as _, Sha256};

use super::Api;
use super::auth::Principal;
use super::input::body_of;
use crate::engine::{Answer, Once, Origin};
use crate::problem::{ApiError, Code};
use crate::store::records::OnceKey;

/// The header of a request.
pub(super) const KEY: &str = "idempotency-key";

/// The header of an answer that is given again.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Longest key, in characters.
const MAX_KEY: usize = 255;

/// Longest body of an answer that is remembered, in bytes.
const MAX_ANSWER: u64 = 64 << 10;

/// Header fields of an answer that are remembered.
const REMEMBERED: [&str; 4] = ["content-type", "etag", "location", "server-timing"];

/// Keys of the requests that are being carried out by this process.
pub(super) type Running = Arc<Mutex<HashSet<OnceKey>>>;

/// Reads the key of a request, and with it its body, which is a part of what the key stands for.
pub(super) async fn read(
    principal: &Principal,
    request: Request,
) -> Result<(Request, Option<Once>), ApiError> {
    let Some(key) = key_of(request.headers())? else {
        return Ok((request, None));
    };
    let (parts, body) = request.into_parts();
    let body = body_of(body).await?;
    let mut fingerprint = Sha256::new();
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
    for part in [parts.method.as_str().as_bytes(), path.as_bytes(), &body] {
        fingerprint.update(part.len().to_be_bytes());
        fingerprint.update(part);
    }
    let once = Once {
        key: OnceKey {
            tenant: principal.scope.tenant().cloned(),
            who: principal.id.to_string(),
            key: hex(&Sha256::digest(key)),
        },
        fingerprint: hex(&fingerprint.finalize()),
    };
    let request = Request::from_parts(parts, Body::from(body));
    Ok((request, Some(once)))
}

/// The key that a request has; one at most.
fn key_of(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let visible = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
    let bytes = value.as_bytes();
    let one = values.next().is_none();
    if one && (1..=MAX_KEY).contains(&bytes.len()) && bytes.iter().all(visible) {
        return Ok(Some(String::from_utf8_lossy(bytes).into_owned()));
    }
    let detail = format!(
        "the header {KEY} is to be given once, with 1 to {MAX_KEY} printable characters: a UUID, for example"
    );
    Err(ApiError::new(Code::IdempotencyKeyInvalid, detail))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a request with a key is to do.
pub(super) enum Turn {
    /// It is the first.
    First(Hold),
    /// It was carried out before, with this answer.
    Again(Box<Response>),
}

/// Keeps others with the same key out.
pub(super) struct Hold {
    running: Running,
    key: OnceKey,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(&self.key);
    }
}

/// Whether a request is the first with its key.
pub(super) async fn turn(api: &Api, once: &Once) -> Result<Turn, ApiError> {
    let running = Arc::clone(&api.running);
    let key = once.key.clone();
    let first = running
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(key.clone());
    if !first {
        let detail =
            "a request with this idempotency-key is being carried out: wait for its answer";
        return Err(ApiError::new(Code::IdempotencyRunning, detail));
    }
    let hold = Hold { running, key };
    let Some(record) = api.engine.carried_out(&once.key).await? else {
        return Ok(Turn::First(hold));
    };
    if record.fingerprint != once.fingerprint {
        let detail = "another request was sent with this idempotency-key before: each request has a key of its own";
        return Err(ApiError::new(Code::IdempotencyMismatch, detail));
    }
    let Some(answer) = record.answer else {
        let detail = format!(
            "the request with this idempotency-key was carried out at {}, and the node ended before it had answered: \
             ask for what it made",
            record.at
        );
        return Err(ApiError::new(Code::IdempotencyAnswerLost, detail));
    };
    Ok(Turn::Again(Box::new(again(answer))))
}

/// An answer as it was given before.
fn again(answer: Answer) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or_default();
    let headers = response.headers_mut();
    for (name, value) in answer.headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(&value)) {
            headers.insert(name, value);
        }
    }
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

/// Remembers the answer to a request that made a change. One that made none may be tried again.
pub(super) async fn remember(api: &Api, origin: &Origin, response: Response) -> Response {
    let longest = response.body().size_hint().upper();
    if !origin.is_made() || longest.is_none_or(|longest| longest > MAX_ANSWER) {
        return response;
    }
    let (parts, body) = response.into_parts();
    // A body of known length is in memory already.
    let body = body.collect().await.map(|body| body.to_bytes());
    let body = body.unwrap_or_default();
    let text = |name: &&str| {
        let value = parts.headers.get(*name)?.to_str().ok()?;
        Some(((*name).to_owned(), value.to_owned()))
    };
    let mut answer = Answer {
        status: parts.status.as_u16(),
        headers: REMEMBERED.iter().filter_map(text).collect(),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    if let Some(problem) = parts.extensions.get::<Problem>() {
        answer.body = serde_json::to_string(problem).unwrap_or_default();
        let kind = platform_model::problem::CONTENT_TYPE.to_owned();
        answer.headers = vec![("content-type".to_owned(), kind)];
    }
    if let Err(error) = api.engine.remember_answer(origin, &answer).await {
        tracing::error!(%error, "an answer could not be remembered");
    }
    Response::from_parts(parts, Body::from(body))
}
