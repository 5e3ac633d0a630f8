//! Which header fields pass, in both directions, and what is added. RFC 9110 §7.6.1, RFC 9112 §3.2 and §6.
//!
//! Pure functions over header maps: no input or output, no state.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri, Version};

use super::reject::Reject;
use crate::link::head::FieldWriter;
use crate::trace::{Context, TRACEPARENT, TRACESTATE};

/// Fields that belong to the connection, or that frame the message: they never pass.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
];

/// The field with the id of a request.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(name)
}

/// Fields about the client's way here: said by this router, and by nobody else.
fn is_forwarding(name: &HeaderName) -> bool {
    *name == header::FORWARDED
        || name.as_str().starts_with("x-forwarded-")
        || name.as_str() == "x-real-ip"
}

/// Whether a field of `Connection` names `name`.
fn is_named(connection: &HeaderMap, name: &HeaderName) -> bool {
    connection
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .any(|option| {
            option
                .trim_ascii()
                .eq_ignore_ascii_case(name.as_str().as_bytes())
        })
}

/// Whether the client takes trailers.
pub(crate) fn takes_trailers(headers: &HeaderMap) -> bool {
    let mut values = headers
        .get_all(header::TE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    values.any(|coding| {
        coding
            .split(|&byte| byte == b';')
            .next()
            .is_some_and(|name| name.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    })
}

/// The host and port that a request is for, as its client wrote them.
pub(crate) fn authority<'r>(
    version: Version,
    uri: &'r Uri,
    headers: &'r HeaderMap,
) -> Result<&'r str, Reject> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Reject::Malformed("there is more than one Host field"));
    }
    let host = match host {
        Some(value) => Some(
            value
                .to_str()
                .map_err(|_| Reject::Malformed("the Host field is no host"))?,
        ),
        None => None,
    };
    if version != Version::HTTP_2 && uri.scheme().is_none() && uri.authority().is_some() {
        // `GET name`: the authority form of RFC 9112 §3.2.3, which is for CONNECT alone.
        return Err(Reject::Malformed("the request's target is no path"));
    }
    let authority = match (uri.authority(), host) {
        (Some(authority), Some(host))
            if version == Version::HTTP_2 && !authority.as_str().eq_ignore_ascii_case(host) =>
        {
            return Err(Reject::Malformed("the Host field and :authority differ"));
        }
        (Some(_), None) if version == Version::HTTP_11 => {
            return Err(Reject::Malformed("there is no Host field"));
        }
        (Some(authority), _) => authority.as_str(),
        (None, Some(host)) => host,
        (None, None) => return Err(Reject::Malformed("there is no Host field")),
    };
    host_of(authority)
        .map(|_| authority)
        .ok_or(Reject::Malformed("the host is no host"))
}

/// The host in `HOST[:PORT]`. `None`: it is none.
pub(crate) fn host_of(authority: &str) -> Option<&str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (inside, rest) = rest.split_once(']')?;
            inside.parse::<std::net::Ipv6Addr>().ok()?;
            (
                authority.get(..inside.len() + 2)?,
                if rest.is_empty() {
                    None
                } else {
                    Some(rest.strip_prefix(':')?)
                },
            )
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&byte);
    let named = host.starts_with('[') || (!host.is_empty() && host.bytes().all(fits));
    let numbered =
        port.is_none_or(|port| port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit()));
    (named && numbered).then_some(host)
}

/// Refuses requests that hyper lets through and that are not to pass.
pub(crate) fn check(method: &Method, headers: &HeaderMap) -> Result<(), Reject> {
    if *method == Method::CONNECT {
        return Err(Reject::Connect);
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next()
        && (codings.next().is_some()
            || !coding
                .as_bytes()
                .trim_ascii()
                .eq_ignore_ascii_case(b"chunked"))
    {
        return Err(Reject::Coding);
    }
    if headers.contains_key(header::TRANSFER_ENCODING)
        && headers.contains_key(header::CONTENT_LENGTH)
    {
        return Err(Reject::Malformed(
            "there are both Content-Length and Transfer-Encoding",
        ));
    }
    content_length(headers)
        .map_err(|()| Reject::Malformed("the Content-Length field is no length"))?;
    Ok(())
}

/// The length that a head announces. `Err`: several, or none that can be.
pub(crate) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, ()> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let digits = value.as_bytes();
    if digits.is_empty()
        || !digits.iter().all(u8::is_ascii_digit)
        || values.any(|other| other != value)
    {
        return Err(());
    }
    value
        .to_str()
        .ok()
        .and_then(|digits| digits.parse().ok())
        .map(Some)
        .ok_or(())
}

/// Whether the client's own id of its request may be used: short, and harmless in any log.
pub(crate) fn usable_id(value: &HeaderValue) -> bool {
    let id = value.as_bytes();
    (1..=64).contains(&id.len())
        && id
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte))
}

