//! Connections: accepted, with TLS or without, told apart as HTTP/1.1 or HTTP/2, served by hyper, ended gracefully.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::service::{Peer, Service, Tls};
use super::wire::{self, Protocol, Wire};
use crate::sync::lock;
use crate::tls;

/// Time that a client has for the head of a request, and for beginning with the next.
const HEAD_TIME: Duration = Duration::from_secs(20);
/// Largest head that is read at all; deployments may allow less.
const MAX_HEAD: usize = 128 << 10;
/// Streams of one connection of HTTP/2 at a time.
const MAX_STREAMS: u32 = 256;
/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The connections of the node.
pub(crate) struct Server {
    service: Arc<Service>,
    /// Most header fields of a head: what the most generous deployment allows.
    pub(crate) max_fields: AtomicUsize,
    closing: CancellationToken,
    numbers: AtomicU64,
    tasks: TaskTracker,
    /// Ends a connection gracefully when used.
    open: Mutex<HashMap<u64, oneshot::Sender<()>>>,
}

impl Server {
    /// A server without connections.
    pub(crate) fn new(service: Arc<Service>) -> Self {
        Server {
            service,
            max_fields: AtomicUsize::new(256),
            closing: CancellationToken::new(),
            numbers: AtomicU64::new(0),
            tasks: TaskTracker::new(),
            open: Mutex::default(),
        }
    }

    /// Takes connections until [`Server::drain`]; over TLS, if there is an acceptor for it.
    pub(crate) async fn accept(self: Arc<Self>, listener: TcpListener, tls: Option<TlsAcceptor>) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.closing.cancelled() => return,
            };
            match accepted {
                Ok((stream, address)) => {
                    let number = self.numbers.fetch_add(1, Ordering::Relaxed);
                    let server = Arc::clone(&self);
                    self.tasks
                        .spawn(server.connection(number, stream, address, tls.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot take a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Takes no more connections, lets each end what it has begun, and cuts off what is left after `deadline`.
    pub(crate) async fn drain(&self, deadline: Duration) {
        self.closing.cancel();
        for (_, close) in lock(&self.open).drain() {
            // A connection that has ended meanwhile does not listen.
            let _ = close.send(());
        }
        self.tasks.close();
        let _ = tokio::time::timeout(deadline, self.tasks.wait()).await;
    }

    async fn connection(
        self: Arc<Self>,
        number: u64,
        stream: TcpStream,
        address: SocketAddr,
        tls: Option<TlsAcceptor>,
    ) {
        let _ = stream.set_nodelay(true);
        let registry = Arc::clone(&self.service.observer.registry);
        let _connected = registry.node.connected();
        let (close, closed) = oneshot::channel();
        lock(&self.open).insert(number, close);
        if !self.closing.is_cancelled() {
            match tls {
                None => self.plain(stream, peer(address.ip()), closed).await,
                Some(tls) => self.secure(tls, stream, peer(address.ip()), closed).await,
            }
        }
        lock(&self.open).remove(&number);
    }

    async fn plain(&self, stream: TcpStream, peer: Peer, closed: oneshot::Receiver<()>) {
        let mut wire = Wire::new(stream);
        match tokio::time::timeout(HEAD_TIME, wire.protocol()).await {
            Ok(Ok(protocol)) => self.serve(wire, protocol, peer, closed).await,
            Ok(Err(_)) => {}
            Err(_) if wire.has_begun() => wire.refuse(wire::TIMEOUT).await,
            Err(_) => {}
        }
    }

    async fn secure(
        &self,
        tls: TlsAcceptor,
        stream: TcpStream,
        mut peer: Peer,
        closed: oneshot::Receiver<()>,
    ) {
        let stream = match tokio::time::timeout(HEAD_TIME, tls.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "no handshake"),
            Err(_) => return,
        };
        let agreed = tls::agreed(stream.get_ref().1);
        peer.tls = Some(Tls { name: agreed.name });
        let mut wire = Wire::new(stream);
        let protocol = if agreed.http2 == Some(true) {
            Protocol::Http2
        } else {
            Protocol::Http1
        };
        wire.agreed(protocol);
        self.serve(wire, protocol, peer, closed).await;
    }

    async fn serve<S>(
        &self,
        wire: Wire<S>,
        protocol: Protocol,
        peer: Peer,
        closed: oneshot::Receiver<()>,
    ) where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let peer = Arc::new(peer);
        match protocol {
            Protocol::Http1 => self.http1(wire, peer, closed).await,
            Protocol::Http2 => self.http2(wire, peer, closed).await,
        }
    }

    async fn http1<S>(&self, wire: Wire<S>, peer: Arc<Peer>, closed: oneshot::Receiver<()>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let begun = wire.begun();
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .max_headers(self.max_fields.load(Ordering::Relaxed))
            .max_buf_size(MAX_HEAD);
        let service = Arc::clone(&self.service);
        let seen = begun.clone();
        let answer = service_fn(move |request: Request<Incoming>| {
            let (service, peer) = (Arc::clone(&service), Arc::clone(&peer));
            let smuggled = seen.take_request();
            async move {
                if smuggled {
                    return Ok(service.refuse_smuggling(&peer, &request.into_parts().0));
                }
                Ok::<_, Infallible>(service.answer(&peer, request).await)
            }
        });
        let mut connection = builder.serve_connection(TokioIo::new(wire), answer);
        let ended = until_closed(&mut connection, closed, |connection| {
            connection.graceful_shutdown()
        })
        .await;
        if let Err(error) = ended {
            tracing::debug!(%error, "connection ended");
            if error.is_timeout() && begun.in_head() {
                connection
                    .into_parts()
                    .io
                    .into_inner()
                    .refuse(wire::TIMEOUT)
                    .await;
            }
        }
    }

    async fn http2<S>(&self, wire: Wire<S>, peer: Arc<Peer>, closed: oneshot::Receiver<()>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
            .keep_alive_interval(HEAD_TIME)
            .keep_alive_timeout(HEAD_TIME);
        let service = Arc::clone(&self.service);
        let answer = service_fn(move |request| {
            let (service, peer) = (Arc::clone(&service), Arc::clone(&peer));
            async move { Ok::<_, Infallible>(service.answer(&peer, request).await) }
        });
        let mut connection = builder.serve_connection(TokioIo::new(wire), answer);
        if let Err(error) = until_closed(&mut connection, closed, |connection| {
            connection.graceful_shutdown()
        })
        .await
        {
            tracing::debug!(%error, "connection ended");
        }
    }
}

/// Drives a connection to its end; asked to close, it takes no more requests.
async fn until_closed<C, E>(
    connection: &mut C,
    closed: oneshot::Receiver<()>,
    shut_down: impl Fn(Pin<&mut C>),
) -> Result<(), E>
where
    C: Future<Output = Result<(), E>> + Unpin,
{
    let mut closed = pin!(closed);
    let mut told = false;
    std::future::poll_fn(|cx| {
        if !told && closed.as_mut().poll(cx).is_ready() {
            told = true;
            shut_down(Pin::new(&mut *connection));
        }
        match Pin::new(&mut *connection).poll(cx) {
            Poll::Ready(ended) => Poll::Ready(ended),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

fn peer(address: IpAddr) -> Peer {
    let address = address.to_canonical();
    let node = if address.is_ipv6() {
        format!("\"[{address}]\"")
    } else {
        address.to_string()
    };
    Peer {
        address: address.to_string(),
        node,
        tls: None,
    }
}
