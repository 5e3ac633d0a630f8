//! The log of an app: `application/x-ndjson`, one line a line.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use http::header::CONTENT_TYPE;
use platform_model::{LogLine, LogQuery};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::Api;
use super::apps;
use super::input::{OfApp, QueryOf};
use crate::logs::{Filter, Follower, History, Reader};
use crate::problem::{ApiError, Code};
use crate::store::records::AppRecord;

/// Time without a line after which a follower gets an empty one: so it is noticed when nobody listens any more.
const IDLE: Duration = Duration::from_secs(15);

/// What an app wrote: one JSON object a line.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/apps/{app}/logs", tag = "apps", operation_id = "read_logs",
    params(OfApp, LogQuery),
    responses((status = 200, description = "Lines in the order of writing.", body = LogLine, content_type = "application/x-ndjson"))
)]
pub(super) async fn read(
    State(api): State<Api>,
    OfApp(tenant, app): OfApp,
    QueryOf(query): QueryOf<LogQuery>,
) -> Result<Response, ApiError> {
    let key = AppRecord::at(&tenant, &app);
    let known = api.engine.ask(move |records| records.get(&key)).await?;
    if known.is_none() {
        return Err(apps::unknown(&tenant, &app));
    }
    let now = OffsetDateTime::now_utc();
    let wrong =
        |error: crate::logs::FilterError| ApiError::new(Code::QueryInvalid, error.to_string());
    let filter = Filter::new(&query, now).map_err(wrong)?;
    let logs = api.engine.logs();
    let full =
        |error: crate::logs::ReadersError| ApiError::new(Code::LogReaders, error.to_string());
    let reader = logs.reader(&tenant, &app).map_err(full)?;
    let until = filter.until().map(|until| {
        let left = (until - now).try_into().unwrap_or(Duration::ZERO);
        // A moment beyond all time is none.
        Instant::now().checked_add(left)
    });
    let (history, follower) = logs
        .read(&tenant, &app, filter, query.tail, query.follow)
        .await?;
    // Read now: where the disk fails that can still be said.
    let history = logs.next_piece(history).await?;
    let answer = Answer {
        api: api.clone(),
        history,
        follower,
        until: until.flatten(),
        _reader: reader,
    };
    let body = Body::from_stream(stream::unfold(answer, Answer::next));
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// The body of an answer: what was written, then what is, until the node stops.
struct Answer {
    api: Api,
    /// A piece to be sent, and what follows it.
    history: Option<(Vec<u8>, History)>,
    follower: Option<Follower>,
    until: Option<Instant>,
    _reader: Reader,
}

impl Answer {
    async fn next(mut self) -> Option<(io::Result<Bytes>, Self)> {
        if let Some((piece, history)) = self.history.take() {
            match self.api.engine.logs().next_piece(history).await {
                Ok(next) => self.history = next,
                Err(error) => {
                    // The head is out: the answer is cut off, and why is in the node's log.
                    tracing::error!(%error, "a log could not be read");
                    self.follower = None;
                    return Some((Err(error), self));
                }
            }
            return Some((Ok(piece.into()), self));
        }
        let follower = self.follower.as_mut()?;
        let until = self.until;
        let over = async move {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let bytes = tokio::select! {
            () = self.api.stop.cancelled() => return None,
            line = follower.next() => Bytes::from_owner(line?),
            () = over => return None,
            () = tokio::time::sleep(IDLE) => Bytes::from_static(b"\n"),
        };
        Some((Ok(bytes), self))
    }
}
