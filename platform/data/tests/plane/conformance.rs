//! RFC 9110 and 9112 (and 9113 where it differs), as a client sees them.

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use platform_model::Limits;

use crate::Case;
use crate::client::Node;

pub const CASES: &[Case] = &[
    ("http1_keep_alive_and_pipelining", keep_alive),
    ("http1_hosts", hosts),
    ("http1_smuggling", smuggling),
    ("http1_malformed_heads", malformed_heads),
    ("http1_malformed_bodies", malformed_bodies),
    ("http1_expect", expect),
    ("http1_head_and_bodiless", bodiless),
    ("http1_upgrade_and_connect", upgrade_and_connect),
    ("http1_trailers", trailers),
    ("http1_fields", fields),
    ("http1_limits", limits),
    ("http1_lengths_of_responses", lengths_of_responses),
    ("http1_slow_heads", slow_heads),
    ("http10", http10),
    ("http2", http2),
];

fn keep_alive() {
    let node = Node::with_app(Limits::default());
    let mut connection = node.connect();
    for _ in 0..3 {
        connection.say("GET /hello HTTP/1.1\r\nHost: app.localhost\r\n\r\n");
        let answer = connection.answer("GET");
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
        // The length is known where the whole body came with the head; else it is chunked.
        assert!(matches!(answer.field("content-length"), Some("5") | None));
        assert_eq!(answer.all("x-a"), ["1", "2"]);
        assert!(answer.field("date").is_some() && answer.field("x-request-id").is_some());
    }
    let two = "GET /status/201 HTTP/1.1\r\nHost: app.localhost\r\n\r\n".to_owned()
        + "GET /status/202 HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\n\r\n";
    connection.say(&two);
    assert_eq!(connection.answer("GET").status, 201);
    assert_eq!(connection.answer("GET").status, 202);
    assert!(connection.is_closed());
}

fn hosts() {
    let node = Node::with_app(Limits::default());
    for good in [
        "Host: app.localhost",
        "Host: APP.LocalHost:7380",
        "host:app.localhost.",
        "Host: app.localhost:",
    ] {
        assert_eq!(
            node.raw(&format!("GET /hello HTTP/1.1\r\n{good}\r\n\r\n"))
                .status,
            200,
            "{good}"
        );
    }
    assert_eq!(
        node.raw("GET http://app.localhost/hello HTTP/1.1\r\nHost: other\r\n\r\n")
            .status,
        200
    );
    let unknown = node.get_at("other.localhost", "/hello");
    assert_eq!(
        (unknown.status, unknown.code().as_str()),
        (404, "app-not-found")
    );
    for bad in [
        "X: y",
        "Host: app.localhost\r\nHost: app.localhost",
        "Host: a b",
        "Host: u@app.localhost",
        "Host: app.localhost:x",
        "Host:",
    ] {
        let answer = node.raw(&format!("GET /hello HTTP/1.1\r\n{bad}\r\n\r\n"));
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "malformed-request"),
            "{bad}"
        );
    }
}

fn smuggling() {
    let node = Node::with_app(Limits::default());
    for (what, framing) in [
        (
            "both, the length first",
            "Content-Length: 4\r\nTransfer-Encoding: chunked",
        ),
        (
            "both, the length last",
            "Transfer-Encoding: chunked\r\nContent-Length: 4",
        ),
        (
            "both, in other cases",
            "transfer-ENCODING: Chunked\r\nX: y\r\ncontent-LENGTH: 4",
        ),
        (
            "two lengths that differ",
            "Content-Length: 4\r\nContent-Length: 5",
        ),
        ("a list of lengths", "Content-Length: 4, 5"),
        ("a signed length", "Content-Length: +4"),
        ("a length that is none", "Content-Length: 0x4"),
        ("a folded line", "X: a\r\n b\r\nContent-Length: 4"),
        ("a space before the colon", "Content-Length : 4"),
        (
            "a coding behind chunked",
            "Transfer-Encoding: chunked, identity",
        ),
        ("a null byte", "X: a\0b"),
    ] {
        let mut connection = node.connect();
        connection.say(&format!("POST /count HTTP/1.1\r\nHost: app.localhost\r\n{framing}\r\n\r\n0\r\n\r\nGET /hello HTTP/1.1\r\nHost: app.localhost\r\n\r\n"));
        let answer = connection.answer("POST");
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "malformed-request"),
            "{what}"
        );
        assert!(connection.is_closed(), "{what}: the connection goes on");
    }
    let answer = node.raw("POST /count HTTP/1.1\r\nHost: app.localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n");
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (501, "coding-not-supported")
    );
    let answer = node.raw("POST /count HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nabcd");
    assert_eq!((answer.status, answer.text().as_str()), (200, "4"));
}

