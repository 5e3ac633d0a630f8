//! HTTP/2 frame by frame, for what a client library keeps one from sending.

use std::net::SocketAddr;
use std::time::Duration;

use crate::raw::Raw;

/// Frame types.
pub mod kind {
    /// DATA.
    pub const DATA: u8 = 0;
    /// HEADERS.
    pub const HEADERS: u8 = 1;
    /// `RST_STREAM`.
    pub const RST_STREAM: u8 = 3;
    /// SETTINGS.
    pub const SETTINGS: u8 = 4;
    /// `PUSH_PROMISE`.
    pub const PUSH_PROMISE: u8 = 5;
    /// PING.
    pub const PING: u8 = 6;
    /// GOAWAY.
    pub const GOAWAY: u8 = 7;
    /// `WINDOW_UPDATE`.
    pub const WINDOW_UPDATE: u8 = 8;
    /// CONTINUATION.
    pub const CONTINUATION: u8 = 9;
}

/// `END_STREAM`, or ACK.
pub const END_STREAM: u8 = 1;
/// `END_HEADERS`.
pub const END_HEADERS: u8 = 4;

/// A frame as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of a `RST_STREAM` or GOAWAY.
    #[must_use]
    pub fn error(&self) -> Option<u32> {
        let at = match self.kind {
            kind::RST_STREAM => 0,
            kind::GOAWAY => 4,
            _ => return None,
        };
        let bytes = self.payload.get(at..at + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    }
}

/// How the server answered something it had to refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The stream was reset with this code.
    Stream(u32),
    /// The connection was ended with this code.
    Connection(u32),
    /// The stream was answered with a status other than 200 (which one is in the header block).
    Answered,
    /// The connection was closed without a word.
    Closed,
}

/// An HTTP/2 connection, prior knowledge, with the preface and the settings exchanged.
#[derive(Debug)]
pub struct Frames {
    raw: Raw,
}

impl Frames {
    /// Connects.
    ///
    /// # Panics
    /// When the server is no HTTP/2 server.
    #[must_use]
    pub fn connect(addr: SocketAddr) -> Self {
        let mut raw = Raw::connect(addr);
        raw.patience(Duration::from_secs(15));
        raw.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut frames = Self { raw };
        frames.send(kind::SETTINGS, 0, 0, &[]);
        let first = frames
            .frame()
            .unwrap_or_else(|| panic!("no SETTINGS of the server"));
        assert_eq!(first.kind, kind::SETTINGS, "{first:?}");
        frames.send(kind::SETTINGS, END_STREAM, 0, &[]);
        frames
    }

    /// Sends a frame; whether the server still takes it.
    ///
    /// # Panics
    /// When the payload is longer than any frame's may be.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
        assert_eq!(len[0], 0, "a frame has less than 16 MiB");
        let mut frame = vec![len[1], len[2], len[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend_from_slice(payload);
        self.raw.try_send(frame)
    }

    /// Sends the head of a request, and its end when `end`.
    pub fn request(&mut self, stream: u32, fields: &[(&str, &str)], end: bool) -> bool {
        let flags = END_HEADERS | if end { END_STREAM } else { 0 };
        self.send(kind::HEADERS, flags, stream, &block(fields))
    }

    /// The next frame; `None` at the end of the connection.
    ///
    /// # Panics
    /// When there is neither in time.
    pub fn frame(&mut self) -> Option<Frame> {
        let head: [u8; 9] = self.raw.exactly(9).try_into().ok()?;
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let payload = self.raw.exactly(usize::try_from(len).unwrap());
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        Some(Frame {
            kind: head[3],
            flags: head[4],
            stream,
            payload,
        })
    }

    /// The first frame of this type; `None` when the connection ends first.
    pub fn wait_for(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.frame()?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    /// How the server refuses what was sent on this stream (or on the connection).
    ///
    /// # Panics
    /// When it answers 200 instead.
    pub fn refusal(&mut self, stream: u32) -> Refused {
        loop {
            let Some(frame) = self.frame() else {
                return Refused::Closed;
            };
            match frame.kind {
                kind::RST_STREAM if frame.stream == stream => {
                    return Refused::Stream(frame.error().unwrap());
                }
                // NO_ERROR announces the end only.
                kind::GOAWAY if frame.error() != Some(0) => {
                    return Refused::Connection(frame.error().unwrap());
                }
                kind::HEADERS if frame.stream == stream => {
                    // 0x88 is `:status: 200` of the static table.
                    assert_ne!(frame.payload.first(), Some(&0x88), "answered with 200");
                    return Refused::Answered;
                }
                _ => {}
            }
        }
    }

    /// Whether the request on this stream is answered with 200.
    pub fn is_ok(&mut self, stream: u32) -> bool {
        loop {
            let Some(frame) = self.frame() else {
                return false;
            };
            match frame.kind {
                kind::HEADERS if frame.stream == stream => {
                    return frame.payload.first() == Some(&0x88);
                }
                kind::RST_STREAM if frame.stream == stream => return false,
                kind::GOAWAY => return false,
                _ => {}
            }
        }
    }
}

/// A header block: each field a literal that is never indexed, without Huffman coding.
///
/// # Panics
/// When a name or a value has more than 16,000 bytes.
#[must_use]
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0x10);
        for text in [name, value] {
            let len = text.len();
            assert!(len < 16_000, "too long for a literal of this test");
            match u8::try_from(len) {
                Ok(short) if short < 127 => out.push(short),
                _ => {
                    // An integer with a prefix of seven bits.
                    let rest = u16::try_from(len - 127).unwrap();
                    let low = u8::try_from(rest & 0x7f).unwrap();
                    let high = u8::try_from(rest >> 7).unwrap();
                    out.extend(if high == 0 {
                        vec![127, low]
                    } else {
                        vec![127, low | 0x80, high]
                    });
                }
            }
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}

/// The head of `GET path` for a host, to which fields may be added.
#[must_use]
pub fn get<'a>(host: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", host),
        (":path", path),
    ]
}
