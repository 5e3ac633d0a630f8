//! A component sees and does here what it sees and does under `wasmtime serve`, also where no standard says what that is.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use cloister_tests::Node;
use cloister_tests::client::{Answer, Connection, empty};
use cloister_tests::fixture::{printing_first, probe, with_proposals};
use cloister_tests::wait::{SOON, within};
use tokio::net::TcpListener;
use tokio::sync::OnceCell;

const EXE: &str = env!("CARGO_BIN_EXE_cloister-node");

async fn node() -> &'static Node {
    static NODE: OnceCell<Node> = OnceCell::const_new();
    NODE.get_or_init(|| async {
        let node = Node::start(EXE).await;
        let deploy = node.deploy("probe", probe()).allow_host("127.0.0.1");
        deploy.done().await;
        node
    })
    .await
}

/// What `/fetch`, or a path like it, says of a request to this authority.
async fn fetch(path: &str, to: &str) -> String {
    let mut connection = Connection::h1(node().await.listen).await.unwrap();
    let mut request = connection.request("GET", "probe.localhost", path, empty());
    request.headers_mut().insert("x-to", to.parse().unwrap());
    let answer: Answer = within(
        SOON,
        "the answer to an outgoing request",
        connection.call(request),
    )
    .await
    .unwrap();
    answer.text()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_that_begins_empty_is_empty_for_each_request() {
    let node = node().await;
    for _ in 0..40 {
        assert_eq!(node.get("probe", "/late-memory").await.text(), "2");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_insecure_seed_of_an_instance_stays() {
    assert_eq!(node().await.get("probe", "/seed").await.text(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_is_set_stays_where_it_was() {
    assert_eq!(
        node().await.get("probe", "/field-order").await.text(),
        "x-b: 4\nx-a: 2\ncontent-length: 7\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_without_a_body_is_none() {
    let node = node().await;
    let answer = node.get("probe", "/length-alone").await;
    assert_eq!(
        (
            answer.status.as_u16(),
            answer.header("content-length").as_str()
        ),
        (200, "0")
    );
    let mut connection = Connection::h1(node.listen).await.unwrap();
    let request = connection.request("HEAD", "probe.localhost", "/length-alone", empty());
    let answer = within(SOON, "the answer to HEAD", connection.call(request))
        .await
        .unwrap();
    assert_eq!(
        (
            answer.status.as_u16(),
            answer.header("content-length").as_str()
        ),
        (200, "7")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_ends_where_its_length_says() {
    let node = node().await;
    let answer = node.get("probe", "/long-body").await;
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (200, "Hello!\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_with_success_is_a_return() {
    let node = node().await;
    let answer = node.get("probe", "/exit-after-head").await;
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (200, "all of it\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_time_for_an_answer_is_no_time() {
    // It takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = silent.local_addr().unwrap().to_string();
    // connection-read-timeout
    assert_eq!(fetch("/fetch-at-once", &to).await, "error 9");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_none_leads_nowhere() {
    // HTTP-request-URI-invalid
    assert_eq!(fetch("/fetch", "127.0.0.1:99999").await, "error 19");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_collected_and_exceptions_are_caught() {
    let node = node().await;
    node.deploy("proposals", &with_proposals("all well"))
        .done()
        .await;
    for _ in 0..8 {
        let answers = (0..8).map(|_| node.get("proposals", "/"));
        for answer in futures_util::future::join_all(answers).await {
            assert_eq!(answer.text(), "all well");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_instance_says_as_it_begins_is_in_the_log_of_each_request() {
    let node = node().await;
    let fine = printing_first("fine", "an instance begins\n", false);
    node.deploy("first", &fine).done().await;
    for _ in 0..3 {
        assert_eq!(node.get("first", "/").await.text(), "fine");
    }
    let said = node.logged("first", "an instance begins", 3).await;
    assert_eq!(said.len(), 3, "{said:?}");
    let failing = printing_first("fine", "an instance fails\n", true);
    node.deploy("failing", &failing).done().await;
    for _ in 0..3 {
        let answer = node.get("failing", "/").await;
        assert_eq!(answer.problem(), "component-trapped");
    }
    let said = node.logged("failing", "an instance fails", 3).await;
    assert_eq!(said.len(), 3, "{said:?}");
}