fn malformed_heads() {
    let node = Node::with_app(Limits::default());
    for bytes in [
        "GET\r\n\r\n",
        "G ET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n",
        "GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "\u{1}\u{2}\r\n\r\n",
    ] {
        let mut connection = node.connect();
        connection.say(bytes);
        let answer = connection.answer("GET");
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "malformed-request"),
            "{bytes:?}"
        );
        assert!(connection.is_closed(), "{bytes:?}");
    }
}

fn malformed_bodies() {
    let node = Node::with_app(Limits::default());
    for chunks in [
        "zz\r\n",
        "-1\r\n",
        "10000000000000000\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "5;\n\r\nhello",
        "0x5\r\nhello\r\n0\r\n\r\n",
    ] {
        let mut connection = node.connect();
        connection.say(&format!("POST /count HTTP/1.1\r\nHost: app.localhost\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"));
        let answer = connection.answer("POST");
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "malformed-request"),
            "{chunks:?}"
        );
        assert!(connection.is_closed(), "{chunks:?}");
    }
    assert_eq!(node.get("/hello").status, 200);
}

fn expect() {
    let node = Node::with_app(Limits::default());
    let mut connection = node.connect();
    connection.say("POST /count HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(connection.head().unwrap().status, 100);
    connection.say("hello");
    let answer = connection.answer("POST");
    assert_eq!((answer.status, answer.text().as_str()), (200, "5"));
    let node = Node::with_app(Limits {
        request_body_bytes: 4,
        ..Limits::default()
    });
    let answer = node.raw("POST /count HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (413, "body-too-large")
    );
}

fn bodiless() {
    let node = Node::with_app(Limits::default());
    let mut connection = node.connect();
    connection.say("HEAD /length/10/10 HTTP/1.1\r\nHost: app.localhost\r\n\r\n");
    let answer = connection.answer("HEAD");
    assert_eq!(
        (answer.status, answer.field("content-length")),
        (200, Some("10"))
    );
    for path in ["/hello", "/big/1", "/empty", "/trailers"] {
        connection.say(&format!(
            "HEAD {path} HTTP/1.1\r\nHost: app.localhost\r\n\r\n"
        ));
        assert_eq!(connection.answer("HEAD").status, 200, "{path}");
    }
    for status in [204, 304, 205] {
        connection.say(&format!(
            "GET /status/{status} HTTP/1.1\r\nHost: app.localhost\r\n\r\n"
        ));
        let answer = connection.answer("GET");
        assert!(
            answer.status == status && answer.body.is_empty(),
            "{answer:?}"
        );
    }
    connection.say("GET /empty HTTP/1.1\r\nHost: app.localhost\r\n\r\n");
    assert_eq!(connection.answer("GET").field("content-length"), Some("0"));
    assert_eq!(node.get("/status/101").code(), "bad-response");
    for status in [200, 201, 302, 404, 418, 500, 599] {
        assert_eq!(node.get(&format!("/status/{status}")).status, status);
    }
}

fn upgrade_and_connect() {
    let node = Node::with_app(Limits::default());
    let answer = node.raw("GET /headers HTTP/1.1\r\nHost: app.localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n");
    assert_eq!(answer.status, 200);
    assert!(
        !answer.text().contains("upgrade") && !answer.text().contains("http2-settings"),
        "{}",
        answer.text()
    );
    let answer = node.raw("CONNECT app.localhost:80 HTTP/1.1\r\nHost: app.localhost:80\r\n\r\n");
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (501, "connect-not-supported")
    );
}

fn trailers() {
    let node = Node::with_app(Limits::default());
    let answer = node.raw("GET /trailers HTTP/1.1\r\nHost: app.localhost\r\nTE: trailers\r\n\r\n");
    assert_eq!(answer.text(), "body");
    assert_eq!(answer.trailers, [("x-sum".to_owned(), "4".to_owned())]);
    let answer = node.raw("GET /trailers HTTP/1.1\r\nHost: app.localhost\r\n\r\n");
    assert_eq!((answer.text().as_str(), answer.trailers.len()), ("body", 0));
    let answer = node.raw("POST /echo HTTP/1.1\r\nHost: app.localhost\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n4\r\nbody\r\n0\r\nx-sum: 42\r\n\r\n");
    assert_eq!(answer.text(), "body");
    assert_eq!(answer.trailers, [("x-sum".to_owned(), "42".to_owned())]);
}

