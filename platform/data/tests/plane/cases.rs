//! Faults, limits, hostile guests, egress, and what happens when things come and go.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use platform_data::{RouteTable, WarmError};
use platform_model::{Limits, VmState};

use crate::Case;
use crate::client::{Node, until};

pub const CASES: &[Case] = &[
    ("faults_of_components", faults),
    (
        "a_fault_behind_the_head_is_told_while_there_is_room",
        trap_at_once,
    ),
    ("deadlines", deadlines),
    ("a_deaf_guest_is_lost", deaf),
    ("hostile_guests_lose_their_vm_alone", hostile),
    ("concurrency_and_queue", concurrency),
    ("a_client_that_goes_cancels", client_gone),
    ("bodies_stream_both_ways", bodies),
    ("slow_readers_hold_the_guest_back", slow_reader),
    ("a_guest_may_stop_a_body", stop),
    ("logs_carry_their_request", logs),
    ("a_worker_that_dies_is_replaced", worker_dies),
    ("warm_publish_discard", warm),
    ("a_deploy_loses_no_request", deploy),
    ("draining", drain),
    ("egress", egress),
    ("egress_is_refused", egress_refused),
];

fn short() -> Limits {
    Limits {
        head_timeout_ms: 300,
        wall_ms: 600,
        ..Limits::default()
    }
}

fn faults() {
    let node = Node::with_app(Limits::default());
    for (path, status, code) in [
        ("/trap", 500, "component-trapped"),
        ("/noresponse", 500, "no-response"),
    ] {
        for _ in 0..3 {
            let answer = node.get(path);
            assert_eq!((answer.status, answer.code().as_str()), (status, code));
        }
    }
    assert_eq!(node.get("/hello").status, 200);
    // A request counts when the guest is done with it, which may be a moment after its answer.
    until("the last request is counted", || {
        node.runtime.block_on(node.plane.status()).vms[0].requests >= 7
    });
    let status = node.runtime.block_on(node.plane.status());
    let [vm] = status.vms.as_slice() else {
        panic!("{status:?}")
    };
    assert_eq!(
        (vm.state, vm.traps, vm.restores, vm.exits),
        (VmState::Ready, 3, 0, 7)
    );
    assert!(status.workers.len() == 1 && status.workers[0].pid.is_some());
}

fn trap_at_once() {
    let node = Node::with_app(Limits::default());
    // What fails behind its head is cut off, or told where the head is still here: the guest rings once for both.
    let mut told = false;
    for _ in 0..50 {
        let answer = node.get("/trap-at-once");
        assert!(
            answer.cut || (answer.status, answer.code().as_str()) == (500, "component-trapped"),
            "{answer:?}"
        );
        told |= !answer.cut;
    }
    assert!(told, "a head that has not left leaves no room for an error");
}

