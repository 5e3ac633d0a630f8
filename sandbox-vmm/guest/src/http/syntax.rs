//! What HTTP allows in methods, field names, values and URIs. The rules are those of the `http` crate, which decides
//! them for `wasmtime serve`.

/// Most bytes of a field name.
const LONGEST_NAME: usize = u16::MAX as usize;
/// Most bytes of a URI.
const LONGEST_URI: usize = u16::MAX as usize - 1;
/// Most bytes of a scheme.
const LONGEST_SCHEME: usize = 64;

fn token_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// A method, or any other token.
pub fn method(s: &str) -> bool {
    !s.is_empty() && s.bytes().all(token_byte)
}

/// The name of a field, in either case.
pub fn name(s: &[u8]) -> bool {
    !s.is_empty() && s.len() <= LONGEST_NAME && s.iter().all(|b| token_byte(*b))
}

/// The value of a field.
pub fn value(s: &[u8]) -> bool {
    s.iter().all(|b| *b == b'\t' || (*b >= 0x20 && *b != 0x7f))
}

/// A length as a `content-length` gives it.
pub fn content_length(s: &[u8]) -> Option<u64> {
    if s.is_empty() || !s.iter().all(u8::is_ascii_digit) {
        return None;
    }
    core::str::from_utf8(s).ok()?.parse().ok()
}

/// A scheme.
pub fn scheme(s: &str) -> bool {
    s.len() <= LONGEST_SCHEME
        && s.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+-.~".contains(&b))
}

fn path_byte(b: u8) -> bool {
    matches!(b, 0x21..=0x22 | 0x24..=0x3B | 0x3D | 0x40..=0x5F | 0x61..=0x7E | 0x80..)
}

fn query_byte(b: u8) -> bool {
    matches!(b, 0x21 | 0x24..=0x3B | 0x3D | 0x3F..=0x7E | 0x80..)
}

/// A path with an optional query. What follows a `#` is nobody's business.
pub fn path_with_query(s: &str) -> bool {
    if s.is_empty() {
        return true;
    }
    if s.len() > LONGEST_URI || !s.starts_with(['/', '?']) {
        return false;
    }
    let s = s.split_once('#').map_or(s, |(before, _)| before);
    let (path, query) = s.split_once('?').unwrap_or((s, ""));
    path.bytes().all(path_byte) && query.bytes().all(query_byte)
}

/// Host and port, with an optional user in front.
pub fn authority(s: &str) -> bool {
    let (mut colons, mut open, mut closed, mut percent) = (0_u32, false, false, false);
    for b in s.bytes() {
        match b {
            b'%' => percent = true,
            b':' => colons += 1,
            b'[' if percent || open => return false,
            b'[' => open = true,
            b']' if !open || closed => return false,
            b']' => {
                closed = true;
                (colons, percent) = (0, false);
            }
            b'@' => (colons, percent) = (0, false),
            b'!'
            | b'$'
            | b'&'..=b'.'
            | b'0'..=b'9'
            | b';'
            | b'='
            | b'A'..=b'Z'
            | b'_'
            | b'a'..=b'z'
            | b'~' => {}
            _ => return false,
        }
        if colons > 8 {
            return false;
        }
    }
    !s.is_empty() && open == closed && colons <= 1 && !percent && !s.ends_with('@')
}
