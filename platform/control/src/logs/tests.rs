//! The logs as a whole: from the data plane's record to the lines that are read back.

use platform_model::LogLine;

use super::*;

fn names() -> (TenantName, AppName) {
    ("acme".parse().unwrap(), "shop".parse().unwrap())
}

fn write(logs: &Logs, request: &str, bytes: &[u8]) {
    let (tenant, app) = names();
    logs.write(LogRecord {
        tenant: &tenant,
        app: &app,
        deployment: DeploymentId(1),
        request: Some(request),
        stream: LogStream::Stdout,
        bytes,
    });
}

async fn lines(logs: &Logs, tail: usize) -> Vec<LogLine> {
    let (tenant, app) = names();
    let (history, _) = logs.read(&tenant, &app, false).await.unwrap();
    parse(&history.last_lines(tail).unwrap())
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
    let read = lines(&logs, usize::MAX).await;
    let texts: Vec<_> = read
        .iter()
        .map(|l| (l.request.as_deref().unwrap(), l.line.as_str()))
        .collect();
    assert_eq!(
        texts,
        [
            ("r1", "one"),
            ("r2", "other"),
            ("r1", "two"),
            ("r1", "rest")
        ]
    );
    assert_eq!(lines(&logs, 1).await[0].line, "rest");
}

#[tokio::test]
async fn a_follower_gets_each_line_once() {
    let folder = tempfile::tempdir().unwrap();
    let logs = Logs::open(folder.path().to_owned()).unwrap();
    write(&logs, "r", b"before\n");
    let (tenant, app) = names();
    let (history, follower) = logs.read(&tenant, &app, true).await.unwrap();
    write(&logs, "r", b"after\n");
    assert_eq!(parse(&history.last_lines(9).unwrap()).len(), 1);
    let mut follower = follower.unwrap();
    let line = follower.next().await.unwrap();
    assert_eq!(parse(&line)[0].line, "after");
    logs.delete(&tenant, &app).await;
    assert!(follower.next().await.is_none());
    assert!(lines(&logs, 9).await.is_empty());
}

#[tokio::test]
async fn a_flood_is_dropped_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let logs = Logs::open(folder.path().to_owned()).unwrap();
    let block = [b"x".repeat(1023), b"\n".to_vec()].concat().repeat(128);
    let total = 1000 * block.len() as u64;
    for _ in 0..1000 {
        write(&logs, "r", &block);
    }
    logs.stop().await;
    let logs = Logs::open(folder.path().to_owned()).unwrap();
    let read = lines(&logs, usize::MAX).await;
    let told = |line: &LogLine| -> Option<u64> {
        let told = line.stream == LogStream::System;
        told.then(|| line.line.split(' ').next().unwrap().parse().unwrap())
    };
    let dropped: u64 = read.iter().filter_map(told).sum();
    assert!(
        dropped > total / 2 && dropped < total,
        "{dropped} of {total}"
    );
    let size: u64 = fs::read_dir(folder.path().join("acme/shop"))
        .unwrap()
        .map(|f| f.unwrap().metadata().unwrap().len())
        .sum();
    assert!(size <= 2 * file::CAP);
}

#[tokio::test]
async fn half_a_line_of_a_killed_node_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("acme/shop");
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join(file::CURRENT), "{\"time\":\"20").unwrap();
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