fn fields() {
    let node = Node::with_app(Limits::default());
    let answer = node.raw(
        "GET /headers?q=%20+a//../b HTTP/1.1\r\nHost: app.localhost:81\r\nX-One: First\r\nX-Two: 1\r\nX-Two: 2\r\nX-Empty:\r\n\
         Connection: keep-alive, x-gone\r\nX-Gone: 1\r\nKeep-Alive: x\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Request-Id: my-id\r\n\r\n",
    );
    let text = answer.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "GET http app.localhost:81 /headers?q=%20+a//../b");
    for line in [
        "x-one: First",
        "x-two: 1",
        "x-two: 2",
        "x-empty: ",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-request-id: my-id",
    ] {
        assert_eq!(
            lines.iter().filter(|other| **other == line).count(),
            1,
            "{line} in {text}"
        );
    }
    assert!(
        lines.contains(&"forwarded: for=127.0.0.1;host=\"app.localhost:81\";proto=http"),
        "{text}"
    );
    for gone in ["host:", "connection:", "x-gone:", "keep-alive:"] {
        assert!(!text.contains(&format!("\n{gone}")), "{gone} in {text}");
    }
    assert!(!text.contains("6.6.6.6"), "{text}");
    assert_eq!(answer.field("x-request-id"), Some("my-id"));
    let hop = node.get("/hop");
    assert_eq!(
        (
            hop.field("x-gone"),
            hop.field("upgrade"),
            hop.field("keep-alive")
        ),
        (None, None, None)
    );
    assert_eq!(node.get("/bad-field").code(), "bad-response");
    assert_eq!(node.get("/two-lengths").code(), "bad-response");
}

fn limits() {
    let node = Node::with_app(Limits {
        head_bytes: 2048,
        header_count: 20,
        request_body_bytes: 1000,
        ..Limits::default()
    });
    let head = |fields: &str| {
        node.raw(&format!(
            "GET /hello HTTP/1.1\r\nHost: app.localhost\r\n{fields}\r\n"
        ))
    };
    let answer = head(&format!("X: {}\r\n", "x".repeat(3000)));
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (431, "head-too-large")
    );
    let answer = head(&"X: y\r\n".repeat(40));
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (431, "too-many-fields")
    );
    let answer = head(&"X: y\r\n".repeat(2000));
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (431, "head-too-large")
    );
    let answer = node.raw(&format!(
        "GET /{} HTTP/1.1\r\nHost: app.localhost\r\n\r\n",
        "x".repeat(3000)
    ));
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (414, "target-too-long")
    );
    let answer =
        node.raw("POST /count HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 1001\r\n\r\n");
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (413, "body-too-large")
    );
    let chunk = format!("258\r\n{}\r\n", "x".repeat(600));
    let answer = node.raw(&format!("POST /count HTTP/1.1\r\nHost: app.localhost\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n"));
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (413, "body-too-large")
    );
    assert_eq!(head("").status, 200);
}

fn lengths_of_responses() {
    let node = Node::with_app(Limits::default());
    // At hand before the head is sent, which depends on who is faster: a clean error. Else the response is cut off.
    for path in ["/length/10/5", "/length/10/15"] {
        let answer = node.get(path);
        assert!(
            answer.cut || answer.code() == "bad-response",
            "{path}: {answer:?}"
        );
    }
    assert_eq!(node.get("/length/5/5").text(), "xxxxx");
    // A head without a body: what counts is that there is none.
    let answer = node.get("/length-alone/6");
    assert_eq!(
        (answer.status, answer.field("content-length")),
        (200, Some("0"))
    );
    let mut connection = node.connect();
    connection.say("HEAD /length-alone/6 HTTP/1.1\r\nHost: app.localhost\r\n\r\n");
    let answer = connection.answer("HEAD");
    assert_eq!(
        (answer.status, answer.field("content-length")),
        (200, Some("6"))
    );
    // Known only later: the connection ends, and nothing beyond the length is sent.
    for (path, most) in [("/drip/10/5", 5), ("/drip/10/15", 10)] {
        let mut connection = node.connect();
        connection.say(&format!(
            "GET {path} HTTP/1.1\r\nHost: app.localhost\r\n\r\n"
        ));
        let answer = connection.answer("GET");
        assert!(
            answer.cut && answer.body.len() <= most,
            "{path}: {answer:?}"
        );
    }
    let mut connection = node.connect();
    connection.say("GET /trap-late HTTP/1.1\r\nHost: app.localhost\r\n\r\n");
    assert!(connection.answer("GET").cut);
}

