//! Connections to the addresses of the control plane: so many at a time, each with a time for beginning a request.
//!
//! Where all places are taken, the connections that have stood for longest are asked to make room, one after the other: what
//! waits for a request is closed at once, what is being answered is closed after that answer. A new connection waits until
//! one of them has ended. So neither clients that hold connections without using them nor those that send a request a byte a
//! minute keep others from the API.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

/// What clients may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowed {
    /// Connections at a time.
    pub(crate) connections: NonZeroUsize,
    /// Time for the head of a request, and for beginning with the next.
    pub(crate) head: Duration,
}

/// Time that a connection has to make room before the next one is asked to.
const ROOM_TIME: Duration = Duration::from_millis(5);

/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves routes until `stop` is cancelled; the task ends when every connection has. Must be called within a runtime.
///
/// # Errors
/// When the listener cannot be used.
pub(crate) fn serve(
    listener: TcpListener,
    router: Router,
    allowed: Allowed,
    stop: &CancellationToken,
) -> io::Result<(SocketAddr, JoinHandle<()>)> {
    let address = listener.local_addr()?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let server = Arc::new(Server {
        router,
        head: allowed.head,
        places: Arc::new(Semaphore::new(allowed.connections.get())),
        open: Mutex::default(),
        stop: stop.clone(),
    });
    let tasks = TaskTracker::new();
    let accepting = async move {
        let stop = server.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = server.accept(listener, &tasks) => {}
        }
        tasks.close();
        tasks.wait().await;
    };
    Ok((address, tokio::spawn(accepting)))
}

struct Server {
    router: Router,
    head: Duration,
    places: Arc<Semaphore>,
    /// Those that nobody has asked to close yet, in the order in which they came.
    open: Mutex<BTreeMap<u64, CancellationToken>>,
    stop: CancellationToken,
}

impl Server {
    /// Takes connections for ever.
    async fn accept(self: &Arc<Self>, listener: tokio::net::TcpListener, tasks: &TaskTracker) {
        for number in 0.. {
            let (stream, address) = loop {
                match listener.accept().await {
                    Ok(accepted) => break accepted,
                    Err(error) => {
                        tracing::warn!(%error, "cannot take a connection");
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            };
            let place = self.place().await;
            // Before the task begins, so that the next connection may ask it for its place.
            let close = self.stop.child_token();
            self.open().insert(number, close.clone());
            let server = Arc::clone(self);
            tasks.spawn(async move {
                server.connection(stream, address, close).await;
                server.open().remove(&number);
                drop(place);
            });
        }
    }

    /// A place, as soon as there is one; there always is one in the end, as the semaphore is never closed.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        let mut place = pin!(Arc::clone(&self.places).acquire_owned());
        let mut time = Duration::ZERO;
        loop {
            if let Ok(place) = timeout(time, &mut place).await {
                return place.ok();
            }
            let oldest = self.open().pop_first();
            let Some((_, close)) = oldest else {
                return place.await.ok();
            };
            close.cancel();
            time = ROOM_TIME;
        }
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, CancellationToken>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves a connection until its client ends it, it is told to close, or no request begins in time.
    async fn connection(&self, stream: TcpStream, address: SocketAddr, close: CancellationToken) {
        let _ = stream.set_nodelay(true);
        let asked = Arc::new(AtomicBool::new(false));
        let (router, begun) = (self.router.clone(), Arc::clone(&asked));
        let answer = service_fn(move |mut request: Request<Incoming>| {
            begun.store(true, Ordering::Relaxed);
            // For the audit log, and for the limit on wrong tokens.
            request.extensions_mut().insert(ConnectInfo(address));
            router.clone().oneshot(request)
        });
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.head);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), answer));
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = close.cancelled() => {
                // Without a request so far there is nothing to end well, not even a part of a head.
                if !asked.load(Ordering::Relaxed) {
                    return;
                }
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "connection to the control plane ended");
        }
    }
}

#[cfg(test)]
mod tests;
