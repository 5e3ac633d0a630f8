//! How the heads of requests and responses are written into records.
//!
//! Reading borrows from the payload. Names and values are bytes: whether HTTP allows them is for the reader to say.

use crate::wire::{Malformed, Reader, Sink};

/// Header fields or trailers: `u32` count, then name and value of each, length-prefixed.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    count: u32,
    reader: Reader<'a>,
}

impl<'a> Fields<'a> {
    /// Reads the count; the fields are read by iterating. An empty payload is no fields.
    pub fn read(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let count = if payload.is_empty() { 0 } else { reader.u32()? };
        Ok(Fields { count, reader })
    }

    /// The number of fields that the writer announced.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Writes `fields`; the iterator says how many there are.
    pub fn write<S, I, N, V>(sink: &mut S, fields: I)
    where
        S: Sink,
        I: ExactSizeIterator<Item = (N, V)>,
        N: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        sink.u32(u32::try_from(fields.len()).unwrap_or(u32::MAX));
        for (name, value) in fields {
            sink.bytes(name.as_ref());
            sink.bytes(value.as_ref());
        }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.count == 0 {
            return None;
        }
        self.count -= 1;
        let field = self
            .reader
            .bytes()
            .and_then(|name| Ok((name, self.reader.bytes()?)));
        if field.is_err() {
            self.count = 0;
        }
        Some(field)
    }
}

/// Times of an outgoing request in nanoseconds; 0 is none given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// Until the connection stands.
    pub connect_ns: u64,
    /// Until the response's head.
    pub first_byte_ns: u64,
    /// Between two parts of the response's body.
    pub between_bytes_ns: u64,
}

/// The head of a request, incoming or outgoing.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// The method as it stands in the request line.
    pub method: &'a str,
    /// `http`, `https`, another, or none given.
    pub scheme: Option<&'a str>,
    /// Host and port.
    pub authority: Option<&'a str>,
    /// Path with query.
    pub path: Option<&'a str>,
    /// For outgoing requests.
    pub timeouts: Timeouts,
    /// The header fields.
    pub fields: Fields<'a>,
}

impl<'a> RequestHead<'a> {
    /// Reads a payload of kind `Request`.
    pub fn read(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        Ok(RequestHead {
            method: reader.text()?,
            scheme: reader.optional()?,
            authority: reader.optional()?,
            path: reader.optional()?,
            timeouts: Timeouts {
                connect_ns: reader.u64()?,
                first_byte_ns: reader.u64()?,
                between_bytes_ns: reader.u64()?,
            },
            fields: Fields::read(reader.rest())?,
        })
    }

    /// Writes everything but the fields, which follow by [`Fields::write`].
    pub fn write<S: Sink>(
        sink: &mut S,
        method: &str,
        scheme: Option<&str>,
        authority: Option<&str>,
        path: Option<&str>,
        timeouts: Timeouts,
    ) {
        sink.bytes(method.as_bytes());
        sink.optional(scheme);
        sink.optional(authority);
        sink.optional(path);
        sink.u64(timeouts.connect_ns);
        sink.u64(timeouts.first_byte_ns);
        sink.u64(timeouts.between_bytes_ns);
    }
}

/// The head of a response: `u16` status, then the fields.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'a> {
    /// The status code, unchecked.
    pub status: u16,
    /// The header fields.
    pub fields: Fields<'a>,
}

impl<'a> ResponseHead<'a> {
    /// Reads a payload of kind `Response`.
    pub fn read(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        Ok(ResponseHead {
            status: reader.u16()?,
            fields: Fields::read(reader.rest())?,
        })
    }
    // Written as `sink.u16(status)` and `Fields::write`.
}
