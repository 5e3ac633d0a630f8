//! A bare TCP connection: requests that no client library would send, answers byte by byte.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long a test waits for bytes that should come at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    /// Read, and not yet given out.
    ahead: Vec<u8>,
}

/// An answer as it came over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawAnswer {
    /// The status code.
    pub status: u16,
    /// Status line and header fields, as they came.
    pub head: String,
    /// The body, unchunked.
    pub body: Vec<u8>,
    /// The trailer section, as it came.
    pub trailers: String,
}

impl RawAnswer {
    /// The values of a header field.
    #[must_use]
    pub fn header(&self, name: &str) -> Vec<String> {
        let lines = self
            .head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'));
        lines
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
            .collect()
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Raw {
    /// Connects.
    ///
    /// # Panics
    /// When nobody accepts.
    #[must_use]
    pub fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&addr, PATIENCE)
            .unwrap_or_else(|e| panic!("connect to {addr}: {e}"));
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            ahead: Vec::new(),
        }
    }

    /// Waits this long for bytes from now on.
    ///
    /// # Panics
    /// Never with a time above zero.
    pub fn patience(&mut self, time: Duration) {
        self.stream.set_read_timeout(Some(time)).unwrap();
    }

    /// Sends bytes. A server that has closed the connection is no failure here: what it said counts.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Sends bytes; whether the server still takes them.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Says that nothing more will be sent.
    pub fn finish(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// More bytes into `ahead`; false at the end of the connection.
    fn more(&mut self) -> bool {
        let mut buffer = [0; 16384];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(n) => {
                self.ahead.extend_from_slice(&buffer[..n]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!(
                "waited {:?} in vain for bytes of the server: {error}; had {:?}",
                self.stream.read_timeout(),
                String::from_utf8_lossy(&self.ahead)
            ),
        }
    }

    /// Reads up to and with `end`; `None` when the connection ends before.
    fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        let mut from = 0;
        loop {
            if let Some(at) = self.ahead[from..].windows(end.len()).position(|w| w == end) {
                return Some(self.ahead.drain(..from + at + end.len()).collect());
            }
            from = (self.ahead.len() + 1).saturating_sub(end.len());
            if !self.more() {
                return None;
            }
        }
    }

    /// Reads so many bytes; fewer when the connection ends before.
    pub fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.ahead.len() < count && self.more() {}
        let count = count.min(self.ahead.len());
        self.ahead.drain(..count).collect()
    }

    /// All that comes until the server closes the connection.
    #[must_use]
    pub fn rest(&mut self) -> Vec<u8> {
        while self.more() {}
        std::mem::take(&mut self.ahead)
    }

    /// The head of the next answer, interim ones too; `None` when the connection ends instead.
    pub fn head(&mut self) -> Option<RawAnswer> {
        let head = self.until(b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut words = head.split(' ');
        assert!(
            words.next().is_some_and(|v| v.starts_with("HTTP/1.")),
            "no status line: {head:?}"
        );
        let status = words.next().and_then(|w| w.trim().parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status: {head:?}"));
        Some(RawAnswer {
            status,
            head,
            body: Vec::new(),
            trailers: String::new(),
        })
    }

    /// The next final answer, to a request with `method`; `None` when the connection ends before it is whole.
    pub fn answer_to(&mut self, method: &str) -> Option<RawAnswer> {
        let mut answer = self.head()?;
        while (100..200).contains(&answer.status) {
            answer = self.head()?;
        }
        let lengths = answer.header("content-length");
        let coded = answer.header("transfer-encoding");
        assert!(
            lengths.is_empty() || coded.is_empty(),
            "both lengths: {}",
            answer.head
        );
        if method == "HEAD" || [204, 304].contains(&answer.status) {
            return Some(answer);
        }
        if !coded.is_empty() {
            assert_eq!(coded, ["chunked"], "{}", answer.head);
            return self.chunked(answer);
        }
        match lengths.as_slice() {
            [] => answer.body = self.rest(),
            [length] => {
                let length = length
                    .parse()
                    .unwrap_or_else(|_| panic!("length: {}", answer.head));
                answer.body = self.exactly(length);
                if answer.body.len() < length {
                    return None;
                }
            }
            _ => panic!("several lengths: {}", answer.head),
        }
        Some(answer)
    }

    /// The next final answer to a GET or POST; `None` when the connection ends before it is whole.
    pub fn answer(&mut self) -> Option<RawAnswer> {
        self.answer_to("GET")
    }

    fn chunked(&mut self, mut answer: RawAnswer) -> Option<RawAnswer> {
        loop {
            let line = self.until(b"\r\n")?;
            let line = String::from_utf8_lossy(&line).into_owned();
            let size = line.trim_end().split(';').next().unwrap_or_default();
            let size =
                usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("chunk size {line:?}"));
            if size == 0 {
                break;
            }
            let chunk = self.exactly(size);
            if chunk.len() < size {
                return None;
            }
            answer.body.extend_from_slice(&chunk);
            assert_eq!(self.until(b"\r\n")?, b"\r\n", "a chunk without its end");
        }
        loop {
            let line = self.until(b"\r\n")?;
            if line == b"\r\n" {
                return Some(answer);
            }
            answer.trailers.push_str(&String::from_utf8_lossy(&line));
        }
    }

    /// Whether the server closes the connection within this time (what it sends until then is dropped).
    #[must_use]
    pub fn closes_within(&mut self, time: Duration) -> bool {
        let end = Instant::now() + time;
        let mut buffer = [0; 16384];
        while let Some(left) = end
            .checked_duration_since(Instant::now())
            .filter(|d| !d.is_zero())
        {
            self.stream.set_read_timeout(Some(left)).unwrap();
            match self.stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
        false
    }
}

/// Sends one request as it stands and gives the answer; `None` when the connection ends without one.
#[must_use]
pub fn exchange(addr: SocketAddr, request: impl AsRef<[u8]>) -> Option<RawAnswer> {
    let mut raw = Raw::connect(addr);
    raw.send(request);
    raw.answer()
}
