//! Quickstart for real: a node, its worker, a VM, an answer. These need `/dev/kvm`, and say so where it is missing.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails, in its helpers too"
)]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a node may take to be gone: it answers what is under way first.
const GONE: Duration = Duration::from_secs(50);

/// Fails without KVM, and says so: a test that was not run has not passed.
fn need_kvm() {
    let opened = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm");
    assert!(
        opened.is_ok(),
        "this test needs /dev/kvm: {opened:?}; see deploy/kvm.md"
    );
}

fn quickstart(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloister"));
    command
        .arg("quickstart")
        .args(args)
        .env_remove("CLOISTER_URL")
        .env_remove("CLOISTER_TOKEN");
    command
}

fn alive(pid: u64) -> bool {
    // One that has ended and was not waited for yet still has its folder.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with(['Z', 'X']))
}

/// Waits until a process has ended.
fn gone(pid: u64) {
    let began = Instant::now();
    while alive(pid) {
        assert!(began.elapsed() < GONE, "process {pid} is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Starts a quickstart that stays, and reads what it says when it is ready.
fn staying(data: &Path) -> (Child, Value) {
    let data = data.display().to_string();
    let args = [
        "--json",
        "--data",
        &data,
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ];
    let mut child = quickstart(&args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    if line.is_empty() {
        let mut error = String::new();
        child
            .stderr
            .as_mut()
            .unwrap()
            .read_to_string(&mut error)
            .unwrap();
        panic!("nothing was said: {error}");
    }
    (child, serde_json::from_str(&line).unwrap())
}

#[test]
fn once_answers_and_leaves_nothing() {
    need_kvm();
    let output = quickstart(&["--once", "--json"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["status"], &report["tenant"]),
        (&Value::from(200), &Value::from("default"))
    );
    assert!(!report["body"].as_str().unwrap().is_empty());
    for time in [
        "node_start_ms",
        "deploy_ms",
        "first_request_ms",
        "warm_request_ms",
    ] {
        assert!(report[time].as_f64().unwrap() > 0.0, "{time}: {report}");
    }
    for time in ["compile", "boot", "store"] {
        assert!(report["steps_ms"][time].is_number(), "{time}: {report}");
    }
    gone(report["node_pid"].as_u64().unwrap());
    gone(report["worker_pid"].as_u64().unwrap());
    let token = PathBuf::from(report["token_file"].as_str().unwrap());
    assert!(!token.exists(), "the temporary folder is removed");
}

#[test]
fn a_signal_stops_the_node_and_its_data_stays() {
    need_kvm();
    let folder = tempfile::tempdir().unwrap();
    for signal in ["-INT", "-TERM"] {
        let (mut child, report) = staying(folder.path());
        let sent = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
        assert!(child.wait().unwrap().success(), "{signal}");
        assert!(
            !alive(report["node_pid"].as_u64().unwrap()),
            "quickstart waits for its node"
        );
        gone(report["worker_pid"].as_u64().unwrap());
        assert!(folder.path().join("admin-token").exists());
        assert!(!folder.path().join("endpoints.json").exists());
    }
}

#[test]
fn the_node_does_not_outlive_a_quickstart_that_is_killed() {
    need_kvm();
    let folder = tempfile::tempdir().unwrap();
    let (mut child, report) = staying(folder.path());
    child.kill().unwrap();
    child.wait().unwrap();
    gone(report["node_pid"].as_u64().unwrap());
    gone(report["worker_pid"].as_u64().unwrap());
}

#[test]
fn a_second_node_on_the_same_data_is_told() {
    need_kvm();
    let folder = tempfile::tempdir().unwrap();
    let (mut child, _) = staying(folder.path());
    let data = folder.path().display().to_string();
    let output = quickstart(&["--once", "--data", &data]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("uses the data folder"), "{text}");
    child.kill().unwrap();
    child.wait().unwrap();
}
