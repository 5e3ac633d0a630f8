//! The log of an app: `application/x-ndjson`, one line a line.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use http::header::CONTENT_TYPE;
use platform_model::LogLine;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use utoipa::IntoParams;

use super::Api;
use super::apps;
use super::input::{OfApp, QueryOf};
use crate::logs::Follower;
use crate::problem::ApiError;
use crate::store::records::AppRecord;

/// `?tail=N&follow=true`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LogQuery {
    /// How many of the last lines; all that are stored by default.
    tail: Option<usize>,
    /// Whether to go on with what is written from now on.
    #[serde(default)]
    #[param(required = false)]
    follow: bool,
}

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
    let (history, follower) = api.engine.logs().read(&tenant, &app, query.follow).await?;
    let tail = query.tail.unwrap_or(usize::MAX);
    let lines = tokio::task::spawn_blocking(move || history.last_lines(tail)).await;
    let lines = Bytes::from(lines.map_err(std::io::Error::other)??);
    let body = match follower {
        None => Body::from(lines),
        Some(follower) => followed(lines, follower, api.stop.clone()),
    };
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// What was written, then what is, until the node stops.
fn followed(lines: Bytes, follower: Follower, stop: CancellationToken) -> Body {
    let first = (!lines.is_empty()).then_some(lines);
    let state = (first, follower, stop);
    Body::from_stream(stream::unfold(
        state,
        |(first, mut follower, stop)| async move {
            let bytes = match first {
                Some(lines) => lines,
                None => tokio::select! {
                    () = stop.cancelled() => return None,
                    line = follower.next() => Bytes::from_owner(line?),
                },
            };
            Some((Ok::<_, Infallible>(bytes), (None, follower, stop)))
        },
    ))
}
