//! TLS: certificates by name, protocols by ALPN, what a component is told, and where plain HTTP is sent.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use platform_data::{Certificate, CertificateTable, HostRoutes, Hsts};
use platform_model::Limits;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Case;
use crate::client::Node;

pub const CASES: &[Case] = &[
    ("tls_http1_and_http2", protocols),
    ("tls_names", names),
    ("tls_certificates_are_swapped", swapped),
    ("tls_coalescing", coalescing),
    ("tls_redirect_and_hsts", redirect_and_hsts),
    ("tls_plain_bytes", plain_bytes),
    ("tls_smuggling", smuggling),
    ("tls_draining", draining),
];

/// A certificate for names, and what a client has to trust to take it.
fn certificate(names: &[&str]) -> (Arc<Certificate>, CertificateDer<'static>) {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(names).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let (chain, key) = (certificate.pem(), key.serialize_pem());
    let read = Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
    (Arc::new(read), certificate.der().clone())
}

/// A node with `app.localhost` and a certificate for it.
fn node() -> (Node, CertificateDer<'static>) {
    let node = Node::with_app(Limits::default());
    let (own, root) = certificate(&["app.localhost"]);
    let mut table = CertificateTable::new();
    table.insert("App.localhost", own);
    node.plane.publish_certificates(table);
    (node, root)
}

async fn connect(
    node: &Node,
    root: &CertificateDer<'static>,
    name: &str,
    alpn: &[&str],
) -> std::io::Result<TlsStream<tokio::net::TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let address = node.plane.local_tls_addr().unwrap();
    let stream = tokio::net::TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

type Sender1 = hyper::client::conn::http1::SendRequest<Empty<Bytes>>;
type Sender2 = hyper::client::conn::http2::SendRequest<Empty<Bytes>>;

