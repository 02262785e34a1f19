//! The client against servers that answer as they are told to. What a real Alertmanager does with it is in `tests/alertmanager.rs`.

use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::IntoResponse;
use hyper::header::HeaderValue;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::alert::utc;

/// A request: its path, its login, the streams of its alerts.
type Asked = (String, Option<String>, Vec<String>);

/// A server that answers the n-th request, from 0, with the status that `answer` gives; none: never.
async fn server(
    answer: impl Fn(usize, &[String]) -> Option<StatusCode> + Clone + Send + Sync + 'static,
) -> (String, UnboundedReceiver<Asked>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (tell, asked) = unbounded_channel();
    let count = Arc::new(Mutex::new(0));
    let router = Router::new().fallback(move |uri: Uri, headers: HeaderMap, body: Bytes| {
        let alerts: Vec<Alert> = serde_json::from_slice(&body).expect("alerts");
        let streams: Vec<_> = alerts
            .into_iter()
            .map(|mut alert| alert.labels.remove("stream").expect("a stream"))
            .collect();
        let login = headers.get("authorization").map(|login| login.to_str());
        let login = login.map(|login| login.expect("text").to_owned());
        let mut count = count.lock().expect("no panic");
        let status = answer(*count, &streams);
        *count += 1;
        // Nobody may be interested.
        let _ = tell.send((uri.path().to_owned(), login, streams));
        async move {
            let Some(status) = status else {
                return std::future::pending().await;
            };
            (status, [("location", "/elsewhere")], "because").into_response()
        }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, asked)
}

fn alert(stream: &str, seconds_ahead: i64) -> Alert {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("now");
    let now_ms = now.as_millis() as u64;
    Alert {
        labels: [("stream".to_owned(), stream.to_owned())].into(),
        annotations: Default::default(),
        starts_at: utc(now_ms - 1_000),
        ends_at: utc(now_ms.saturating_add_signed(seconds_ahead * 1_000)),
        generator_url: None,
    }
}

fn started(urls: &[&str]) -> Alertmanagers {
    let settings = Settings {
        urls: urls.iter().map(|url| (*url).to_owned()).collect(),
        login: Some(HeaderValue::from_static("Bearer word")),
        ..Settings::default()
    };
    Alertmanagers::start(&settings).expect("a client")
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let patience = Duration::from_secs(60);
    let test = async { tokio::time::timeout(patience, test).await.expect("in time") };
    runtime.expect("a runtime").block_on(test);
}

/// The books of the `n`-th URL, once all was said.
async fn books_at_end(alertmanagers: &Alertmanagers, n: usize) -> Books {
    let mut open = alertmanagers.targets[n].open.subscribe();
    open.wait_for(|open| *open == 0).await.expect("alive");
    alertmanagers.books().swap_remove(n).1
}

#[test]
fn it_is_asked_at_its_path_with_the_login() {
    run(async {
        let (url, mut asked) = server(|_, _| Some(StatusCode::OK)).await;
        let alertmanagers = started(&[&format!("{url}/below")]);
        alertmanagers.send(vec![alert("a", 60), alert("b", 60)]);
        let found = asked.recv().await.expect("a request");
        assert_eq!(found.0, "/below/api/v2/alerts");
        assert_eq!(found.1.as_deref(), Some("Bearer word"));
        assert_eq!(found.2, ["a", "b"]);
        let books = books_at_end(&alertmanagers, 0).await;
        assert_eq!((books.said, books.taken, books.retries), (2, 2, 0));
        assert_eq!(books.reached.count(), 2);
        assert_eq!(alertmanagers.health(), [""; 0]);
        assert_eq!(alertmanagers.stop(Duration::from_secs(1)).await, 0);
    });
}

#[test]
fn what_fails_in_passing_is_said_again() {
    run(async {
        let answers = [503, 429, 408, 500, 200];
        let answer = move |n: usize, _: &[String]| StatusCode::from_u16(answers[n]).ok();
        let (url, mut asked) = server(answer).await;
        let alertmanagers = started(&[&url]);
        alertmanagers.send(vec![alert("a", 60)]);
        asked.recv().await.expect("a request");
        // The newest word is what is said again.
        alertmanagers.send(vec![alert("a", 60)]);
        let books = books_at_end(&alertmanagers, 0).await;
        let counts = (books.said, books.taken, books.replaced, books.retries);
        assert_eq!(counts, (2, 1, 1, 4));
        assert_eq!(alertmanagers.health(), [""; 0]);
    });
}

#[test]
fn what_is_refused_is_not_said_again_and_takes_nothing_with_it() {
    run(async {
        let answer = |_: usize, streams: &[String]| match streams.iter().any(|one| one == "bad") {
            true => Some(StatusCode::BAD_REQUEST),
            false => Some(StatusCode::OK),
        };
        let (url, _asked) = server(answer).await;
        let alertmanagers = started(&[&url]);
        let names = ["a", "b", "bad", "c", "d", "e", "f"];
        alertmanagers.send(names.iter().map(|name| alert(name, 60)).collect());
        let books = books_at_end(&alertmanagers, 0).await;
        assert_eq!((books.taken, books.refused, books.retries), (6, 1, 0));

        // A redirect is an answer like any other; to ask for parts makes no sense.
        for status in [StatusCode::FOUND, StatusCode::UNAUTHORIZED] {
            let (url, mut asked) = server(move |_, _| Some(status)).await;
            let alertmanagers = started(&[&url]);
            alertmanagers.send(vec![alert("a", 60), alert("b", -1)]);
            let books = books_at_end(&alertmanagers, 0).await;
            assert_eq!((books.taken, books.refused, books.retries), (0, 2, 0));
            let health = alertmanagers.health();
            assert!(health[0].contains("because"), "{health:?}");
            asked.recv().await.expect("one request");
            assert!(asked.try_recv().is_err(), "{status}: asked twice");
        }
    });
}

#[test]
fn one_that_hangs_or_is_away_delays_no_other() {
    run(async {
        let (good, mut asked) = server(|_, _| Some(StatusCode::OK)).await;
        let (hanging, mut hung) = server(|_, _| None).await;
        let free = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let away = format!("http://{}", free.local_addr().expect("an address"));
        drop(free);
        let alertmanagers = started(&[&hanging, &away, &good]);
        for name in ["a", "b", "c"] {
            alertmanagers.send(vec![alert(name, 60)]);
            // Before the first one has given up on its request.
            assert_eq!(asked.recv().await.expect("a request").2, [name]);
        }
        assert_eq!(hung.recv().await.expect("a request").2, ["a"]);
        assert_eq!(books_at_end(&alertmanagers, 2).await.taken, 3);
        assert_eq!(alertmanagers.books()[0].1.taken, 0, "it hangs");
        let health = alertmanagers.health();
        assert!(
            health.iter().any(|words| words.starts_with(&away)),
            "{health:?}"
        );
        assert_eq!(alertmanagers.stop(Duration::ZERO).await, 6);
    });
}

#[test]
fn a_flood_while_it_is_away_is_bounded_and_accounted_for() {
    run(async {
        let (url, _asked) = server(|_, _| Some(StatusCode::SERVICE_UNAVAILABLE)).await;
        let alertmanagers = started(&[&url]);
        let extra = 500;
        for n in 0..MOST_WAITING + extra {
            alertmanagers.send(vec![alert(&n.to_string(), 60)]);
        }
        // Nothing was awaited, so that nothing is on its way yet.
        let books = alertmanagers.books().swap_remove(0).1;
        assert_eq!(books.said, (MOST_WAITING + extra) as u64);
        assert_eq!(books.crowded, extra as u64);
        assert_eq!(alertmanagers.stop(Duration::ZERO).await, MOST_WAITING);
    });
}
