//! HTTP as a well-behaved client speaks it: one connection, HTTP/1.1 or HTTP/2 with prior knowledge.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::wait::{SOON, within};

/// The body of a request.
pub type Body = BoxBody<Bytes, std::io::Error>;

/// A body of these bytes, with a known length.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed()
}

/// No body.
#[must_use]
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// The trailer fields, if there were any.
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    /// Reads the rest of a response.
    ///
    /// # Errors
    /// When the connection or the stream ends before the body does.
    pub async fn of(response: Response<Incoming>) -> Result<Self, hyper::Error> {
        let (head, body) = response.into_parts();
        let body = body.collect().await?;
        let trailers = body.trailers().cloned();
        Ok(Self {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
            trailers,
        })
    }

    /// The body as text; what is not UTF-8 is replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header field as text, empty when it is not there.
    #[must_use]
    pub fn header(&self, name: &str) -> String {
        let value = self.headers.get(name).map(|value| value.as_bytes());
        String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
    }

    /// The `code` of a problem body.
    ///
    /// # Panics
    /// When this is no problem as RFC 9457 has it, or its `status` is not that of the response.
    #[must_use]
    pub fn problem(&self) -> String {
        let kind = self.header("content-type");
        assert_eq!(kind, "application/problem+json", "{self:?}");
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(body["status"], self.status.as_u16(), "{body}");
        for member in ["type", "title", "detail"] {
            assert!(
                body[member].as_str().is_some_and(|s| !s.is_empty()),
                "{member}: {body}"
            );
        }
        body["code"]
            .as_str()
            .unwrap_or_else(|| panic!("no code: {body}"))
            .to_owned()
    }
}

#[derive(Debug)]
enum Sender {
    H1(http1::SendRequest<Body>),
    H2(http2::SendRequest<Body>),
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    sender: Sender,
}

impl Connection {
    /// Connects with HTTP/1.1.
    ///
    /// # Errors
    /// When the server does not accept.
    pub async fn h1(addr: SocketAddr) -> anyhow::Result<Self> {
        Self::h1_over(connect(addr).await?).await
    }

    /// Speaks HTTP/1.1 over a stream.
    ///
    /// # Errors
    /// When the server does not accept.
    pub async fn h1_over<T>(stream: T) -> anyhow::Result<Self>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::Builder::new()
            .max_headers(2000)
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::spawn(connection.with_upgrades());
        Ok(Self {
            sender: Sender::H1(sender),
        })
    }

    /// Connects with HTTP/2, prior knowledge.
    ///
    /// # Errors
    /// When the server does not accept.
    pub async fn h2(addr: SocketAddr) -> anyhow::Result<Self> {
        Self::h2_over(connect(addr).await?).await
    }

    /// Speaks HTTP/2 over a stream.
    ///
    /// # Errors
    /// When the server does not accept.
    pub async fn h2_over<T>(stream: T) -> anyhow::Result<Self>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        Ok(Self {
            sender: Sender::H2(sender),
        })
    }

    /// Sends a request and gives the response as soon as its head is there.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        match &mut self.sender {
            Sender::H1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Sender::H2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// When the connection fails, or the body does not end well.
    pub async fn call(&mut self, request: Request<Body>) -> Result<Answer, hyper::Error> {
        Answer::of(self.send(request).await?).await
    }

    /// A second sender of the same HTTP/2 connection.
    ///
    /// # Panics
    /// When this is HTTP/1.1.
    #[must_use]
    pub fn another(&self) -> Self {
        match &self.sender {
            Sender::H2(sender) => Self {
                sender: Sender::H2(sender.clone()),
            },
            Sender::H1(_) => panic!("HTTP/1.1 has one request at a time"),
        }
    }

    /// A request for a path of the app with this host name, as this connection's version writes it.
    ///
    /// # Panics
    /// When the words make no request.
    #[must_use]
    pub fn request(&self, method: &str, host: &str, path: &str, body: Body) -> Request<Body> {
        let builder = Request::builder().method(method);
        let builder = match self.sender {
            Sender::H1(_) => builder.uri(path).header("host", host),
            Sender::H2(_) => builder.uri(format!("http://{host}{path}")),
        };
        builder.body(body).unwrap()
    }

    /// `GET`s a path of the app with this host name.
    ///
    /// # Panics
    /// When there is no whole answer in time.
    pub async fn get(&mut self, host: &str, path: &str) -> Answer {
        let request = self.request("GET", host, path, empty());
        let what = format!("the answer to GET {path} of {host}");
        within(SOON, &what, self.call(request))
            .await
            .unwrap_or_else(|e| panic!("{what}: {e:?}"))
    }
}

async fn connect(addr: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// `GET`s a path over a connection of its own.
///
/// # Errors
/// When there is no whole answer.
pub async fn get(addr: SocketAddr, host: &str, path: &str) -> anyhow::Result<Answer> {
    let mut connection = Connection::h1(addr).await?;
    let request = connection.request("GET", host, path, empty());
    Ok(connection.call(request).await?)
}