async fn http1(stream: TlsStream<tokio::net::TcpStream>) -> Sender1 {
    let io = TokioIo::new(stream);
    let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn http2(stream: TlsStream<tokio::net::TcpStream>) -> Sender2 {
    let io = TokioIo::new(stream);
    let executor = TokioExecutor::new();
    let (sender, connection) = hyper::client::conn::http2::handshake(executor, io)
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

fn request1(host: &str, path: &str) -> Request<Empty<Bytes>> {
    let request = Request::get(path).header("host", host);
    request.body(Empty::new()).unwrap()
}

fn request2(host: &str, path: &str) -> Request<Empty<Bytes>> {
    let request = Request::get(format!("https://{host}{path}")).version(Version::HTTP_2);
    request.body(Empty::new()).unwrap()
}

async fn text(response: Response<hyper::body::Incoming>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

fn protocols() {
    let (node, root) = node();
    node.runtime.block_on(async {
        for alpn in [&["http/1.1"][..], &[]] {
            let stream = connect(&node, &root, "app.localhost", alpn).await.unwrap();
            let mut sender = http1(stream).await;
            for _ in 0..3 {
                sender.ready().await.unwrap();
                let answer = sender.send_request(request1("app.localhost", "/headers"));
                let answer = text(answer.await.unwrap()).await;
                assert!(
                    answer.starts_with("GET https app.localhost /headers\n")
                        && answer.contains("x-forwarded-proto: https\n")
                        && answer.contains("proto=https\n"),
                    "{answer}"
                );
            }
        }
        let both = ["h2", "http/1.1"];
        let stream = connect(&node, &root, "app.localhost", &both).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let mut sender = http2(stream).await;
        for _ in 0..3 {
            let answer = sender.send_request(request2("app.localhost", "/hello"));
            let answer = answer.await.unwrap();
            assert_eq!(answer.version(), Version::HTTP_2);
            assert_eq!(text(answer).await, "hello");
        }
        assert!(
            connect(&node, &root, "app.localhost", &["spdy/1"])
                .await
                .is_err(),
            "a protocol that nobody speaks"
        );
    });
}

fn names() {
    let (node, root) = node();
    let (other, other_root) = certificate(&["other.localhost"]);
    let mut table = CertificateTable::new();
    table.insert("other.localhost", other);
    node.runtime.block_on(async {
        assert!(connect(&node, &root, "other.localhost", &[]).await.is_err());
        assert!(connect(&node, &root, "127.0.0.1", &[]).await.is_err());
        assert!(
            connect(&node, &other_root, "app.localhost", &[])
                .await
                .is_err()
        );
        assert!(connect(&node, &root, "app.localhost", &[]).await.is_ok());
        // A certificate without an app.
        node.plane.publish_certificates(table);
        let stream = connect(&node, &other_root, "other.localhost", &[]).await;
        let mut sender = http1(stream.unwrap()).await;
        let answer = sender.send_request(request1("other.localhost", "/")).await;
        assert_eq!(answer.unwrap().status(), 404);
    });
}

fn swapped() {
    let (node, root) = node();
    node.runtime.block_on(async {
        let stream = connect(&node, &root, "app.localhost", &[]).await.unwrap();
        let mut before = http1(stream).await;
        let (next, next_root) = certificate(&["app.localhost"]);
        let mut table = CertificateTable::new();
        table.insert("app.localhost", next);
        node.plane.publish_certificates(table);
        assert!(connect(&node, &root, "app.localhost", &[]).await.is_err());
        let stream = connect(&node, &next_root, "app.localhost", &[])
            .await
            .unwrap();
        for sender in [&mut before, &mut http1(stream).await] {
            let answer = sender
                .send_request(request1("app.localhost", "/hello"))
                .await;
            assert_eq!(answer.unwrap().status(), 200);
        }
    });
}

fn coalescing() {
    let (node, _) = node();
    node.publish(
        "b.localhost",
        node.target("b", "b", 1, Limits::default(), &[], ""),
    );
    node.publish(
        "c.localhost",
        node.target("c", "c", 1, Limits::default(), &[], ""),
    );
    let (shared, root) = certificate(&["app.localhost", "b.localhost"]);
    let (other, _) = certificate(&["c.localhost"]);
    let mut table = CertificateTable::new();
    for host in ["app.localhost", "b.localhost"] {
        table.insert(host, Arc::clone(&shared));
    }
    table.insert("c.localhost", other);
    node.plane.publish_certificates(table);
    node.runtime.block_on(async {
        let stream = connect(&node, &root, "app.localhost", &["h2"])
            .await
            .unwrap();
        let mut sender = http2(stream).await;
        for (host, status) in [
            ("app.localhost", 200),
            ("b.localhost", 200),
            ("c.localhost", 421),
            ("nobody.localhost", 404),
        ] {
            let answer = sender.send_request(request2(host, "/hello")).await.unwrap();
            assert_eq!(answer.status(), status, "{host}");
        }
    });
}

fn redirect_and_hsts() {
    let (node, root) = node();
    node.route(|table| {
        let (_, routes) = table.hosts().next().unwrap();
        let routes = HostRoutes {
            https_redirect: true,
            hsts: Some(Hsts {
                max_age: Duration::from_secs(31_536_000),
                include_subdomains: true,
            }),
            ..routes.clone()
        };
        table.insert_host("app.localhost", routes);
        table.insert_challenge("app.localhost", "tok", "tok.print");
    });
    let port = node.plane.local_tls_addr().unwrap().port();
    for (host, location) in [
        ("app.localhost", "https://app.localhost/hello?q".to_owned()),
        (
            "app.localhost:80",
            format!("https://app.localhost:{port}/hello?q"),
        ),
    ] {
        let answer = node.get_at(host, "/hello?q");
        assert_eq!(
            (answer.status, answer.field("location")),
            (308, Some(location.as_str()))
        );
        assert_eq!(answer.field("strict-transport-security"), None);
    }
    // A certificate authority comes over plain HTTP.
    let answer = node.get("/.well-known/acme-challenge/tok");
    assert_eq!((answer.status, answer.text().as_str()), (200, "tok.print"));
    node.runtime.block_on(async {
        let stream = connect(&node, &root, "app.localhost", &[]).await.unwrap();
        let mut sender = http1(stream).await;
        for (path, status) in [("/hello", 200), ("/trap", 500)] {
            sender.ready().await.unwrap();
            let answer = sender.send_request(request1("app.localhost", path)).await;
            let answer = answer.unwrap();
            assert_eq!(answer.status(), status);
            let said = &answer.headers()["strict-transport-security"];
            assert_eq!(said, "max-age=31536000; includeSubDomains");
            text(answer).await;
        }
    });
}

fn plain_bytes() {
    let (node, root) = node();
    let address = node.plane.local_tls_addr().unwrap();
    let mut plain = crate::client::Connection::new(address);
    plain.say("GET /hello HTTP/1.1\r\nHost: app.localhost\r\n\r\n");
    // An alert of TLS, and the end: no response of HTTP.
    let mut said = Vec::new();
    let _ = std::io::Read::read_to_end(&mut plain.stream, &mut said);
    assert!(!said.starts_with(b"HTTP"), "{said:?}");
    let opened = node
        .runtime
        .block_on(connect(&node, &root, "app.localhost", &[]));
    assert!(opened.is_ok());
}

fn smuggling() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (node, root) = node();
    node.runtime.block_on(async {
        let mut stream = connect(&node, &root, "app.localhost", &[]).await.unwrap();
        let bytes = b"POST /echo HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        stream.write_all(bytes).await.unwrap();
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said).await;
        assert!(said.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&said));
    });
}

fn draining() {
    let (node, root) = node();
    node.runtime.block_on(async {
        let stream = connect(&node, &root, "app.localhost", &["h2"])
            .await
            .unwrap();
        let mut sender = http2(stream).await;
        let answer = sender
            .send_request(request2("app.localhost", "/hello"))
            .await;
        assert_eq!(text(answer.unwrap()).await, "hello");
        node.plane.drain(Duration::from_secs(10)).await;
        assert!(connect(&node, &root, "app.localhost", &[]).await.is_err());
        assert!(
            sender
                .send_request(request2("app.localhost", "/hello"))
                .await
                .is_err()
        );
    });
}
