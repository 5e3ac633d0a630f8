//! Heads as they stand on the ring, turned into those of the `http` crate.
//!
//! A guest that encodes a head wrongly broke the contract. A name or value that HTTP does not allow is only a bad
//! answer, since the two sides may draw that line a hair apart.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use sandbox_abi::head::{Fields, RequestHead, ResponseHead, Timeouts};
use sandbox_abi::wire::{Malformed, Sink};

/// A head cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    /// Not encoded as the contract says.
    #[error("a head that cannot be decoded")]
    Malformed,
    /// HTTP does not know such a name, value, method or status.
    #[error("a head that HTTP does not allow")]
    Invalid,
    /// More fields than allowed.
    #[error("a head with more than {0} fields")]
    TooMany(u32),
}

impl From<Malformed> for HeadError {
    fn from(_: Malformed) -> Self {
        HeadError::Malformed
    }
}

/// Most fields that any head may have; deployments may allow fewer.
const MAX_FIELDS: u32 = 1024;

fn fields_of(payload: &Bytes, fields: Fields<'_>) -> Result<HeaderMap, HeadError> {
    let count = Fields::count(&fields);
    if count > MAX_FIELDS {
        return Err(HeadError::TooMany(MAX_FIELDS));
    }
    let mut map = HeaderMap::with_capacity(count as usize + 4);
    for field in fields {
        let (name, value) = field?;
        let name = HeaderName::from_bytes(name).map_err(|_| HeadError::Invalid)?;
        // Shares the payload instead of copying each value.
        let value = HeaderValue::from_maybe_shared(payload.slice_ref(value))
            .map_err(|_| HeadError::Invalid)?;
        map.try_append(name, value)
            .map_err(|_| HeadError::TooMany(MAX_FIELDS))?;
    }
    Ok(map)
}

/// Decodes trailers.
pub(crate) fn trailers(payload: &Bytes) -> Result<HeaderMap, HeadError> {
    fields_of(payload, Fields::read(payload)?)
}

/// Decodes the head of a response.
pub(crate) fn response(payload: &Bytes) -> Result<(StatusCode, HeaderMap), HeadError> {
    let head = ResponseHead::read(payload)?;
    let status = StatusCode::from_u16(head.status).map_err(|_| HeadError::Malformed)?;
    Ok((status, fields_of(payload, head.fields)?))
}

/// The head of a request that a guest wants to send.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) scheme: Option<String>,
    pub(crate) authority: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) timeouts: Timeouts,
    pub(crate) fields: HeaderMap,
}

/// Decodes the head of an outgoing request.
pub(crate) fn request(payload: &Bytes) -> Result<Outgoing, HeadError> {
    let head = RequestHead::read(payload)?;
    Ok(Outgoing {
        method: Method::from_bytes(head.method.as_bytes()).map_err(|_| HeadError::Invalid)?,
        scheme: head.scheme.map(str::to_owned),
        authority: head.authority.map(str::to_owned),
        path: head.path.map(str::to_owned),
        timeouts: head.timeouts,
        fields: fields_of(payload, head.fields)?,
    })
}

/// Writes fields one by one; the count is put in place at the end.
#[derive(Debug)]
pub(crate) struct FieldWriter<'b> {
    buffer: &'b mut Vec<u8>,
    start: usize,
    count: u32,
}

impl<'b> FieldWriter<'b> {
    /// Begins fields at the end of `buffer`.
    pub(crate) fn new(buffer: &'b mut Vec<u8>) -> Self {
        let start = buffer.len();
        buffer.u32(0);
        FieldWriter {
            buffer,
            start,
            count: 0,
        }
    }

    /// Adds a field.
    pub(crate) fn put(&mut self, name: &str, value: &[u8]) {
        self.put_parts(name, &[value]);
    }

    /// Adds a field whose value is `parts`, joined.
    pub(crate) fn put_parts(&mut self, name: &str, parts: &[&[u8]]) {
        self.buffer.bytes(name.as_bytes());
        let length: usize = parts.iter().map(|part| part.len()).sum();
        self.buffer.u32(u32::try_from(length).unwrap_or(u32::MAX));
        for part in parts {
            self.buffer.extend_from_slice(part);
        }
        self.count += 1;
    }

    /// Ends the fields.
    pub(crate) fn finish(self) {
        if let Some(place) = self.buffer.get_mut(self.start..self.start + 4) {
            place.copy_from_slice(&self.count.to_le_bytes());
        }
    }
}

/// Encodes `map` as trailers, or as the fields of a head. Nothing is written for no fields.
pub(crate) fn write_trailers(buffer: &mut Vec<u8>, map: &HeaderMap) {
    if map.is_empty() {
        return;
    }
    write_fields(buffer, map);
}

/// Encodes `map` behind a head.
pub(crate) fn write_fields(buffer: &mut Vec<u8>, map: &HeaderMap) {
    let mut fields = FieldWriter::new(buffer);
    for (name, value) in map {
        fields.put(name.as_str(), value.as_bytes());
    }
    fields.finish();
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_survive_the_ring() {
        let mut map = HeaderMap::new();
        map.append("x-a", HeaderValue::from_static("1"));
        map.append("x-a", HeaderValue::from_static("2"));
        map.append("x-b", HeaderValue::from_static(""));
        let mut buffer = Vec::new();
        write_trailers(&mut buffer, &map);
        assert_eq!(trailers(&buffer.into()), Ok(map));
    }

    #[test]
    fn bad_fields_and_bad_encodings_differ() {
        let mut buffer = Vec::new();
        let mut fields = FieldWriter::new(&mut buffer);
        fields.put("x y", b"1");
        fields.finish();
        assert_eq!(trailers(&buffer.clone().into()), Err(HeadError::Invalid));
        buffer.truncate(6);
        assert_eq!(trailers(&buffer.into()), Err(HeadError::Malformed));
        let mut buffer = Vec::new();
        buffer.u32(u32::MAX);
        assert_eq!(
            trailers(&buffer.into()),
            Err(HeadError::TooMany(MAX_FIELDS))
        );
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let bytes = Bytes::from(bytes);
            let _ = (trailers(&bytes).is_ok(), response(&bytes).is_ok(), request(&bytes).is_ok());
        }
    }
}