fn slow_heads() {
    let node = Node::with_app(Limits::default());
    let (mut first, mut later, mut idle) = (node.connect(), node.connect(), node.connect());
    first.say("GE");
    later.say("GET /hello HTTP/1.1\r\nHost: app.localhost\r\n\r\nGET /hel");
    assert_eq!(later.answer("GET").status, 200);
    for slow in [&mut first, &mut later] {
        let answer = slow.answer("GET");
        assert_eq!((answer.status, answer.code().as_str()), (408, "slow-head"));
        assert!(slow.is_closed());
    }
    assert!(idle.is_closed(), "who says nothing is told nothing");
}

fn http10() {
    let node = Node::with_app(Limits::default());
    let mut connection = node.connect();
    connection.say("GET /hello HTTP/1.0\r\nHost: app.localhost\r\n\r\n");
    assert_eq!(connection.answer("GET").text(), "hello");
    assert!(connection.is_closed());
    let mut connection = node.connect();
    connection.say("GET /big/1 HTTP/1.0\r\nHost: app.localhost\r\n\r\n");
    let answer = connection.answer("GET");
    assert_eq!(
        (answer.field("transfer-encoding"), answer.body.len()),
        (None, 1 << 20)
    );
}

fn http2() {
    let node = Node::with_app(Limits::default());
    node.runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(node.address())
            .await
            .unwrap();
        let (mut send, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        tokio::spawn(connection);
        let request = |path: &str| {
            Request::get(format!("http://app.localhost{path}")).version(Version::HTTP_2)
        };
        for _ in 0..3 {
            let response = send
                .send_request(
                    request("/hello")
                        .body(Empty::<Bytes>::new().boxed())
                        .unwrap(),
                )
                .await
                .unwrap();
            assert_eq!(
                (response.status(), response.version()),
                (http::StatusCode::OK, Version::HTTP_2)
            );
            assert_eq!(
                response.into_body().collect().await.unwrap().to_bytes(),
                "hello"
            );
        }
        let asked = request("/headers")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("te", "trailers");
        let response = send
            .send_request(asked.body(Empty::new().boxed()).unwrap())
            .await
            .unwrap();
        let text = String::from_utf8(
            response
                .into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes()
                .to_vec(),
        )
        .unwrap();
        assert!(
            text.starts_with("GET http app.localhost /headers\n")
                && text.contains("cookie: a=1; b=2\n")
                && text.contains("te: trailers\n"),
            "{text}"
        );

        let response = send
            .send_request(request("/trailers").body(Empty::new().boxed()).unwrap())
            .await
            .unwrap();
        let collected = response.into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["x-sum"], "4");

        let pieces = (0..64).map(|_| {
            Ok::<_, std::convert::Infallible>(http_body::Frame::data(Bytes::from(vec![7; 16384])))
        });
        let body = StreamBody::new(futures_util::stream::iter(pieces)).boxed();
        let response = send
            .send_request(
                Request::post("http://app.localhost/echo")
                    .body(body)
                    .unwrap(),
            )
            .await
            .unwrap();
        assert_eq!(
            response
                .into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes()
                .len(),
            1 << 20
        );

        let response = send
            .send_request(request("/drip/10/15").body(Empty::new().boxed()).unwrap())
            .await
            .unwrap();
        assert!(
            response.into_body().collect().await.is_err(),
            "a response longer than it said"
        );
        let response = send
            .send_request(request("/drip/10/5").body(Empty::new().boxed()).unwrap())
            .await
            .unwrap();
        assert!(
            response.into_body().collect().await.is_err(),
            "a response shorter than it said"
        );
        let response = send
            .send_request(request("/trap").body(Empty::new().boxed()).unwrap())
            .await
            .unwrap();
        assert_eq!(response.status(), 500);
        let response = send
            .send_request(
                Request::get("http://other.localhost/")
                    .body(Empty::new().boxed())
                    .unwrap(),
            )
            .await
            .unwrap();
        assert_eq!(response.status(), 404);
    });
}
