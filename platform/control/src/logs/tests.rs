//! The logs as a whole: from the data plane's record to the lines that are read back.

use std::time::Duration;

use platform_model::{DeploymentId, LogLine, LogQuery, LogStream, LogStreams};
use time::OffsetDateTime;

use super::file::{CAP, OUTPUT};
use super::*;

fn names() -> (TenantName, AppName) {
    ("acme".parse().unwrap(), "shop".parse().unwrap())
}

fn write_as(logs: &Logs, app: &str, request: &str, bytes: &[u8], line_bytes: u32) {
    let (tenant, app): (TenantName, AppName) = (names().0, app.parse().unwrap());
    logs.write(LogRecord {
        tenant: &tenant,
        app: &app,
        deployment: DeploymentId(1),
        request: Some(request),
        stream: LogStream::Stdout,
        bytes,
        line_bytes,
    });
}

fn write(logs: &Logs, request: &str, bytes: &[u8]) {
    write_as(logs, "shop", request, bytes, 16 << 10);
}

fn request(logs: &Logs, id: &str, path: &str, untold: u64) {
    let (tenant, app) = names();
    logs.access(AccessRecord {
        tenant: &tenant,
        app: &app,
        deployment: DeploymentId(1),
        request: id,
        method: "GET",
        path,
        status: Some(200),
        complete: true,
        bytes_in: 0,
        bytes_out: 5,
        duration: Duration::from_millis(2),
        client: "192.0.2.1",
        untold,
    });
}

async fn query(logs: &Logs, app: &str, query: LogQuery) -> Vec<LogLine> {
    let (tenant, app) = (names().0, app.parse().unwrap());
    let filter = Filter::new(&query, OffsetDateTime::now_utc()).unwrap();
    let read = logs.read(&tenant, &app, filter, query.tail, false);
    drain(logs, read.await.unwrap().0).await
}

async fn drain(logs: &Logs, history: History) -> Vec<LogLine> {
    let mut lines = Vec::new();
    let mut next = logs.next_piece(history).await.unwrap();
    while let Some((piece, history)) = next {
        lines.extend(parse(&piece));
        next = logs.next_piece(history).await.unwrap();
    }
    lines
}

async fn lines(logs: &Logs, tail: u64) -> Vec<LogLine> {
    let tail = LogQuery {
        tail: Some(tail),
        ..LogQuery::default()
    };
    query(logs, "shop", tail).await
}

fn texts(lines: &[LogLine]) -> Vec<&str> {
    lines.iter().map(|line| line.line.as_str()).collect()
}

fn parse(text: &[u8]) -> Vec<LogLine> {
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    lines
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

#[tokio::test]
async fn what_is_written_is_read_back_line_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let logs = Logs::open(folder.path().to_owned()).unwrap();
    write(&logs, "r1", b"one\ntw");
    write(&logs, "r2", b"other\n");
    write(&logs, "r1", b"o\nrest");
    logs.stop().await;
    let logs = Logs::open(folder.path().to_owned()).unwrap();
    let read = query(&logs, "shop", LogQuery::default()).await;
    let told: Vec<_> = read
        .iter()
        .map(|l| (l.request.as_deref().unwrap(), l.line.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("r1", "one"),
            ("r2", "other"),
            ("r1", "two"),
            ("r1", "rest")
        ]
    );
    assert_eq!(texts(&lines(&logs, 1).await), ["rest"]);
    assert!(lines(&logs, 0).await.is_empty());
}

#[tokio::test]
async fn a_line_is_as_long_as_its_deployment_allows() {
    let folder = tempfile::tempdir().unwrap();
    let logs = Logs::open(folder.path().to_owned()).unwrap();
    write_as(&logs, "shop", "r", &[b'x'; 200], 64);
    logs.stop().await;
    let logs = Logs::open(folder.path().to_owned()).unwrap();
    let lengths: Vec<_> = lines(&logs, 9).await.iter().map(|l| l.line.len()).collect();
    assert_eq!(lengths, [64, 64, 64, 8]);
}

