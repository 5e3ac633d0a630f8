//! Waiting with an end: every wait of a test says what it waited for when it gives up.

use std::future::Future;
use std::time::{Duration, Instant};

/// How long a test waits for something that should take no noticeable time. Generous: test machines are slow.
pub const SOON: Duration = Duration::from_secs(30);

/// The outcome of `future`.
///
/// # Panics
/// When it is not there in time: with `what` the test waited for.
pub async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {limit:?} in vain for {what}"),
    }
}

/// Asks again and again until `ask` has an answer, and gives that.
///
/// # Panics
/// When there is none in time: with `what` the test waited for.
pub async fn until<T, F: Future<Output = Option<T>>>(
    limit: Duration,
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = ask().await {
            return value;
        }
        assert!(
            begin.elapsed() < limit,
            "waited {limit:?} in vain for {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
