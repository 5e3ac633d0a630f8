//! Over real sockets: clients that hold connections, dawdle, and wait.

use axum::routing::get;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

use super::*;

/// No answer, and no end of a connection, takes so long.
const SOON: Duration = Duration::from_secs(20);

/// So long nothing happens where nothing is to happen.
const A_WHILE: Duration = Duration::from_millis(150);

struct Served {
    address: SocketAddr,
    task: JoinHandle<()>,
    stop: CancellationToken,
    /// `/slow` was asked for.
    begun: Arc<Notify>,
    /// What it waits for.
    release: Arc<Notify>,
}

/// Serves `/`, which answers at once, and `/slow`.
fn served(connections: usize, head: Duration) -> Served {
    let (begun, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (asked, released) = (Arc::clone(&begun), Arc::clone(&release));
    let stop = CancellationToken::new();
    let slow = async move || {
        asked.notify_one();
        released.notified().await;
        "ok"
    };
    let router = Router::new()
        .route("/", get(async || "ok"))
        .route("/slow", get(slow));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let connections = connections.try_into().unwrap();
    let allowed = Allowed { connections, head };
    let (address, task) = serve(listener, router, allowed, &stop).unwrap();
    Served {
        address,
        task,
        stop,
        begun,
        release,
    }
}

impl Served {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A connection that waits for an answer.
    async fn busy(&self) -> TcpStream {
        let mut stream = self.connect().await;
        send(&mut stream, "/slow").await;
        let begun = timeout(SOON, self.begun.notified()).await;
        begun.expect("the request to be read");
        stream
    }
}

async fn send(stream: &mut TcpStream, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: node\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
}

/// The next answer.
async fn answer(stream: &mut TcpStream) -> String {
    let read = async {
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\nok") {
            text.push(stream.read_u8().await.expect("an answer"));
        }
        String::from_utf8(text).unwrap()
    };
    timeout(SOON, read).await.expect("an answer in time")
}

async fn asked(stream: &mut TcpStream, path: &str) -> String {
    send(stream, path).await;
    answer(stream).await
}

/// Whether the node ends the connection, without a word, within the time.
async fn ends(stream: &mut TcpStream, time: Duration) -> bool {
    match timeout(time, stream.read(&mut [0; 64])).await {
        Ok(Ok(0)) => true,
        // What was sent was not read.
        Ok(Err(error)) => error.kind() == io::ErrorKind::ConnectionReset,
        Ok(Ok(_)) => panic!("nothing was asked for"),
        Err(_) => false,
    }
}

#[tokio::test]
async fn the_oldest_connections_that_wait_make_room() {
    let served = served(3, SOON * 2);
    let mut silent = served.connect().await;
    let mut dawdling = served.connect().await;
    dawdling.write_all(b"GET / HT").await.unwrap();
    let mut kept = served.connect().await;
    assert!(asked(&mut kept, "/").await.starts_with("HTTP/1.1 200"));

    let mut first = served.connect().await;
    asked(&mut first, "/").await;
    assert!(ends(&mut silent, SOON).await);
    let mut second = served.connect().await;
    asked(&mut second, "/").await;
    assert!(ends(&mut dawdling, SOON).await);
    // Within the limit nobody loses a connection.
    for stream in [&mut kept, &mut first, &mut second] {
        asked(stream, "/").await;
    }
    let mut third = served.connect().await;
    asked(&mut third, "/").await;
    assert!(ends(&mut kept, SOON).await, "it was idle");
}

#[tokio::test]
async fn an_answer_under_way_is_not_cut_and_others_wait_for_it() {
    let served = served(1, SOON * 2);
    let mut busy = served.busy().await;
    let mut next = served.connect().await;
    send(&mut next, "/").await;
    assert!(!ends(&mut next, A_WHILE).await, "it waits");
    served.release.notify_one();
    let last = answer(&mut busy).await;
    assert!(last.contains("connection: close"), "{last}");
    assert!(answer(&mut next).await.starts_with("HTTP/1.1 200"));
    assert!(ends(&mut busy, SOON).await);
}

#[tokio::test]
async fn a_flood_of_connections_keeps_nobody_out() {
    let served = served(16, SOON * 2);
    let mut held = Vec::new();
    for _ in 0..200 {
        held.push(served.connect().await);
    }
    let mut stream = served.connect().await;
    asked(&mut stream, "/").await;
    drop(held);
    asked(&mut served.connect().await, "/").await;
}

#[tokio::test]
async fn who_begins_no_request_in_time_is_disconnected() {
    let head = Duration::from_millis(300);
    let served = served(8, head);
    let began = tokio::time::Instant::now();
    let mut silent = served.connect().await;
    let mut dawdling = served.connect().await;
    dawdling.write_all(b"GET / HT").await.unwrap();
    let mut idle = served.connect().await;
    asked(&mut idle, "/").await;
    // One that is being answered is not idle.
    let mut busy = served.busy().await;
    for stream in [&mut silent, &mut idle] {
        assert!(ends(stream, SOON).await);
    }
    let mut rest = Vec::new();
    let dawdled = timeout(SOON, dawdling.read_to_end(&mut rest)).await;
    dawdled.unwrap().unwrap();
    assert!(began.elapsed() >= head);
    assert!(!ends(&mut busy, head * 2).await);
    served.release.notify_one();
    answer(&mut busy).await;
}

#[tokio::test]
async fn what_is_under_way_is_answered_when_the_node_stops() {
    let served = served(8, SOON * 2);
    let mut silent = served.connect().await;
    let mut idle = served.connect().await;
    asked(&mut idle, "/").await;
    let mut busy = served.busy().await;
    served.stop.cancel();
    assert!(ends(&mut silent, SOON).await && ends(&mut idle, SOON).await);
    assert!(!served.task.is_finished());
    served.release.notify_one();
    answer(&mut busy).await;
    timeout(SOON, served.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
}
