//! W3C Trace Context: `traceparent` and `tracestate`, read from a client and written for a component or an upstream.
//!
//! What a client says is believed as an id of a parent and no more. What is malformed is as good as nothing.

use std::fmt;

use http::{HeaderMap, HeaderName};

/// The field with the ids.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The field with what others add to a trace.
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Longest state that is handed on, in bytes.
const MAX_STATE: usize = 512;

/// Most members of a state.
const MAX_MEMBERS: usize = 32;

/// A span as others refer to it: what is within it has it as its parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Context {
    /// The trace; never 0.
    pub(crate) trace_id: u128,
    /// The span; never 0.
    pub(crate) span_id: u64,
    /// The trace's state; empty for none.
    pub(crate) state: String,
}

impl Context {
    /// What the fields of a head say. `None`: nothing, or nothing that is well-formed.
    pub(crate) fn read(headers: &HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all(&TRACEPARENT).iter();
        let parent = parents.next()?;
        if parents.next().is_some() {
            return None;
        }
        let (trace_id, span_id) = parse(parent.as_bytes())?;
        Some(Self {
            trace_id,
            span_id,
            state: state(headers).unwrap_or_default(),
        })
    }
}

impl fmt::Display for Context {
    /// As `traceparent` has it, of a request that is traced.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-01", self.trace_id, self.span_id)
    }
}

/// The ids in `VERSION-TRACE-SPAN-FLAGS`. A version that is not known may have more behind that.
fn parse(text: &[u8]) -> Option<(u128, u64)> {
    let (known, rest) = text.split_at_checked(55)?;
    let known = str::from_utf8(known).ok()?;
    let mut parts = known.split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let lengths = [version, trace, span, flags].map(str::len) == [2, 32, 16, 2];
    let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let digits = known.bytes().all(|byte| byte == b'-' || lower_hex(byte));
    let end = match version {
        "00" => rest.is_empty(),
        _ => rest.first().is_none_or(|byte| *byte == b'-'),
    };
    if !lengths || !digits || !end || version == "ff" {
        return None;
    }
    let trace = u128::from_str_radix(trace, 16).ok()?;
    let span = u64::from_str_radix(span, 16).ok()?;
    (trace != 0 && span != 0).then_some((trace, span))
}

/// The fields of the state, joined. `None`: there is one that is malformed, or too much.
fn state(headers: &HeaderMap) -> Option<String> {
    let mut members = Vec::new();
    let mut length = 0;
    for value in headers.get_all(&TRACESTATE) {
        let text = value.to_str().ok()?;
        for member in text
            .split(',')
            .map(str::trim)
            .filter(|member| !member.is_empty())
        {
            if !is_member(member) {
                return None;
            }
            length += member.len() + 1;
            members.push(member);
        }
    }
    (members.len() <= MAX_MEMBERS && length <= MAX_STATE + 1).then(|| members.join(","))
}

/// Whether a text is `KEY=VALUE`.
fn is_member(text: &str) -> bool {
    let Some((key, value)) = text.split_once('=') else {
        return false;
    };
    let in_key =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(&byte);
    let in_value = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'=';
    (1..=256).contains(&key.len())
        && key.bytes().all(in_key)
        && (1..=256).contains(&value.len())
        && value.bytes().all(in_value)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(fields: &[(&'static str, &str)]) -> Option<Context> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        Context::read(&headers)
    }

    #[test]
    fn well_formed_ids() {
        let context = read(&[("traceparent", GOOD)]).unwrap();
        assert_eq!(context.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(context.span_id, 0x00f0_67aa_0ba9_02b7);
        assert_eq!(context.to_string(), GOOD);
        let newer = GOOD.replacen("00", "cc", 1) + "-what-comes";
        assert_eq!(read(&[("traceparent", &newer)]), Some(context));
    }

    #[test]
    fn anything_else_is_nothing() {
        let zeros = |from: usize, to: usize| {
            let mut text = GOOD.to_owned();
            text.replace_range(from..to, &"0".repeat(to - from));
            text
        };
        for bad in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}-00"),
            &format!("{GOOD}0"),
            &GOOD.to_uppercase(),
            &GOOD.replacen("00", "ff", 1),
            &GOOD.replace('-', "_"),
            &GOOD.replace("4bf9", "4bg9"),
            &GOOD.replace("4bf9", "4b-9"),
            &zeros(3, 35),
            &zeros(36, 52),
        ] {
            assert_eq!(read(&[("traceparent", bad)]), None, "{bad}");
        }
        assert_eq!(read(&[("traceparent", GOOD), ("traceparent", GOOD)]), None);
        assert_eq!(read(&[("tracestate", "a=1")]), None);
    }

    #[test]
    fn states_are_joined_or_left_out() {
        let state = |fields: &[&str]| {
            let mut all = vec![("traceparent", GOOD)];
            all.extend(fields.iter().map(|field| ("tracestate", *field)));
            read(&all).unwrap().state
        };
        assert_eq!(state(&["a=1, b@c=x y", ",d=2"]), "a=1,b@c=x y,d=2");
        for bad in ["a", "A=1", "a=", "=1", "a=b=c"] {
            assert_eq!(state(&[bad, "b=2"]), "", "{bad}");
        }
        let many = (0..33)
            .map(|n| format!("k{n}=v"))
            .collect::<Vec<_>>()
            .join(",");
        assert_eq!(state(&[&many]), "");
        let long = format!("a={0},b={0},c={0}", "x".repeat(200));
        assert_eq!(state(&[&long]), "");
    }

    proptest! {
        #[test]
        fn what_is_read_is_well_formed(parent in "[0-9a-f-]{50,60}|\\PC*", more in "\\PC*") {
            let mut headers = HeaderMap::new();
            for (name, value) in [(TRACEPARENT, &parent), (TRACESTATE, &more)] {
                if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                    headers.append(name, value);
                }
            }
            if let Some(context) = Context::read(&headers) {
                prop_assert!(context.trace_id != 0 && context.span_id != 0);
                prop_assert!(HeaderValue::from_str(&context.state).is_ok());
            }
        }
    }
}