fn deadlines() {
    let node = Node::with_app(short());
    let start = Instant::now();
    let answer = node.get("/never");
    assert_eq!((answer.status, answer.code().as_str()), (504, "deadline"));
    assert!(answer.text().contains("head_timeout_ms") && start.elapsed() < Duration::from_secs(3));
    let mut connection = node.connect();
    connection.say("POST /echo HTTP/1.1\r\nHost: app.localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
    assert!(
        connection.answer("POST").cut,
        "over the wall time with the head sent"
    );
    assert_eq!(node.get("/hello").status, 200);
}

fn deaf() {
    let node = Node::with_app(short());
    assert_eq!(node.get("/deaf").status, 504);
    until("the VM is made anew", || {
        node.runtime.block_on(node.plane.status()).vms[0].restores == 1
    });
    assert_eq!(node.get("/hello").status, 200);
}

fn hostile() {
    let node = Node::with_app(Limits::default());
    let other = node.target("other", "app", 1, Limits::default(), &[], "");
    node.publish("app.other.localhost", other);
    assert_eq!(node.get_at("app.other.localhost", "/hello").status, 200);
    for evil in [
        "unknown-stream",
        "stream-beyond",
        "before-head",
        "two-heads",
        "credit",
        "long-data",
        "grant",
        "bad-head",
        "bad-status",
        "two-dones",
        "bad-done",
        "ready",
        "bad-log",
        "index",
        "garbage",
        "half-record",
        "bad-call",
    ] {
        let start = Instant::now();
        let restores = node.runtime.block_on(node.plane.status()).vms[0].restores;
        let answer = node.get(&format!("/evil/{evil}"));
        assert!(
            matches!(answer.status, 500 | 502)
                || (answer.status == 200 && answer.cut)
                || (answer.status == 0 && answer.cut),
            "{evil}: {answer:?}"
        );
        until(evil, || {
            node.runtime.block_on(node.plane.status()).vms[0].restores > restores
        });
        let next = node.get("/hello");
        assert_eq!(next.status, 200, "after {evil}: {next:?}");
        assert!(
            start.elapsed() < Duration::from_secs(12),
            "{evil} took {:?}",
            start.elapsed()
        );
    }
    let status = node.runtime.block_on(node.plane.status());
    assert_eq!(status.vms[1].restores, 0, "the other tenant's VM");
    assert_eq!(node.get_at("app.other.localhost", "/hello").status, 200);
}

fn concurrency() {
    let node = Node::with_app(Limits {
        concurrency: 2,
        queue: 1,
        head_timeout_ms: 1500,
        ..Limits::default()
    });
    assert_eq!(node.get("/hello").status, 200);
    let mut held: Vec<_> = (0..3)
        .map(|_| {
            let mut connection = node.connect();
            connection.say("GET /never HTTP/1.1\r\nHost: app.localhost\r\n\r\n");
            std::thread::sleep(Duration::from_millis(50));
            connection
        })
        .collect();
    let answer = node.get("/hello");
    assert_eq!(
        (
            answer.status,
            answer.code().as_str(),
            answer.field("retry-after")
        ),
        (503, "too-many-requests-in-flight", Some("1"))
    );
    for connection in &mut held {
        assert_eq!(connection.answer("GET").status, 504);
    }
    assert_eq!(node.get("/hello").status, 200);
}

fn client_gone() {
    let node = Node::with_app(Limits {
        concurrency: 1,
        ..Limits::default()
    });
    for path in ["/never", "/big/64"] {
        let mut connection = node.connect();
        connection.say(&format!(
            "GET {path} HTTP/1.1\r\nHost: app.localhost\r\n\r\n"
        ));
        std::thread::sleep(Duration::from_millis(100));
        drop(connection);
        // Its place is free again: the guest was told.
        assert_eq!(node.get("/hello").status, 200, "after {path}");
    }
    let mut connection = node.connect();
    connection.say("POST /count HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 100\r\n\r\nabc");
    std::thread::sleep(Duration::from_millis(100));
    drop(connection);
    assert_eq!(node.get("/hello").status, 200);
    assert_eq!(
        node.runtime.block_on(node.plane.status()).vms[0].restores,
        0
    );
}

fn bodies() {
    let node = Node::with_app(Limits::default());
    let size = 24 << 20;
    for chunked in [false, true] {
        let mut connection = node.connect();
        let framing = if chunked {
            "Transfer-Encoding: chunked".to_owned()
        } else {
            format!("Content-Length: {size}")
        };
        connection.say(&format!(
            "POST /echo HTTP/1.1\r\nHost: app.localhost\r\n{framing}\r\n\r\n"
        ));
        let mut writer = connection.stream.try_clone().unwrap();
        let sender = std::thread::spawn(move || {
            let piece: Vec<u8> = (0..65521_u32).map(|n| (n % 251) as u8).collect();
            let mut left = size;
            while left > 0 {
                let take = left.min(piece.len());
                if chunked {
                    write!(writer, "{take:x}\r\n").unwrap();
                }
                writer.write_all(&piece[..take]).unwrap();
                if chunked {
                    writer.write_all(b"\r\n").unwrap();
                }
                left -= take;
            }
            if chunked {
                writer.write_all(b"0\r\n\r\n").unwrap();
            }
        });
        let answer = connection.answer("POST");
        sender.join().unwrap();
        assert_eq!(answer.body.len(), size);
        assert!(
            answer
                .body
                .iter()
                .enumerate()
                .all(|(n, &byte)| byte == (n % 65521 % 251) as u8)
        );
    }
    assert_eq!(node.get("/big/16").body.len(), 16 << 20);
}

fn slow_reader() {
    let node = Node::with_app(Limits::default());
    let mut connection = node.connect();
    connection.say("GET /big/512 HTTP/1.1\r\nHost: app.localhost\r\n\r\n");
    std::thread::sleep(Duration::from_millis(300));
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    let before = resident();
    std::thread::sleep(Duration::from_millis(500));
    let after = resident();
    assert!(
        after < before + (16 << 20),
        "a body piles up: {before} then {after} bytes"
    );
    assert_eq!(node.get("/hello").status, 200);
    drop(connection);
}

fn stop() {
    let node = Node::with_app(Limits::default());
    let answer = node
        .raw("POST /stop HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 9\r\n\r\nabcdefghi");
    assert_eq!((answer.status, answer.text().as_str()), (200, "stopped"));
}

fn logs() {
    let node = Node::with_app(Limits::default());
    node.raw("GET /log HTTP/1.1\r\nHost: app.localhost\r\nX-Request-Id: r-1\r\n\r\n");
    let logs = node.logs.0.lock().unwrap();
    for line in ["out line\n", "err line\n"] {
        assert!(
            logs.contains(&(Some("r-1".to_owned()), line.to_owned())),
            "{logs:?}"
        );
    }
}

fn worker_dies() {
    let node = Node::with_app(Limits::default());
    node.publish(
        "app.other.localhost",
        node.target("other", "app", 1, Limits::default(), &[], ""),
    );
    assert_eq!(node.get("/hello").status, 200);
    assert_eq!(node.get_at("app.other.localhost", "/hello").status, 200);
    let mut waits = node.connect();
    waits.say("GET /never HTTP/1.1\r\nHost: app.localhost\r\n\r\n");
    std::thread::sleep(Duration::from_millis(50));
    let answer = node.get("/die");
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (502, "sandbox-lost")
    );
    let answer = waits.answer("GET");
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (502, "sandbox-lost")
    );
    let start = Instant::now();
    assert_eq!(node.get("/hello").status, 200);
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "back after {:?}",
        start.elapsed()
    );
    let status = node.runtime.block_on(node.plane.status());
    assert_eq!(
        (status.workers[0].restarts, status.workers[1].restarts),
        (1, 0)
    );
}

