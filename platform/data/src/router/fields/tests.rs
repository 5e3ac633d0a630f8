//! The rules for header fields, one by one.

use super::*;
use crate::link::head;
use proptest::prelude::*;

fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    fields
        .iter()
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        })
        .fold(HeaderMap::new(), |mut map, (name, value)| {
            map.append(name, value);
            map
        })
}

fn sent(version: Version, headers: &HeaderMap) -> HeaderMap {
    let origin = Origin {
        address: "10.0.0.9",
        node: "10.0.0.9",
        scheme: "https",
        authority: "a.localhost:80",
        trace: None,
        prefix: "/p",
        id: b"id",
    };
    let mut buffer = Vec::new();
    write_request(&mut buffer, version, headers, &origin);
    head::trailers(&buffer.into()).unwrap()
}

#[test]
fn fields_of_the_connection_do_not_pass() {
    let headers = map(&[
        ("host", "a.localhost"),
        ("connection", "keep-alive, X-Secret"),
        ("keep-alive", "timeout=5"),
        ("x-secret", "1"),
        ("upgrade", "websocket"),
        ("te", "trailers, gzip"),
        ("transfer-encoding", "chunked"),
        ("x-two", "1"),
        ("x-two", "2"),
        ("proxy-authorization", "x"),
    ]);
    let got = sent(Version::HTTP_11, &headers);
    for gone in [
        "host",
        "connection",
        "keep-alive",
        "x-secret",
        "upgrade",
        "transfer-encoding",
        "proxy-authorization",
    ] {
        assert!(!got.contains_key(gone), "{gone}");
    }
    assert_eq!(got.get_all("x-two").iter().collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(got["te"], "trailers");
}

#[test]
fn the_way_here_is_said_by_the_router_alone() {
    let headers = map(&[
        ("forwarded", "for=1.1.1.1"),
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-port", "1"),
        ("x-forwarded-prefix", "/q"),
        ("x-request-id", "bad id"),
    ]);
    let got = sent(Version::HTTP_11, &headers);
    assert_eq!(
        got.get_all("x-forwarded-for").iter().collect::<Vec<_>>(),
        ["10.0.0.9"]
    );
    assert_eq!(
        got["forwarded"],
        "for=10.0.0.9;host=\"a.localhost:80\";proto=https"
    );
    assert_eq!(
        (&got["x-forwarded-proto"], &got["x-forwarded-prefix"]),
        (
            &HeaderValue::from_static("https"),
            &HeaderValue::from_static("/p")
        )
    );
    assert_eq!(got["x-request-id"], "id");
    assert!(!got.contains_key("x-forwarded-port"));
}

#[test]
fn crumbs_of_http2_are_joined() {
    let headers = map(&[("cookie", "a=1"), ("cookie", "b=2")]);
    assert_eq!(
        sent(Version::HTTP_2, &headers)
            .get_all("cookie")
            .iter()
            .collect::<Vec<_>>(),
        ["a=1; b=2"]
    );
    assert_eq!(
        sent(Version::HTTP_11, &headers)
            .get_all("cookie")
            .iter()
            .count(),
        2
    );
}

#[test]
fn one_host_and_a_good_one() {
    let (origin, absolute) = (
        Uri::from_static("/x"),
        Uri::from_static("http://b.localhost/x"),
    );
    assert_eq!(
        authority(
            Version::HTTP_11,
            &origin,
            &map(&[("host", "a.localhost:81")])
        ),
        Ok("a.localhost:81")
    );
    assert_eq!(
        authority(Version::HTTP_11, &absolute, &map(&[("host", "a")])),
        Ok("b.localhost")
    );
    for bad in [
        &[][..],
        &[("host", "a"), ("host", "a")],
        &[("host", "")],
        &[("host", "a b")],
        &[("host", "u@a")],
        &[("host", "a:b")],
        &[("host", "a/b")],
    ] {
        assert!(
            authority(Version::HTTP_11, &origin, &map(bad)).is_err(),
            "{bad:?}"
        );
    }
    assert!(authority(Version::HTTP_2, &absolute, &map(&[("host", "a")])).is_err());
    assert_eq!(host_of("[::1]:80"), Some("[::1]"));
    assert_eq!(host_of("[::1"), None);
}

#[test]
fn what_hyper_lets_through_is_checked() {
    assert_eq!(check(&Method::CONNECT, &map(&[])), Err(Reject::Connect));
    assert_eq!(
        check(
            &Method::POST,
            &map(&[("transfer-encoding", "gzip, chunked")])
        ),
        Err(Reject::Coding)
    );
    assert!(check(&Method::POST, &map(&[("transfer-encoding", "Chunked")])).is_ok());
    assert!(
        check(
            &Method::POST,
            &map(&[("content-length", "1"), ("content-length", "2")])
        )
        .is_err()
    );
    assert!(check(&Method::POST, &map(&[("content-length", "+1")])).is_err());
}

#[test]
fn responses_are_made_fit() {
    let mut headers = map(&[
        ("connection", "x-a"),
        ("x-a", "1"),
        ("transfer-encoding", "chunked"),
        ("content-length", "3"),
        ("content-length", "3"),
    ]);
    assert_eq!(
        response(&Method::GET, StatusCode::OK, &mut headers),
        Ok(Framing::Length(Some(3)))
    );
    assert_eq!(headers, map(&[("content-length", "3")]));
    assert_eq!(
        response(&Method::HEAD, StatusCode::OK, &mut headers),
        Ok(Framing::None)
    );
    assert_eq!(headers.len(), 1);
    assert_eq!(
        response(&Method::GET, StatusCode::NO_CONTENT, &mut headers),
        Ok(Framing::None)
    );
    assert!(headers.is_empty());
    assert!(response(&Method::GET, StatusCode::CONTINUE, &mut HeaderMap::new()).is_err());
    assert!(
        response(
            &Method::GET,
            StatusCode::OK,
            &mut map(&[("content-length", "x")])
        )
        .is_err()
    );
}

#[test]
fn ids_are_the_clients_if_they_are_harmless() {
    let id = |value: &'static str| {
        request_id(&map(&[("x-request-id", value)]), || {
            Bytes::from_static(b"made")
        })
    };
    assert_eq!(id("abc-1_2.3"), "abc-1_2.3");
    assert_eq!(id("a b"), "made");
    assert_eq!(id(""), "made");
    assert_eq!(
        request_id(
            &map(&[("x-request-id", "a"), ("x-request-id", "b")]),
            || Bytes::from_static(b"made")
        ),
        "made"
    );
}

proptest! {
    #[test]
    fn hosts_never_panic(text in ".{0,40}") {
        let _ = host_of(&text);
    }

    #[test]
    fn a_host_has_no_strange_characters(text in "[a-z@/ \\\\:\\[\\]#?]{0,12}") {
        if let Some(host) = host_of(&text) {
            prop_assert!(!host.contains(['@', '/', ' ', '\\', '#', '?']));
        }
    }
}
