//! One request and its answer: where the token is added and where answers become values or errors.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use platform_model::{Problem, problem};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;

use crate::{ClientError, Tagged};

/// Time until a connection stands.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest answer that is read, in bytes. A list of ten thousand apps is some 4 MB.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// Longest problem that is read, in bytes.
const MAX_PROBLEM: usize = 256 * 1024;

/// A node's address, the token for it and the connections to it. Clones share the connections.
#[derive(Debug, Clone)]
pub(crate) struct Transport {
    http: reqwest::Client,
    base: Url,
    token: Option<HeaderValue>,
}

impl Transport {
    /// Checks the URL and the token. Nothing is sent.
    pub(crate) fn new(url: &str, token: Option<&str>) -> Result<Self, ClientError> {
        let base = base_url(url)?;
        let token = token.map(bearer).transpose()?;
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("cloister/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(ClientError::Setup)?;
        Ok(Self { http, base, token })
    }

    /// The URL of the node, without a slash at its end.
    pub(crate) fn url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// A request for the resource at `segments`, with the token. `timeout` is that of the whole exchange.
    pub(crate) fn request(
        &self,
        method: Method,
        segments: &[&str],
        timeout: Option<Duration>,
    ) -> RequestBuilder {
        self.authorized(self.http.request(method, self.resource(segments)), timeout)
    }

    /// A request without end for the resource at `segments`, with a query of names and values.
    pub(crate) fn get_with_query(
        &self,
        segments: &[&str],
        query: &[(&'static str, String)],
    ) -> RequestBuilder {
        let mut url = self.resource(segments);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.authorized(self.http.get(url), None)
    }

    /// The URL of a resource.
    fn resource(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        // An http URL always has a path, so there is nothing to do in the other case.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    fn authorized(&self, mut request: RequestBuilder, timeout: Option<Duration>) -> RequestBuilder {
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token.clone());
        }
        match timeout {
            Some(timeout) => request.timeout(timeout),
            None => request,
        }
    }

    /// Sends, and makes an answer that is not a success an error.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|e| self.broken(e))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refusal(response).await)
    }

    /// Sends, and reads the JSON of the answer.
    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<T, ClientError> {
        let response = self.send(request).await?;
        self.read(response).await
    }

    /// Sends, and reads the JSON of the answer and its entity tag.
    pub(crate) async fn tagged<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<Tagged<T>, ClientError> {
        let response = self.send(request).await?;
        let tag = response.headers().get(ETAG);
        let tag = tag.and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        let value = self.read(response).await?;
        Ok(Tagged { value, tag })
    }

    /// Sends, and reads the text of the answer.
    pub(crate) async fn text(&self, request: RequestBuilder) -> Result<String, ClientError> {
        let response = self.send(request).await?;
        let (url, status) = (response.url().to_string(), response.status().as_u16());
        let body = self.body(response, MAX_ANSWER).await?;
        String::from_utf8(body.into()).map_err(|e| ClientError::Unexpected {
            url,
            status,
            reason: e.to_string(),
        })
    }

    /// Reads the JSON of an answer.
    pub(crate) async fn read<T: DeserializeOwned>(
        &self,
        response: Response,
    ) -> Result<T, ClientError> {
        let (url, status) = (response.url().to_string(), response.status().as_u16());
        let body = self.body(response, MAX_ANSWER).await?;
        serde_json::from_slice(&body).map_err(|e| ClientError::Unexpected {
            url,
            status,
            reason: e.to_string(),
        })
    }

