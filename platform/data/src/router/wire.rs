//! A client's connection under hyper: tells the protocol, watches heads, and says in full what hyper only hints at.
//!
//! hyper answers a head that it cannot parse with a bare status line. Those answers are replaced by problems, like
//! every other error of the router; see [`Wire::explain`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use platform_model::Problem;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::scan::Scanner;

/// What a client of HTTP/2 says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Status of an answer to a head that did not come in time.
pub(crate) const TIMEOUT: u16 = 408;

/// The two protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.0 or 1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// What is known of the requests on a connection, for those who do not read it.
#[derive(Debug, Default)]
pub(crate) struct Begun {
    in_head: AtomicBool,
    /// Requests that hyper has handed out.
    taken: AtomicU64,
    /// The number of the request with two lengths, plus one; 0 for none.
    smuggled: AtomicU64,
}

impl Begun {
    /// Counts a request that hyper hands out, and says whether it is one with two lengths.
    pub(crate) fn take_request(&self) -> bool {
        let number = self.taken.fetch_add(1, Ordering::Relaxed) + 1;
        self.smuggled.load(Ordering::Relaxed) == number
    }

    /// Whether a head has begun and not ended.
    pub(crate) fn in_head(&self) -> bool {
        self.in_head.load(Ordering::Relaxed)
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Wire<S> {
    stream: S,
    /// Bytes that were read to tell the protocol, not yet read by hyper.
    first: Vec<u8>,
    given: usize,
    scanner: Option<Scanner>,
    begun: Arc<Begun>,
    /// An answer of this file's own, on its way out.
    own: Vec<u8>,
    written: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// A connection of which nothing has been read.
    pub(crate) fn new(stream: S) -> Self {
        Wire {
            stream,
            first: Vec::new(),
            given: 0,
            scanner: None,
            begun: Arc::default(),
            own: Vec::new(),
            written: 0,
        }
    }

    /// Takes the protocol that was agreed upon beforehand.
    pub(crate) fn agreed(&mut self, protocol: Protocol) {
        if protocol == Protocol::Http1 {
            self.scanner = Some(Scanner::default());
        }
    }

    /// Reads until the protocol is known. Cut off, it keeps what it has read.
    pub(crate) async fn protocol(&mut self) -> io::Result<Protocol> {
        loop {
            let same = self
                .first
                .iter()
                .zip(PREFACE)
                .take_while(|(a, b)| a == b)
                .count();
            if same == PREFACE.len() {
                return Ok(Protocol::Http2);
            }
            if same < self.first.len() {
                self.scanner = Some(Scanner::default());
                return Ok(Protocol::Http1);
            }
            if self.stream.read_buf(&mut self.first).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Whether anything has come.
    pub(crate) fn has_begun(&self) -> bool {
        !self.first.is_empty()
    }

    /// What is known of the requests.
    pub(crate) fn begun(&self) -> Arc<Begun> {
        Arc::clone(&self.begun)
    }

    /// Answers with a problem of this status, and closes.
    pub(crate) async fn refuse(mut self, status: u16) {
        // The client may be gone already.
        let _ = self.stream.write_all(&answer(status)).await;
        let _ = self.stream.shutdown().await;
    }

    /// Shows bytes to the scanner. Fails where they are no HTTP though hyper would take them.
    fn watch(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(scanner) = &mut self.scanner {
            scanner.feed(bytes);
            self.begun
                .in_head
                .store(scanner.in_head(), Ordering::Relaxed);
            if let Some(number) = scanner.smuggled {
                self.begun.smuggled.store(number + 1, Ordering::Relaxed);
            }
            if scanner.broken {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        Ok(())
    }

    /// Whether `bytes` are hyper's own answer to a head that it did not take: no request is handed out for it.
    fn explain(&mut self, bytes: &[u8]) -> bool {
        let ours =
            bytes.starts_with(b"HTTP/1.1 4") && bytes.len() < 200 && bytes.ends_with(b"\r\n\r\n");
        let Some(scanner) = self.scanner.as_ref().filter(|_| ours) else {
            return false;
        };
        let answered =
            scanner.heads == self.begun.taken.load(Ordering::Relaxed) && !scanner.in_head();
        let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
        if answered || text.contains("x-request-id") || !text.contains("content-length: 0\r\n") {
            return false;
        }
        let Some(status) = text.get(9..12).and_then(|digits| digits.parse().ok()) else {
            return false;
        };
        self.own = answer(status);
        self.written = 0;
        true
    }

    fn poll_own(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.own.get(self.written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// What is told of a head that no app gets.
pub(super) fn refusal(status: u16) -> Problem {
    let (title, code, detail) = match status {
        408 => (
            "Request Timeout",
            "slow-head",
            "the head of the request did not come in time",
        ),
        414 => (
            "URI Too Long",
            "target-too-long",
            "the request's target is longer than any app takes",
        ),
        431 => (
            "Request Header Fields Too Large",
            "head-too-large",
            "the head of the request is larger, or has more fields, than any app takes",
        ),
        _ => (
            "Bad Request",
            "malformed-request",
            "the head of the request is not what HTTP wants",
        ),
    };
    Problem::new(status, code, title, detail)
}

/// A whole answer of HTTP/1.1 with a problem in it.
fn answer(status: u16) -> Vec<u8> {
    let problem = refusal(status);
    let body = serde_json::to_string(&problem).unwrap_or_default();
    let reason = problem.title;
    let kind = platform_model::problem::CONTENT_TYPE;
    let length = body.len();
    format!("HTTP/1.1 {status} {reason}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}").into_bytes()
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        if this.given < this.first.len() {
            let rest = this.first.get(this.given..).unwrap_or_default();
            let piece = rest.get(..buffer.remaining()).unwrap_or(rest);
            buffer.put_slice(piece);
            this.given += piece.len();
        } else {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        }
        this.watch(buffer.filled().get(before..).unwrap_or_default())?;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.explain(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [bytes] = bufs
            && self.explain(bytes)
        {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_own(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_own(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