/// Where a request comes from, as the fields about it say it.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'a> {
    /// The client's address.
    pub(crate) address: &'a str,
    /// As `Forwarded` wants it: quoted and in brackets if it is one of IPv6.
    pub(crate) node: &'a str,
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
    /// The host that the client asked for.
    pub(crate) authority: &'a str,
    /// The part of the path that the component does not see; mostly empty.
    pub(crate) prefix: &'a str,
    /// The request's id.
    pub(crate) id: &'a [u8],
    /// What the component's own spans are within, where the request is traced.
    pub(crate) trace: Option<&'a Context>,
}

/// Writes the fields that a component gets.
pub(crate) fn write_request(
    buffer: &mut Vec<u8>,
    version: Version,
    headers: &HeaderMap,
    origin: &Origin<'_>,
) {
    let has_connection = headers.contains_key(header::CONNECTION);
    let join_cookies =
        version == Version::HTTP_2 && headers.get_all(header::COOKIE).iter().nth(1).is_some();
    let mut fields = FieldWriter::new(buffer);
    for (name, value) in headers {
        let held_back = is_hop_by_hop(name)
            || *name == header::HOST
            || *name == REQUEST_ID
            || is_forwarding(name)
            || (origin.trace.is_some() && (*name == TRACEPARENT || *name == TRACESTATE))
            || (has_connection && is_named(headers, name))
            || (join_cookies && *name == header::COOKIE);
        if !held_back {
            fields.put(name.as_str(), value.as_bytes());
        }
    }
    if join_cookies {
        // RFC 9113 §8.2.3: crumbs are put together before they leave HTTP/2.
        let crumbs: Vec<&[u8]> = headers
            .get_all(header::COOKIE)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        fields.put(header::COOKIE.as_str(), &crumbs.join(&b"; "[..]));
    }
    if takes_trailers(headers) {
        fields.put(header::TE.as_str(), b"trailers");
    }
    fields.put("x-forwarded-for", origin.address.as_bytes());
    fields.put("x-forwarded-proto", origin.scheme.as_bytes());
    fields.put("x-forwarded-host", origin.authority.as_bytes());
    fields.put_parts(
        "forwarded",
        &[
            b"for=",
            origin.node.as_bytes(),
            b";host=\"",
            origin.authority.as_bytes(),
            b"\";proto=",
            origin.scheme.as_bytes(),
        ],
    );
    if !origin.prefix.is_empty() {
        fields.put("x-forwarded-prefix", origin.prefix.as_bytes());
    }
    fields.put(REQUEST_ID.as_str(), origin.id);
    if let Some(trace) = origin.trace {
        fields.put(TRACEPARENT.as_str(), trace.to_string().as_bytes());
        if !trace.state.is_empty() {
            fields.put(TRACESTATE.as_str(), trace.state.as_bytes());
        }
    }
    fields.finish();
}

/// Removes from a head what must not pass: of a guest's response, or of an upstream's.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .keys()
            .filter(|name| is_named(headers, name))
            .cloned()
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Removes from trailers what belongs into a head only.
pub(crate) fn strip_trailers(trailers: &mut HeaderMap) {
    strip_hop_by_hop(trailers);
    for name in [
        header::HOST,
        header::CONTENT_LENGTH,
        header::TRAILER,
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::SET_COOKIE,
    ] {
        trailers.remove(name);
    }
}

/// How the body of a response is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none, whatever the guest sends.
    None,
    /// It has this length, if one is known.
    Length(Option<u64>),
}

/// Makes a guest's head one that may be sent, and says how its body is to be.
pub(crate) fn response(
    method: &Method,
    status: StatusCode,
    headers: &mut HeaderMap,
) -> Result<Framing, Reject> {
    if status.is_informational() {
        return Err(Reject::BadResponse(
            "the component answered with an interim status, which is none to end with",
        ));
    }
    strip_hop_by_hop(headers);
    let length = content_length(headers)
        .map_err(|()| Reject::BadResponse("the response's content-length is no length"))?;
    if let Some(length) = length
        && headers
            .get_all(header::CONTENT_LENGTH)
            .iter()
            .nth(1)
            .is_some()
    {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    if status == StatusCode::NO_CONTENT || status == StatusCode::RESET_CONTENT {
        headers.remove(header::CONTENT_LENGTH);
        return Ok(Framing::None);
    }
    if *method == Method::HEAD || status == StatusCode::NOT_MODIFIED {
        return Ok(Framing::None);
    }
    Ok(Framing::Length(length))
}

/// Bytes and number of fields of a request's head, as HTTP/1.1 would write it.
pub(crate) fn size(method: &Method, uri: &Uri, headers: &HeaderMap) -> (usize, usize) {
    let target = uri
        .path_and_query()
        .map_or(1, |target| target.as_str().len());
    let line = method.as_str().len() + target + 12;
    let fields = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum::<usize>();
    (line + fields, headers.len())
}

/// The id of a request: the client's if it can be used, else one that is made.
pub(crate) fn request_id(headers: &HeaderMap, make: impl FnOnce() -> Bytes) -> Bytes {
    let mut given = headers.get_all(REQUEST_ID).iter();
    match (given.next(), given.next()) {
        (Some(id), None) if usable_id(id) => Bytes::copy_from_slice(id.as_bytes()),
        _ => make(),
    }
}

#[cfg(test)]
mod tests;
