//! The records on the rings.
//!
//! A record is a [`Header`] and up to [`MAX_PAYLOAD`] bytes. A *stream* is one HTTP exchange. The host numbers
//! incoming requests, the guest numbers outgoing ones with [`OUTGOING`] set. Both bodies of an exchange use the same
//! records: `DATA… END`, or `RESET` at any time. A reader grants `CREDIT` as it consumes; a body starts with
//! [`INITIAL_CREDIT`], and a writer never sends more data than it has credit for.
//!
//! An incoming exchange: host `REQUEST [DATA… END]`; guest `RESPONSE [DATA… END]` or `RESET`; guest `DONE`, always,
//! once, last: after it the number may be used again. A host that gives up sends `RESET` and still gets `DONE`.
//! An outgoing exchange is the mirror image without `DONE`: it ends when both directions ended or one side reset it.

/// Most bytes of a payload.
pub const MAX_PAYLOAD: usize = 128 << 10;
/// Most bytes in one `DATA` record.
pub const MAX_DATA: usize = 64 << 10;
/// Bytes of a body that may be sent before the reader has granted any.
pub const INITIAL_CREDIT: u32 = 128 << 10;
/// Most bytes of a body that may be on their way, once it flows ([`crate::window`]).
pub const MAX_WINDOW: u32 = 256 << 10;
/// Set in the numbers of exchanges that the guest began.
pub const OUTGOING: u32 = 1 << 31;
/// Bytes of a header on the ring.
pub const HEADER_LEN: usize = 16;
/// [`Header::flags`]: no body follows this head.
pub const FLAG_END: u8 = 1;

/// The kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Head of a request ([`crate::head`]); host to guest: incoming, guest to host: outgoing. `aux` of an outgoing one:
    /// the incoming exchange that makes it, or 0.
    Request = 1,
    /// Head of a response.
    Response = 2,
    /// Bytes of a body.
    Data = 3,
    /// End of a body; the payload holds the trailers, empty if there are none.
    End = 4,
    /// The exchange is off. `aux`: one of [`reset`]; payload: a text for humans.
    Reset = 5,
    /// The reader takes `aux` more bytes.
    Credit = 6,
    /// The reader wants no more of this body.
    Stop = 7,
    /// Guest: an incoming exchange is over. `aux`: one of [`outcome`]; payload: [`Done`].
    Done = 8,
    /// Guest: output of the component. `aux`: 1 or 2, as the descriptors; stream: its request, or 0.
    Log = 9,
    /// Guest: booted, ready for requests.
    Ready = 10,
}

impl Kind {
    /// The kind with this number.
    pub fn from_u8(n: u8) -> Option<Kind> {
        Some(match n {
            1 => Kind::Request,
            2 => Kind::Response,
            3 => Kind::Data,
            4 => Kind::End,
            5 => Kind::Reset,
            6 => Kind::Credit,
            7 => Kind::Stop,
            8 => Kind::Done,
            9 => Kind::Log,
            10 => Kind::Ready,
            _ => return None,
        })
    }
}

/// What stands before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// [`FLAG_END`] or nothing.
    pub flags: u8,
    /// The exchange it belongs to.
    pub stream: u32,
    /// As the kind says.
    pub aux: u32,
    /// Bytes of payload.
    pub len: u32,
}

impl Header {
    /// A header without flags.
    pub fn new(kind: Kind, stream: u32, aux: u32) -> Header {
        Header {
            kind,
            flags: 0,
            stream,
            aux,
            len: 0,
        }
    }

    /// The two words that stand on the ring.
    pub fn to_words(self) -> [u64; 2] {
        [
            u64::from(self.kind as u8) | u64::from(self.flags) << 8 | u64::from(self.len) << 32,
            u64::from(self.stream) | u64::from(self.aux) << 32,
        ]
    }

    /// Reads the two words of the ring. `None`: no such kind, or a length above [`MAX_PAYLOAD`].
    #[expect(
        clippy::cast_possible_truncation,
        reason = "each field is cut out of its word on purpose"
    )]
    pub fn from_words(words: [u64; 2]) -> Option<Header> {
        let [first, second] = words;
        let len = (first >> 32) as u32;
        if len as usize > MAX_PAYLOAD {
            return None;
        }
        Some(Header {
            kind: Kind::from_u8(first as u8)?,
            flags: (first >> 8) as u8,
            stream: second as u32,
            aux: (second >> 32) as u32,
            len,
        })
    }
}

/// Payload of [`Kind::Done`]: 16 bytes, little-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Processor time of the request in nanoseconds.
    pub cpu_ns: u64,
    /// Largest size of its wasm memories in bytes.
    pub memory: u64,
}

impl Done {
    /// As it stands in the payload.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let (cpu, memory) = bytes.split_at_mut(8);
        cpu.copy_from_slice(&self.cpu_ns.to_le_bytes());
        memory.copy_from_slice(&self.memory.to_le_bytes());
        bytes
    }

    /// Reads a payload. `None`: not 16 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Done> {
        let (cpu, memory) = bytes.split_first_chunk::<8>()?;
        Some(Done {
            cpu_ns: u64::from_le_bytes(*cpu),
            memory: u64::from_le_bytes(memory.try_into().ok()?),
        })
    }
}

