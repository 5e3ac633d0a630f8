//! Watches the bytes of an HTTP/1.1 connection go by, beside hyper, for what hyper does not tell.
//!
//! hyper obeys `Transfer-Encoding` and drops a `Content-Length` beside it; RFC 9112 §6.3 lets a server refuse such a
//! request instead, which this router does, since the pair has no use but smuggling. The scanner finds where heads
//! end, and gives up ([`State::Blind`]) at anything strange: hyper refuses that by itself.

/// Longest line that is kept where it comes in pieces.
const MAX_LINE: usize = 128 << 10;

#[derive(Debug)]
enum State {
    /// Between requests, or in a head.
    Head(Head),
    /// In a body or in a chunk: so many bytes to go.
    Skip { left: u64, chunked: bool },
    /// The line with a chunk's size is next.
    ChunkSize,
    /// The end of the line behind a chunk is next.
    ChunkEnd,
    /// Trailers.
    Trailers,
    /// Gave up.
    Blind,
}

#[derive(Debug, Default)]
struct Head {
    begun: bool,
    length: Option<u64>,
    chunked: bool,
}

/// The scanner.
#[derive(Debug)]
pub(crate) struct Scanner {
    state: State,
    /// A line whose end has not come.
    line: Vec<u8>,
    /// Heads that have ended.
    pub(crate) heads: u64,
    /// The number of the first request that has both fields, counted from 0.
    pub(crate) smuggled: Option<u64>,
    /// A chunk's size came with control characters, which hyper passes over and RFC 9112 §7.1.1 does not allow.
    pub(crate) broken: bool,
}

impl Default for Scanner {
    fn default() -> Self {
        Scanner {
            state: State::Head(Head::default()),
            line: Vec::new(),
            heads: 0,
            smuggled: None,
            broken: false,
        }
    }
}

impl Scanner {
    /// Whether a head has begun and not ended.
    pub(crate) fn in_head(&self) -> bool {
        matches!(&self.state, State::Head(head) if head.begun || !self.line.is_empty())
    }

    /// Takes the next bytes of the connection.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Blind => return,
                State::Skip { left, chunked } => {
                    let take = usize::try_from(*left)
                        .unwrap_or(usize::MAX)
                        .min(bytes.len());
                    *left -= take as u64;
                    bytes = bytes.get(take..).unwrap_or_default();
                    if *left == 0 {
                        self.state = if *chunked {
                            State::ChunkEnd
                        } else {
                            State::Head(Head::default())
                        };
                    }
                }
                _ => bytes = self.take_line(bytes),
            }
        }
    }

    fn take_line<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
            self.line.extend_from_slice(bytes);
            if self.line.len() > MAX_LINE {
                self.state = State::Blind;
            }
            return &[];
        };
        let (piece, rest) = bytes.split_at(end + 1);
        if self.line.is_empty() {
            self.on_line(piece);
        } else {
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(piece);
            self.on_line(&line);
            line.clear();
            self.line = line;
        }
        rest
    }

    fn on_line(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let next = match &mut self.state {
            State::Head(head) if line.is_empty() => {
                if !head.begun {
                    // Empty lines before a request line are skipped.
                    return;
                }
                let number = self.heads;
                self.heads += 1;
                if head.chunked && head.length.is_some() {
                    self.smuggled.get_or_insert(number);
                }
                match (head.chunked, head.length) {
                    (true, _) => State::ChunkSize,
                    (false, None | Some(0)) => State::Head(Head::default()),
                    (false, Some(left)) => State::Skip {
                        left,
                        chunked: false,
                    },
                }
            }
            State::Head(head) => {
                if !head.begun {
                    head.begun = true;
                    return;
                }
                return on_field(head, line);
            }
            State::ChunkSize if line.iter().any(|b| b.is_ascii_control() && *b != b'\t') => {
                self.broken = true;
                State::Blind
            }
            State::ChunkSize => match chunk_size(line) {
                Some(0) => State::Trailers,
                Some(left) => State::Skip {
                    left,
                    chunked: true,
                },
                None => State::Blind,
            },
            State::ChunkEnd if line.is_empty() => State::ChunkSize,
            State::Trailers if line.is_empty() => State::Head(Head::default()),
            State::Trailers => return,
            State::ChunkEnd | State::Skip { .. } | State::Blind => State::Blind,
        };
        self.state = next;
    }
}

fn on_field(head: &mut Head, line: &[u8]) {
    if !matches!(line.first(), Some(b'c' | b'C' | b't' | b'T')) {
        return;
    }
    let Some(colon) = line.iter().position(|&byte| byte == b':') else {
        return;
    };
    let (name, value) = line.split_at(colon);
    let value = value.get(1..).unwrap_or_default().trim_ascii();
    if name.eq_ignore_ascii_case(b"content-length") {
        // What is no number hyper refuses; here it only has to count as present.
        let length = std::str::from_utf8(value)
            .ok()
            .and_then(|digits| digits.parse().ok());
        head.length = Some(length.unwrap_or(0));
    } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
        head.chunked = true;
    }
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|&byte| byte == b';').next()?.trim_ascii();
    let digits = std::str::from_utf8(digits).ok()?;
    if digits.starts_with('+') {
        None
    } else {
        u64::from_str_radix(digits, 16).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan(bytes: &[u8], step: usize) -> Scanner {
        let mut scanner = Scanner::default();
        for piece in bytes.chunks(step.max(1)) {
            scanner.feed(piece);
        }
        scanner
    }

    #[test]
    fn heads_are_counted_and_bodies_skipped() {
        let bytes = b"POST / HTTP/1.1\r\nContent-Length: 19\r\n\r\nGET / HTTP/1.1\r\n\r\n!\
            POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5;x=y\r\nab\r\n\r\r\n0\r\nt: u\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\nGET /";
        for step in [1, 2, 7, 1000] {
            let scanner = scan(bytes, step);
            assert_eq!(
                (scanner.heads, scanner.smuggled, scanner.in_head()),
                (3, None, true),
                "in steps of {step}"
            );
        }
    }

    #[test]
    fn both_lengths_are_found_in_any_order() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nX: y\r\ncontent-length: 3\r\n\r\n",
        ] {
            assert_eq!(scan(bytes, 5).smuggled, Some(1));
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(bytes: Vec<u8>, step in 1_usize..50) {
            let (whole, pieces) = (scan(&bytes, bytes.len()), scan(&bytes, step));
            prop_assert_eq!((whole.heads, whole.smuggled), (pieces.heads, pieces.smuggled));
        }
    }
}