#[tokio::test]
async fn requests_have_a_ring_of_their_own_and_one_order_with_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let logs = Logs::open(folder.path().to_owned()).unwrap();
    write(&logs, "r1", b"in r1\n");
    request(&logs, "r1", "/one", 0);
    write(&logs, "r2", b"in r2\n");
    request(&logs, "r2", "/two", 7);
    assert_eq!(texts(&lines(&logs, 9).await), ["in r1", "in r2"]);
    let all = LogQuery {
        stream: Some(LogStreams::ALL),
        ..LogQuery::default()
    };
    let read = query(&logs, "shop", all.clone()).await;
    let one = "GET /one 200 5B 2.000ms 192.0.2.1";
    let two = "GET /two 200 5B 2.000ms 192.0.2.1";
    let gap = "7 requests before the next one are left out: there were too many";
    assert_eq!(texts(&read), ["in r1", one, "in r2", gap, two]);
    assert_eq!(read[1].access.as_ref().unwrap().path, "/one");
    let of_r1 = LogQuery {
        request: Some("r1".to_owned()),
        ..all.clone()
    };
    assert_eq!(texts(&query(&logs, "shop", of_r1).await), ["in r1", one]);
    let last = LogQuery {
        tail: Some(2),
        grep: Some("r2|/one".to_owned()),
        ..all
    };
    assert_eq!(texts(&query(&logs, "shop", last).await), [one, "in r2"]);

    // However many requests there are, what the component wrote stays.
    let path = format!("/{}", "x".repeat(1000));
    for n in 0..20_000 {
        request(&logs, &format!("n{n}"), &path, 0);
        if n % 1000 == 0 {
            lines(&logs, 1).await; // lets the thread catch up
        }
    }
    assert_eq!(texts(&lines(&logs, 9).await), ["in r1", "in r2"]);
    for file in fs::read_dir(folder.path().join("acme/shop")).unwrap() {
        assert!(file.unwrap().metadata().unwrap().len() <= CAP);
    }
}

#[tokio::test]
async fn a_long_history_comes_in_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let logs = Logs::open(folder.path().to_owned()).unwrap();
    let text: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
    for piece in text.as_bytes().chunks(1 << 14) {
        write(&logs, "r", piece);
    }
    let (tenant, app) = names();
    let read = logs.read(&tenant, &app, Filter::default(), None, false);
    let (mut history, _) = read.await.unwrap();
    // Written later: not in a history that was opened before.
    write(&logs, "r", b"later\n");
    let mut all = Vec::new();
    let mut pieces = 0;
    while let Some(piece) = history.next_piece().unwrap() {
        assert!(piece.len() < 128 << 10, "{}", piece.len());
        all.extend(parse(&piece));
        pieces += 1;
    }
    assert!(pieces > 10, "{pieces}");
    let expected: Vec<_> = text.lines().collect();
    assert_eq!(texts(&all), expected);
    let last: Vec<_> = expected.iter().skip(15_001).copied().collect();
    assert_eq!(texts(&lines(&logs, 5000).await)[..4999], last);
}

#[tokio::test]
async fn a_follower_gets_each_line_once() {
    let folder = tempfile::tempdir().unwrap();
    let logs = Logs::open(folder.path().to_owned()).unwrap();
    write(&logs, "r", b"before\n");
    let (tenant, app) = names();
    let wanted = LogQuery {
        grep: Some("e".to_owned()),
        ..LogQuery::default()
    };
    let filter = Filter::new(&wanted, OffsetDateTime::now_utc()).unwrap();
    let read = logs.read(&tenant, &app, filter, None, true);
    let (history, follower) = read.await.unwrap();
    write(&logs, "r", b"not this\nafter\n");
    assert_eq!(texts(&drain(&logs, history).await), ["before"]);
    let mut follower = follower.unwrap();
    let line = follower.next().await.unwrap();
    assert_eq!(parse(&line)[0].line, "after");
    logs.delete(&tenant, &app).await;
    assert!(follower.next().await.is_none());
    assert!(lines(&logs, 9).await.is_empty());
}

/// Bytes that the log says were dropped.
fn dropped(lines: &[LogLine]) -> u64 {
    let told = lines.iter().filter(|line| line.stream == LogStream::System);
    let bytes = told.map(|line| line.line.split(' ').next().unwrap().parse::<u64>().unwrap());
    bytes.sum()
}

