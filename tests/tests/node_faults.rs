//! What can be wrong with the machine: the data folder, the disk, the store, KVM.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::path::{Path, PathBuf};

use cloister_tests::Node;
use cloister_tests::fixture::{probe, saying};
use cloister_tests::node::Start;
use http::StatusCode;

const EXE: &str = env!("CARGO_BIN_EXE_cloister-node");

/// A start whose daemon has its own view of the files, prepared by a shell script. `$0` is its data folder.
fn prepared(script: &str) -> Start {
    let start = Start::new(EXE);
    std::fs::create_dir_all(start.data()).unwrap();
    let script = format!("set -e; {script}; exec \"$@\"");
    let data = start.data().to_str().unwrap().to_owned();
    let root = rustix::process::geteuid().is_root();
    let flags = if root { "-m" } else { "-rm" };
    start.wrapped(&["unshare", flags, "sh", "-c", &script, &data])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_on_the_same_data() {
    let node = Node::start(EXE).await;
    node.deploy("app", &saying("well")).done().await;
    let second = Start::new(EXE).on(node.data()).refused().await;
    let said = second.said.to_lowercase();
    assert!(
        ["in use", "lock", "another"]
            .iter()
            .any(|word| said.contains(word)),
        "{}",
        second.said
    );
    // The first goes on, and its endpoints are still those in the file.
    assert_eq!(node.get("app", "/").await.text(), "well");
    let file: serde_json::Value =
        serde_json::from_slice(&std::fs::read(node.data().join("endpoints.json")).unwrap())
            .unwrap();
    assert_eq!(file["listen"], node.listen.to_string());
    node.deploy("app", &saying("still well")).done().await;
    assert_eq!(node.get("app", "/").await.text(), "still well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_that_cannot_be_written() {
    let read_only = prepared(r#"mount --bind "$0" "$0"; mount -o remount,ro,bind "$0""#)
        .refused()
        .await;
    assert!(
        read_only.said.to_lowercase().contains("read-only"),
        "{}",
        read_only.said
    );
    // It names the folder or a file in it.
    assert!(
        read_only.said.contains("cloister-test-"),
        "{}",
        read_only.said
    );

    let file = Start::new(EXE);
    std::fs::write(file.data(), "no folder").unwrap();
    let ended = file.refused().await;
    assert!(
        ended.said.to_lowercase().contains("directory"),
        "{}",
        ended.said
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_taken() {
    // The daemon of another node has it; the harness asks for port 0, so the taken one comes last.
    let node = Node::start(EXE).await;
    let taken = node.listen.to_string();
    let output = std::process::Command::new(EXE)
        .args([
            "__node",
            "--listen",
            &taken,
            "--admin",
            "127.0.0.1:0",
            "--data",
        ])
        .arg(tempfile::tempdir().unwrap().path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains(&taken), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk() {
    let node = prepared(r#"mount -t tmpfs -o size=48m tmpfs "$0""#)
        .node()
        .await;
    // The daemon's file system as the test can see it.
    let data = node.data().to_owned();
    node.deploy("app", &saying("well")).done().await;
    let ballast = data.join("ballast");
    fill(&ballast);
    let refused = node.deploy("new", probe()).send().await;
    assert!(
        refused.status.is_server_error(),
        "{}: {}",
        refused.status,
        refused.text()
    );
    assert_eq!(
        (refused.status, refused.problem().as_str()),
        (StatusCode::INSUFFICIENT_STORAGE, "disk-full"),
        "{}",
        refused.text()
    );
    assert_eq!(node.get("app", "/").await.text(), "well");
    assert_eq!(node.get("new", "/").await.status, StatusCode::NOT_FOUND);
    let apps = node.admin.list("/v1/apps").await;
    assert_eq!(apps.len(), 1, "{apps:?}");
    // With room again all is as before.
    std::fs::remove_file(&ballast).unwrap();
    node.deploy("new", &saying("new")).done().await;
    assert_eq!(node.get("new", "/").await.text(), "new");
}

/// Writes a file until nothing more fits.
fn fill(file: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(file).unwrap();
    for size in [1 << 20, 4096, 1] {
        let block = vec![b'x'; size];
        while file.write_all(&block).is_ok() {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_cut() {
    for part in [2, 100] {
        let node = Node::start(EXE).await;
        for app in ["a", "b", "c"] {
            node.deploy(app, &saying(app)).done().await;
        }
        let data = node.data().to_owned();
        let start = node.stop().await;
        let store = find(&data, "db");
        assert!(!store.is_empty(), "no file of sled in {}", data.display());
        for file in &store {
            let len = std::fs::metadata(file).unwrap().len();
            std::fs::File::options()
                .write(true)
                .open(file)
                .unwrap()
                .set_len(len / part)
                .unwrap();
        }
        match start.try_node().await {
            // What it lists, it serves.
            Ok(node) => {
                for app in node.admin.list("/v1/apps").await {
                    let app = app["app"].as_str().unwrap();
                    assert_eq!(node.get(app, "/").await.text(), app);
                }
                node.deploy("after", &saying("after")).done().await;
                assert_eq!(node.get("after", "/").await.text(), "after");
            }
            Err(ended) => {
                assert!(!ended.said.contains("panicked"), "{}", ended.said);
                let said = ended.said.to_lowercase();
                assert!(
                    ["store", "metadata", "database", "damaged", "corrupt"]
                        .iter()
                        .any(|w| said.contains(w)),
                    "{}",
                    ended.said
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_that_is_damaged_is_not_run() {
    let node = Node::start(EXE).await;
    node.deploy("app", &saying("well")).done().await;
    let data = node.data().to_owned();
    let start = node.stop().await;
    // Every large file that is not the store's.
    let mut damaged = 0;
    for file in files(&data) {
        let len = std::fs::metadata(&file).unwrap().len();
        let name = file.to_string_lossy().into_owned();
        if len > 4096 && !name.contains("/store/") {
            let mut bytes = std::fs::read(&file).unwrap();
            let middle = bytes.len() / 2;
            for byte in &mut bytes[middle..middle + 64] {
                *byte ^= 0xff;
            }
            let mut open = std::fs::metadata(&file).unwrap().permissions();
            #[expect(
                clippy::permissions_set_readonly_false,
                reason = "a file of this test's own"
            )]
            open.set_readonly(false);
            std::fs::set_permissions(&file, open).unwrap();
            std::fs::write(&file, bytes).unwrap();
            damaged += 1;
        }
    }
    assert!(damaged > 0, "no artifact in {}", data.display());
    // The node comes up; the app answers well (made anew) or with an error that says so: never otherwise.
    let node = start.node().await;
    let answer = node.get("app", "/").await;
    assert!(
        answer.text() == "well" || answer.status.is_server_error(),
        "{answer:?}"
    );
    node.deploy("other", &saying("other")).done().await;
    assert_eq!(node.get("other", "/").await.text(), "other");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path))
        } else {
            found.push(path)
        }
    }
    found
}

/// Files of this name in a folder and below.
fn find(folder: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = files(folder);
    found.retain(|file| file.file_name().is_some_and(|n| n == name) && file.is_file());
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn no_kvm() {
    // A /dev without kvm in it; then one where kvm is something else.
    let missing = r#"new=$(mktemp -d); for node in null zero random urandom; do touch $new/$node; mount --bind /dev/$node $new/$node; done; mount --rbind $new /dev"#;
    let other = "mount --bind /dev/null /dev/kvm";
    for script in [missing, other] {
        match prepared(script).try_node().await {
            // The daemon has no use for KVM itself: then the deploy says it.
            Ok(node) => {
                let answer = node.deploy("app", &saying("x")).send().await;
                assert!(
                    answer.status.is_server_error(),
                    "{}: {}",
                    answer.status,
                    answer.text()
                );
                assert!(answer.text().contains("/dev/kvm"), "{}", answer.text());
                let _ = answer.problem();
                assert!(node.admin.list("/v1/apps").await.is_empty());
            }
            Err(ended) => {
                assert!(ended.said.contains("/dev/kvm"), "{}", ended.said);
                assert!(!ended.said.contains("panicked"), "{}", ended.said);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_or_newer_layout_of_the_data_is_told() {
    let node = Node::start(EXE).await;
    let data = node.data().to_owned();
    let start = node.stop().await;
    let state = data.join("store/state.json");
    let mut said: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&state).unwrap()).unwrap();
    assert!(said["format"].is_u64(), "{said}");
    said["format"] = 999.into();
    std::fs::write(&state, said.to_string()).unwrap();
    let ended = start.refused().await;
    assert!(ended.said.contains("999"), "{}", ended.said);
}