/// `aux` of [`Kind::Done`]: how an incoming exchange ended.
pub mod outcome {
    /// The component returned.
    pub const OK: u32 = 0;
    /// The component trapped.
    pub const TRAP: u32 = 1;
    /// It was over its processor time.
    pub const CPU: u32 = 2;
    /// It was over its memory, or the VM was.
    pub const MEMORY: u32 = 3;
    /// The host reset the exchange.
    pub const CANCELLED: u32 = 4;
    /// It worked on for too long after its response had ended.
    pub const POST_RETURN: u32 = 5;
    /// The VM has no room for one more request.
    pub const BUSY: u32 = 6;
}

/// `aux` of [`Kind::Reset`]. Numbers below 256 are `wasi:http` error codes in the order of the variant
/// `wasi:http/types.error-code` (0 = `DNS-timeout`); the others are Cloister's.
pub mod reset {
    /// `DNS-timeout`.
    pub const DNS_TIMEOUT: u32 = 0;
    /// `DNS-error`.
    pub const DNS_ERROR: u32 = 1;
    /// `destination-not-found`.
    pub const DESTINATION_NOT_FOUND: u32 = 2;
    /// `destination-unavailable`.
    pub const DESTINATION_UNAVAILABLE: u32 = 3;
    /// `destination-IP-prohibited`.
    pub const DESTINATION_IP_PROHIBITED: u32 = 4;
    /// `destination-IP-unroutable`.
    pub const DESTINATION_IP_UNROUTABLE: u32 = 5;
    /// `connection-refused`.
    pub const CONNECTION_REFUSED: u32 = 6;
    /// `connection-terminated`.
    pub const CONNECTION_TERMINATED: u32 = 7;
    /// `connection-timeout`.
    pub const CONNECTION_TIMEOUT: u32 = 8;
    /// `connection-read-timeout`.
    pub const CONNECTION_READ_TIMEOUT: u32 = 9;
    /// `connection-write-timeout`.
    pub const CONNECTION_WRITE_TIMEOUT: u32 = 10;
    /// `connection-limit-reached`.
    pub const CONNECTION_LIMIT_REACHED: u32 = 11;
    /// `TLS-protocol-error`.
    pub const TLS_PROTOCOL_ERROR: u32 = 12;
    /// `TLS-certificate-error`.
    pub const TLS_CERTIFICATE_ERROR: u32 = 13;
    /// `HTTP-request-denied`.
    pub const HTTP_REQUEST_DENIED: u32 = 15;
    /// `HTTP-request-length-required`.
    pub const HTTP_REQUEST_LENGTH_REQUIRED: u32 = 16;
    /// `HTTP-request-method-invalid`.
    pub const HTTP_REQUEST_METHOD_INVALID: u32 = 18;
    /// `HTTP-request-URI-invalid`.
    pub const HTTP_REQUEST_URI_INVALID: u32 = 19;
    /// `HTTP-response-incomplete`.
    pub const HTTP_RESPONSE_INCOMPLETE: u32 = 25;
    /// `HTTP-response-header-section-size`.
    pub const HTTP_RESPONSE_HEADER_SECTION_SIZE: u32 = 26;
    /// `HTTP-response-timeout`.
    pub const HTTP_RESPONSE_TIMEOUT: u32 = 33;
    /// `HTTP-protocol-error`.
    pub const HTTP_PROTOCOL_ERROR: u32 = 35;
    /// `internal-error`.
    pub const INTERNAL_ERROR: u32 = 38;

    /// Host: the client went away, or the server gave up on the exchange.
    pub const CANCELLED: u32 = 256;
    /// Host: the exchange took longer than it may.
    pub const DEADLINE: u32 = 257;
    /// Guest: the component trapped.
    pub const TRAP: u32 = 258;
    /// Guest: the component ended without an answer.
    pub const NO_RESPONSE: u32 = 259;
    /// Guest: over its processor time.
    pub const CPU: u32 = 260;
    /// Guest: no memory for the request.
    pub const MEMORY: u32 = 261;
    /// Guest: the head of the response is larger than the deployment allows.
    pub const HEAD_TOO_LARGE: u32 = 262;
    /// Guest: as many requests run as the guest can hold.
    pub const BUSY: u32 = 263;
    /// Guest: the component dropped the body before its end.
    pub const BODY_INCOMPLETE: u32 = 264;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_ring() {
        let header = Header {
            kind: Kind::Data,
            flags: FLAG_END,
            stream: OUTGOING | 7,
            aux: u32::MAX,
            len: 12,
        };
        assert_eq!(Header::from_words(header.to_words()), Some(header));
    }

    #[test]
    fn lies_are_refused() {
        assert_eq!(Header::from_words([0, 0]), None);
        assert_eq!(Header::from_words([11, 0]), None);
        assert_eq!(
            Header::from_words([3 | (MAX_PAYLOAD as u64 + 1) << 32, 0]),
            None
        );
    }
}