fn warm() {
    let node = Node::new();
    let bad = node.target(
        "default",
        "bad",
        1,
        Limits::default(),
        &[],
        "refuse:it imports a:b/c",
    );
    let warmed = node.runtime.block_on(node.plane.warm(bad));
    assert_eq!(
        warmed,
        Err(WarmError::Refused("it imports a:b/c".to_owned()))
    );
    let good = node.target("default", "app", 1, Limits::default(), &[], "");
    let report = node
        .runtime
        .block_on(node.plane.warm(good.clone()))
        .unwrap();
    assert_eq!(report.setup, Duration::from_millis(1));
    assert_eq!(node.get("/hello").status, 503, "there is no table yet");
    node.plane.publish(RouteTable::default());
    assert_eq!(node.get("/hello").status, 404, "not published yet");
    node.publish("app.localhost", good.clone());
    node.plane.discard(&good);
    assert_eq!(
        node.get("/hello").status,
        200,
        "what is published is not discarded"
    );
    let next = node.target("default", "app", 2, Limits::default(), &[], "");
    node.runtime
        .block_on(node.plane.warm(next.clone()))
        .unwrap();
    node.plane.discard(&next);
    until("the discarded VM is gone", || {
        node.runtime.block_on(node.plane.status()).vms.len() == 1
    });
}

fn deploy() {
    let node = Node::with_app(Limits::default());
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let (mut connection, mut count) = (node.connect(), 0);
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        connection.say("GET /hello HTTP/1.1\r\nHost: app.localhost\r\n\r\n");
                        assert_eq!(connection.answer("GET").status, 200);
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        for deployment in 2..12 {
            let target = node.target("default", "app", deployment, Limits::default(), &[], "");
            node.runtime
                .block_on(node.plane.warm(target.clone()))
                .unwrap();
            node.publish("app.localhost", target);
            std::thread::sleep(Duration::from_millis(30));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(
            clients
                .into_iter()
                .map(|client| client.join().unwrap())
                .sum::<u32>()
                > 10
        );
    });
    until("the old ones are gone", || {
        node.runtime.block_on(node.plane.status()).vms.len() == 1
    });
}

fn drain() {
    let node = Node::with_app(Limits {
        head_timeout_ms: 600,
        ..Limits::default()
    });
    let mut idle = node.connect();
    idle.say("GET /hello HTTP/1.1\r\nHost: app.localhost\r\n\r\n");
    assert_eq!(idle.answer("GET").status, 200);
    let mut busy = node.connect();
    busy.say("GET /never HTTP/1.1\r\nHost: app.localhost\r\n\r\n");
    std::thread::sleep(Duration::from_millis(50));
    let start = Instant::now();
    node.runtime
        .block_on(node.plane.drain(Duration::from_secs(10)));
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(
        busy.answer("GET").status,
        504,
        "what was in flight got its answer"
    );
    assert!(idle.is_closed());
    assert!(std::net::TcpStream::connect(node.address()).is_err());
}

