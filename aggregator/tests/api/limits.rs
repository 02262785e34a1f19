//! Clients that take too much, on real sockets: each is turned away and counted, and the others are answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aggregator::api::{Limits, Refusal, Refusals, Server};
use aggregator::daemon::Site;
use aggregator::merge::LiveOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::{ask, whole};

struct Served {
    address: SocketAddr,
    refusals: Arc<Refusals>,
    stop: oneshot::Sender<()>,
    server: tokio::task::JoinHandle<std::io::Result<()>>,
}

async fn serve(limits: Limits) -> Served {
    let site = Arc::new(Site::new("ams1", LiveOptions::default()));
    let server = Server::new(site).with_limits(limits);
    let refusals = server.refusals();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let (stop, stopped) = oneshot::channel();
    let server = tokio::spawn(server.serve(listener, async {
        let _ = stopped.await;
    }));
    Served {
        address,
        refusals,
        stop,
        server,
    }
}

impl Served {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address)
            .await
            .expect("a connection")
    }

    /// A connection that is known to be served.
    async fn connect_and_ask(&self) -> TcpStream {
        let mut stream = self.connect().await;
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .expect("sent");
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.expect("an answer");
        assert_eq!(&first, b"HTTP/1.1 200");
        stream
    }
}

/// All that comes until the other side closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end as well.
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A byte now and then keeps no connection: the time of a head is for all of it.
#[tokio::test]
async fn a_head_that_does_not_end_is_cut_off_while_others_are_answered() {
    let served = serve(Limits {
        head: Duration::from_millis(300),
        ..Limits::default()
    })
    .await;
    let (mut reading, mut writing) = served.connect().await.into_split();
    let dripping = tokio::spawn(async move {
        let mut sent = 0_u32;
        writing.write_all(b"GET / HTTP/1.1\r\n").await?;
        // Ends when the server has closed; nothing else ends it.
        while sent < 10_000 {
            writing.write_all(b"X").await?;
            sent += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        std::io::Result::Ok(sent)
    });
    let mut silent = served.connect().await;
    let (status, _) = ask(served.address, "GET", "/metrics").await;
    assert_eq!(status, 200);
    assert_eq!(
        rest(&mut silent).await,
        "",
        "who says nothing gets no answer"
    );
    let mut bytes = Vec::new();
    let _ = reading.read_to_end(&mut bytes).await;
    dripping.await.expect("a task").expect_err("cut off");
    assert_eq!(served.refusals.of(Refusal::Idle), 2);
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let served = serve(Limits {
        connections: 2,
        ..Limits::default()
    })
    .await;
    let held = [
        served.connect_and_ask().await,
        served.connect_and_ask().await,
    ];
    let mut third = served.connect().await;
    let answer = rest(&mut third).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(
        head.contains(&format!("content-length: {}", body.len())),
        "{answer}"
    );
    let error: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(error["error"], "too many connections: try again");
    assert_eq!(served.refusals.of(Refusal::Connections), 1);
    drop(held);
    // Their places are free again as soon as the server has seen the ends.
    loop {
        let mut stream = served.connect().await;
        let sent =
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let _ = sent.await;
        if rest(&mut stream).await.starts_with("HTTP/1.1 200 ") {
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_no_request_or_too_much_of_one_is_counted() {
    let served = serve(Limits::default()).await;
    let mut many = String::from("GET / HTTP/1.1\r\nHost: x\r\n");
    for number in 0..100 {
        many += &format!("x-{number}: y\r\n");
    }
    let long = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "y".repeat(32 * 1024)
    );
    let uri = format!(
        "GET /{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "y".repeat(5_000)
    );
    let body = "GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n".to_owned();
    for (request, status, why, count) in [
        (many + "\r\n", "431", Refusal::Size, 1),
        (long, "431", Refusal::Size, 2),
        (uri, "414", Refusal::Size, 3),
        (body, "413", Refusal::Size, 4),
        (
            "\u{0}\u{1}garbage\r\n\r\n".to_owned(),
            "400",
            Refusal::Malformed,
            1,
        ),
    ] {
        let mut stream = served.connect().await;
        let _ = stream.write_all(request.as_bytes()).await;
        let answer = rest(&mut stream).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{status}: {answer}"
        );
        // The count follows the answer.
        while served.refusals.of(why) < count {
            tokio::task::yield_now().await;
        }
        assert_eq!(served.refusals.of(why), count, "{status}");
    }
    let metrics = whole(served.address, "GET", "/metrics").await;
    for (reason, count) in [("size", 4), ("malformed", 1), ("connections", 0)] {
        let line =
            format!("flowvitals_aggregator_http_refused_total{{reason=\"{reason}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
}

/// A stop ends connections that wait for nothing at once, and those that hang with the time to drain.
#[tokio::test]
async fn a_stop_ends_every_connection() {
    let served = serve(Limits {
        drain: Duration::from_millis(200),
        ..Limits::default()
    })
    .await;
    let mut idle = served.connect_and_ask().await;
    let mut hanging = served.connect_and_ask().await;
    hanging.write_all(b"GET /hea").await.expect("sent");
    served.stop.send(()).expect("it runs");
    served.server.await.expect("a task").expect("stopped");
    rest(&mut idle).await;
    rest(&mut hanging).await;
}