#[tokio::test]
async fn a_flood_is_dropped_and_told_and_harms_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let logs = Logs::open(folder.path().to_owned()).unwrap();
    let block = [b"x".repeat(1023), b"\n".to_vec()].concat().repeat(128);
    let total = 1000 * block.len() as u64;
    for n in 0..1000 {
        write(&logs, "r", &block);
        if n % 100 == 0 {
            write_as(&logs, "quiet", "r", format!("line {n}\n").as_bytes(), 1024);
        }
    }
    logs.stop().await;
    let logs = Logs::open(folder.path().to_owned()).unwrap();
    let read = query(&logs, "shop", LogQuery::default()).await;
    let dropped = dropped(&read);
    assert!(
        dropped > total / 2 && dropped < total,
        "{dropped} of {total}"
    );
    for file in fs::read_dir(folder.path().join("acme/shop")).unwrap() {
        assert!(file.unwrap().metadata().unwrap().len() <= CAP);
    }
    let quiet = query(&logs, "quiet", LogQuery::default()).await;
    let expected: Vec<_> = (0..10).map(|n| format!("line {}", n * 100)).collect();
    assert_eq!(texts(&quiet), expected);
}

#[tokio::test]
async fn a_flood_of_empty_lines_is_one_too() {
    let folder = tempfile::tempdir().unwrap();
    let logs = Logs::open(folder.path().to_owned()).unwrap();
    let total = 20 * (128 << 10);
    for _ in 0..20 {
        write(&logs, "r", &[b'\n'; 128 << 10]);
    }
    logs.stop().await;
    let logs = Logs::open(folder.path().to_owned()).unwrap();
    let dropped = dropped(&query(&logs, "shop", LogQuery::default()).await);
    assert!(dropped > total / 2, "{dropped} of {total}");
}

#[tokio::test]
async fn half_a_line_of_a_killed_node_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("acme/shop");
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join(OUTPUT.current), "{\"time\":\"20").unwrap();
    let logs = Logs::open(folder.path().to_owned()).unwrap();
    assert!(lines(&logs, 9).await.is_empty());
    write(&logs, "r", b"new\n");
    assert_eq!(lines(&logs, 9).await.len(), 1);
}

#[tokio::test]
async fn logs_of_apps_that_are_gone_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let logs = Logs::open(folder.path().to_owned()).unwrap();
    for path in ["acme/shop", "acme/gone", "other/gone"] {
        fs::create_dir_all(folder.path().join(path)).unwrap();
    }
    logs.keep_only(&HashSet::from([names()])).unwrap();
    assert!(folder.path().join("acme/shop").exists());
    assert!(!folder.path().join("acme/gone").exists());
    assert!(!folder.path().join("other").exists());
}

#[tokio::test]
async fn whoever_looks_for_something_costly_leaves_turns_to_others() {
    let folder = tempfile::tempdir().unwrap();
    let logs = Logs::open(folder.path().to_owned()).unwrap();
    // One of the worst patterns that is accepted, over a whole ring of what it likes least.
    let text: String = (0..200_000_u32)
        .map(|n| match (n % 100, n.wrapping_mul(2_654_435_761) >> 31) {
            (99, _) => '\n',
            (_, 0) => '0',
            _ => '1',
        })
        .collect();
    for piece in text.as_bytes().chunks(1 << 14) {
        write(&logs, "r", piece);
    }
    write_as(&logs, "quiet", "r", b"here\n", 1024);
    let (tenant, app) = names();
    let costly = LogQuery {
        grep: Some("[01]*1[01]{90}x".to_owned()),
        ..LogQuery::default()
    };
    let filter = Filter::new(&costly, OffsetDateTime::now_utc()).unwrap();
    let read = logs.read(&tenant, &app, filter.clone(), Some(1), true);
    let (mut history, follower) = read.await.unwrap();
    let began = std::time::Instant::now();
    let mut pieces = 0;
    while let Some(piece) = history.next_piece().unwrap() {
        assert!(piece.is_empty());
        pieces += 1;
    }
    // However fast this machine is: no turn is much longer than it may be.
    let turn = began.elapsed() / pieces.max(1);
    assert!(
        turn < Duration::from_millis(200),
        "{pieces} pieces of {turn:?}"
    );

    // A follower with the same pattern: others still read, and it gets what it waits for, and nothing twice.
    let mut follower = follower.unwrap();
    for piece in text.as_bytes().chunks(1 << 14) {
        write(&logs, "r", piece);
    }
    write(&logs, "r", format!("\n1{}x\n", "0".repeat(90)).as_bytes());
    let quiet = query(&logs, "quiet", LogQuery::default()).await;
    assert_eq!(texts(&quiet), ["here"]);
    let found = loop {
        // Dropped again and again, as the API does to keep a connection alive.
        if let Ok(line) = tokio::time::timeout(Duration::from_millis(1), follower.next()).await {
            break parse(&line.unwrap());
        }
    };
    assert!(found[0].line.ends_with('x'), "{found:?}");
}