/// A server that answers one request after the other with its head.
fn upstream() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n")
                && stream.read(&mut byte).is_ok_and(|count| count > 0)
            {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let answer = if head.starts_with("GET /big") {
                format!(
                    "HTTP/1.1 200 OK\r\nX-Upstream: yes\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{}",
                    4 << 20,
                    "b".repeat(4 << 20)
                )
            } else if head.starts_with("GET /cut") {
                "HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nabc".to_owned()
            } else if head.starts_with("GET /garbage") {
                "this is no HTTP\r\n\r\n".to_owned()
            } else if head.starts_with("GET /silent") {
                std::thread::sleep(Duration::from_secs(4));
                String::new()
            } else {
                format!(
                    "HTTP/1.1 302 Found\r\nX-Upstream: yes\r\nLocation: /other\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{head}",
                    head.len()
                )
            };
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    port
}

fn fetch(node: &Node, url: &str) -> crate::client::Answer {
    node.raw(&format!(
        "GET /fetch HTTP/1.1\r\nHost: app.localhost\r\nX-Url: {url}\r\n\r\n"
    ))
}

fn egress() {
    let node = Node::with_app(Limits::default());
    let port = upstream();
    let answer = fetch(&node, &format!("http://127.0.0.1:{port}/some?q"));
    assert_eq!(
        (answer.status, answer.field("x-upstream")),
        (302, Some("yes")),
        "redirects are not followed"
    );
    let text = answer.text().to_ascii_lowercase();
    assert!(
        text.starts_with("get /some?q http/1.1\r\n")
            && text.contains(&format!("host: 127.0.0.1:{port}")),
        "{text}"
    );
    assert!(!text.contains("x-from"), "named by connection: {text}");
    assert!(
        text.contains("\r\nte: trailers\r\n") && text.contains("\r\nconnection: te\r\n"),
        "the component takes trailers, and says so to the next server alone: {text}"
    );
    assert_eq!(
        fetch(&node, &format!("http://127.0.0.1:{port}/big"))
            .body
            .len(),
        4 << 20
    );
    // Where it breaks off before anything of the answer has left, the answer is an error.
    let broken = fetch(&node, &format!("http://127.0.0.1:{port}/cut"));
    assert!(
        broken.cut || broken.status == 500,
        "{broken:?} {:?}",
        node.logs.0.lock().unwrap()
    );
    for (path, code) in [("garbage", "35"), ("silent", "9")] {
        let answer = fetch(&node, &format!("http://127.0.0.1:{port}/{path}"));
        assert_eq!(
            (answer.status, answer.field("x-code")),
            (502, Some(code)),
            "{path}: {}",
            answer.text()
        );
    }
    assert_eq!(
        fetch(&node, "http://127.0.0.1:1/").field("x-code"),
        Some("6"),
        "refused"
    );
}

fn egress_refused() {
    let node = Node::new();
    let port = upstream();
    let target = node.target(
        "default",
        "app",
        1,
        Limits::default(),
        &["no-such-host.invalid", "localhost"],
        "",
    );
    node.publish("app.localhost", target);
    for (url, code) in [
        (format!("http://127.0.0.1:{port}/"), "15"),
        (format!("http://[::ffff:127.0.0.1]:{port}/"), "15"),
        ("http://example.com/".to_owned(), "15"),
        ("http://no-such-host.invalid/".to_owned(), "1"),
        ("ftp://localhost/".to_owned(), "35"),
        ("http://u:p@localhost/".to_owned(), "19"),
        ("http://localhost:99999/".to_owned(), "19"),
    ] {
        let answer = fetch(&node, &url);
        assert_eq!(
            (answer.status, answer.field("x-code")),
            (502, Some(code)),
            "{url}: {}",
            answer.text()
        );
    }
    assert_eq!(
        fetch(&node, &format!("http://localhost:{port}/")).status,
        302,
        "localhost is listed literally"
    );
    node.publish(
        "none",
        node.target("default", "none", 1, Limits::default(), &[], ""),
    );
    let _runtime = node.runtime.enter();
    node.plane.publish(RouteTable::new());
    assert_eq!(node.get("/hello").status, 404);
}
