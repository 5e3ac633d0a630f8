//! Asking the app for answers, over HTTP as any client would, and taking the time.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use reqwest::Url;
use reqwest::header::HOST;

use super::QuickstartError;
use crate::terminal::printable;

/// How many answers the time of a warm request is the median of.
const WARM: usize = 100;

/// Longest time for one answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How much of an answer is shown, in characters.
const SHOWN: usize = 400;

/// What the app answered, and how fast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Visit {
    /// The status of the first answer.
    pub(super) status: u16,
    /// Its body, or the beginning of it.
    pub(super) body: String,
    /// Time of the first request, on a connection of its own, until the end of its answer.
    pub(super) first: Duration,
    /// Median time of those that follow it on that connection.
    pub(super) warm: Duration,
    /// How many those were.
    pub(super) count: usize,
}

impl Visit {
    /// Asks for `url` at `address`: the name in the URL goes into the `Host` field, so no resolver is needed.
    pub(super) async fn make(address: SocketAddr, url: &str) -> Result<Self, QuickstartError> {
        let failed = |source: reqwest::Error| QuickstartError::Request {
            url: url.to_owned(),
            source: source.without_url(),
        };
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(TIMEOUT)
            .build()
            .map_err(failed)?;
        let host = authority(url);
        let ask = async || {
            let began = Instant::now();
            let request = http.get(format!("http://{address}/")).header(HOST, &host);
            let response = request.send().await?;
            let status = response.status();
            let body = response.bytes().await?;
            Ok((status, body, began.elapsed()))
        };
        let (status, body, first) = ask().await.map_err(failed)?;
        let text: String = printable(&String::from_utf8_lossy(&body))
            .chars()
            .take(SHOWN)
            .collect();
        if !status.is_success() {
            return Err(QuickstartError::Answer {
                url: url.to_owned(),
                status: status.as_u16(),
                body: text,
            });
        }
        let mut times = Vec::with_capacity(WARM);
        for _ in 0..WARM {
            let (_, _, time) = ask().await.map_err(failed)?;
            times.push(time);
        }
        times.sort_unstable();
        let warm = times.get(WARM / 2).copied().unwrap_or_default();
        Ok(Self {
            status: status.as_u16(),
            body: text,
            first,
            warm,
            count: WARM,
        })
    }
}

/// The host and port of a URL.
fn authority(url: &str) -> String {
    let Ok(url) = Url::parse(url) else {
        return String::new();
    };
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::http::{HeaderMap, StatusCode};

    use super::*;

    async fn serve(router: Router) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    #[tokio::test]
    async fn the_host_is_that_of_the_url() {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let answer = move |headers: HeaderMap| async move {
            counted.fetch_add(1, Ordering::Relaxed);
            format!("{:?}\x1b[2J", headers.get("host").unwrap())
        };
        let address = serve(Router::new().fallback(answer)).await;
        let visit = Visit::make(address, "http://hello.localhost:7380/")
            .await
            .unwrap();
        assert_eq!(
            (visit.status, visit.body.as_str()),
            (200, "\"hello.localhost:7380\"\\u{1b}[2J")
        );
        assert_eq!(count.load(Ordering::Relaxed), WARM + 1);
        assert!(visit.warm > Duration::ZERO);
    }

    #[tokio::test]
    async fn an_error_is_not_an_answer() {
        let address =
            serve(Router::new().fallback(async || (StatusCode::BAD_GATEWAY, "the VM was lost")))
                .await;
        let error = Visit::make(address, "http://hello.localhost/")
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "http://hello.localhost/ answered 502: the VM was lost"
        );
    }
}
