//! What the router answers itself, without an app: redirects, and challenges of a certificate authority.

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, LOCATION};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use platform_model::Redirect;

use super::body::Body;
use super::fields;
use super::reject::Reject;
use super::table::{Host, Route, Table};

/// Where a certificate authority looks for answers, RFC 8555 §8.3.
const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// The answer to a challenge, if the request is one that is known.
pub(crate) fn challenge(table: &Table, host: &str, parts: &Parts) -> Option<Response<Body>> {
    if !table.has_challenges() || !matches!(parts.method, Method::GET | Method::HEAD) {
        return None;
    }
    let token = parts.uri.path().strip_prefix(CHALLENGES)?;
    let answer = table.challenge(host, token)?;
    let mut response = Response::new(Body::full(answer.to_owned().into()));
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Some(response)
}

/// The way to HTTPS, where the host wants it. A client that named a port is sent to `tls_port`; one that did not came
/// over the usual port, and finds the usual one of HTTPS.
pub(crate) fn to_https(
    host: &Host,
    authority: &str,
    tls_port: Option<u16>,
    parts: &Parts,
) -> Option<Result<Response<Body>, Reject>> {
    let tls_port = tls_port.filter(|_| host.https_redirect)?;
    let name = fields::host_of(authority).unwrap_or_default();
    let named = authority.len() > name.len() + 1;
    let port = match tls_port {
        port if named && port != 443 => format!(":{port}"),
        _ => String::new(),
    };
    let path = parts.uri.path_and_query().map(|path| path.as_str());
    // `OPTIONS *` is for the host as a whole.
    let path = path.filter(|path| path.starts_with('/')).unwrap_or("/");
    Some(to(
        StatusCode::PERMANENT_REDIRECT,
        format!("https://{name}{port}{path}"),
    ))
}

/// The answer of a route that redirects.
pub(crate) fn redirect(
    route: &Route,
    redirect: &Redirect,
    parts: &Parts,
) -> Result<Response<Body>, Reject> {
    let prefix = if route.prefix.is_root() {
        ""
    } else {
        route.prefix.as_str()
    };
    let path = parts.uri.path();
    let rest = path.strip_prefix(prefix).unwrap_or(path);
    let status = StatusCode::from_u16(redirect.status).unwrap_or(StatusCode::PERMANENT_REDIRECT);
    to(status, redirect.location(rest, parts.uri.query()))
}

fn to(status: StatusCode, location: String) -> Result<Response<Body>, Reject> {
    let location = HeaderValue::try_from(location)
        .map_err(|_| Reject::Malformed("the request's target cannot be redirected"))?;
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = status;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}
