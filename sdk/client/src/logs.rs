//! An app's log as a stream of lines.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use platform_model::LogLine;
use reqwest::Response;

use crate::ClientError;
use crate::transport::Transport;

/// Longest JSON of one line, in bytes. The node cuts what a component wrote into lines of at most 64 KiB, each byte of
/// which becomes six at worst.
const MAX_LINE: usize = 1024 * 1024;

type Chunks = Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>;

/// Lines of a log in the order in which they were written. Ends after the first error.
pub struct LogLines {
    transport: Transport,
    url: String,
    chunks: Option<Chunks>,
    buffer: Splitter,
}

impl std::fmt::Debug for LogLines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogLines")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl LogLines {
    /// Reads the body of an answer.
    pub(crate) fn new(transport: Transport, response: Response) -> Self {
        let url = response.url().to_string();
        let chunks: Chunks = response.bytes_stream().boxed();
        Self {
            transport,
            url,
            chunks: Some(chunks),
            buffer: Splitter::default(),
        }
    }

    /// One line of JSON as a value.
    fn parse(&self, line: &[u8]) -> Result<LogLine, ClientError> {
        serde_json::from_slice(line).map_err(|e| self.unexpected(e.to_string()))
    }

    fn unexpected(&self, reason: String) -> ClientError {
        ClientError::Unexpected {
            url: self.url.clone(),
            status: 200,
            reason,
        }
    }

    /// Ends the stream with an error.
    fn fail(&mut self, error: ClientError) -> Poll<Option<Result<LogLine, ClientError>>> {
        self.chunks = None;
        self.buffer = Splitter::default();
        Poll::Ready(Some(Err(error)))
    }
}

impl Stream for LogLines {
    type Item = Result<LogLine, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(line) = self.buffer.lines.pop_front() {
                return match self.parse(&line) {
                    Ok(line) => Poll::Ready(Some(Ok(line))),
                    Err(error) => self.fail(error),
                };
            }
            let Some(chunks) = &mut self.chunks else {
                return Poll::Ready(None);
            };
            match ready!(chunks.as_mut().poll_next(context)) {
                Some(Ok(chunk)) => {
                    if !self.buffer.push(&chunk) {
                        let error =
                            self.unexpected(format!("a line of more than {MAX_LINE} bytes"));
                        return self.fail(error);
                    }
                }
                Some(Err(error)) => {
                    let error = self.transport.broken(error);
                    return self.fail(error);
                }
                None => {
                    self.chunks = None;
                    self.buffer.finish();
                }
            }
        }
    }
}

/// Bytes that become lines.
#[derive(Debug, Default)]
struct Splitter {
    lines: VecDeque<Vec<u8>>,
    rest: Vec<u8>,
}

impl Splitter {
    /// Takes more bytes; false when a line is too long. Empty lines are left out: they keep a connection alive.
    fn push(&mut self, mut bytes: &[u8]) -> bool {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            let (head, tail) = bytes.split_at(end);
            self.rest.extend_from_slice(head);
            bytes = tail.get(1..).unwrap_or_default();
            self.finish();
        }
        self.rest.extend_from_slice(bytes);
        self.rest.len() <= MAX_LINE
    }

    /// Makes a line of what has no line end.
    fn finish(&mut self) {
        let line = std::mem::take(&mut self.rest);
        if !line.trim_ascii().is_empty() {
            self.lines.push_back(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_do_not_care_where_chunks_end() {
        let text = b"one\n\ntwo\r\nthree";
        for cut in 0..=text.len() {
            let (left, right) = text.split_at(cut);
            let mut splitter = Splitter::default();
            assert!(splitter.push(left) && splitter.push(right));
            splitter.finish();
            assert_eq!(splitter.lines, [&b"one"[..], b"two\r", b"three"]);
        }
    }

    #[test]
    fn a_line_without_an_end_does_not_grow_for_ever() {
        let mut splitter = Splitter::default();
        assert!(splitter.push(&vec![b'x'; MAX_LINE]));
        assert!(!splitter.push(b"x"));
    }
}