    /// What an answer that is not a success says.
    async fn refusal(&self, response: Response) -> ClientError {
        let (url, status) = (response.url().to_string(), response.status().as_u16());
        let is_problem = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.starts_with(problem::CONTENT_TYPE));
        let body = match self.body(response, MAX_PROBLEM).await {
            Ok(body) => body,
            Err(error) => return error,
        };
        let reason = match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) if is_problem => return ClientError::Refused(Box::new(problem)),
            Ok(_) => "a problem without its media type".to_owned(),
            Err(_) => excerpt(&body),
        };
        ClientError::Unexpected {
            url,
            status,
            reason,
        }
    }

    /// The bytes of an answer, at most `limit`.
    async fn body(&self, response: Response, limit: usize) -> Result<Bytes, ClientError> {
        let (url, status) = (response.url().to_string(), response.status().as_u16());
        let mut stream = response.bytes_stream();
        let mut body = Vec::new();
        while let Some(chunk) = stream.next().await {
            body.extend_from_slice(&chunk.map_err(|e| self.broken(e))?);
            if body.len() > limit {
                let reason = format!("more than {limit} bytes");
                return Err(ClientError::Unexpected {
                    url,
                    status,
                    reason,
                });
            }
        }
        Ok(body.into())
    }

    /// What an exchange that broke means. An error of the component's own file comes out of the request's body.
    pub(crate) fn broken(&self, error: reqwest::Error) -> ClientError {
        let url = self.url().to_owned();
        if error.is_connect() {
            ClientError::Unreachable {
                url,
                source: error.without_url(),
            }
        } else if error.is_timeout() {
            ClientError::Timeout { url }
        } else {
            ClientError::Interrupted {
                url,
                source: error.without_url(),
            }
        }
    }
}

/// Checks the URL of a node.
fn base_url(text: &str) -> Result<Url, ClientError> {
    let wrong = |reason: &str| ClientError::Url {
        url: text.to_owned(),
        reason: reason.to_owned(),
    };
    let url = Url::parse(text).map_err(|e| wrong(&e.to_string()))?;
    match url.scheme() {
        "http" => {}
        "https" => {
            return Err(wrong(
                "the admin API is plain http: reach it through a tunnel",
            ));
        }
        _ => return Err(wrong("it does not start with http://")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("it has a user in it: the token is given on its own"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("it has a query or a fragment"));
    }
    Ok(url)
}

/// The header for a token.
fn bearer(token: &str) -> Result<HeaderValue, ClientError> {
    let visible = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
    let value = HeaderValue::from_str(&format!("Bearer {token}"));
    match value {
        Ok(mut value) if visible => {
            value.set_sensitive(true);
            Ok(value)
        }
        _ => Err(ClientError::Token),
    }
}

/// The beginning of an answer that nobody expected, fit for one line of a terminal.
fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown: String = words
        .chars()
        .filter(|c| !c.is_control())
        .take(120)
        .collect();
    if shown.is_empty() {
        "an empty body".to_owned()
    } else {
        format!("{shown:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for good in [
            "http://127.0.0.1:7381",
            "http://node:80/",
            "http://proxy/cloister/",
        ] {
            assert!(base_url(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "127.0.0.1:7381",
            "localhost:7381",
            "https://node",
            "ftp://x",
            "http://u:p@node",
            "http://n/?a",
        ] {
            assert!(
                matches!(base_url(bad), Err(ClientError::Url { .. })),
                "{bad}"
            );
        }
    }

    #[test]
    fn tokens() {
        assert!(bearer("abc_123-=").is_ok_and(|value| value.is_sensitive()));
        for bad in ["", "a b", "a\n", "ä"] {
            assert!(matches!(bearer(bad), Err(ClientError::Token)), "{bad:?}");
        }
    }

    #[test]
    fn paths_are_escaped_and_the_prefix_stays() {
        let transport = Transport::new("http://proxy/cloister/", None).unwrap();
        let request = transport
            .request(Method::GET, &["v1", "a/../b"], None)
            .build()
            .unwrap();
        assert_eq!(request.url().path(), "/cloister/v1/a%2F..%2Fb");
        assert_eq!(transport.url(), "http://proxy/cloister");
    }

    #[test]
    fn excerpts_fit_a_terminal() {
        assert_eq!(excerpt(b"<html>\n  \x1b[31m x"), "\"<html> [31m x\"");
        assert_eq!(excerpt(b""), "an empty body");
        assert!(excerpt(&[b'x'; 5000]).len() < 130);
    }
}
