//! A receiver of notifications, as a pager's or a chat's would be: notes each with the time of its arrival.
//!
//! Limits: 10 MiB per notification; they are kept until it is dropped.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, Uri};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::clock;

const MOST_BYTES: usize = 10 << 20;

/// A notification.
#[derive(Clone, Debug)]
pub struct Notification {
    /// When it came, monotonic.
    pub at: Instant,
    /// When it came, by the wall clock.
    pub wall: SystemTime,
    /// Last part of the URL: the receiver's name as shipped.
    pub receiver: String,
    /// What Alertmanager sent.
    pub body: Value,
}

impl Notification {
    /// Whether it says that something is wrong, rather than over.
    #[must_use]
    pub fn is_firing(&self) -> bool {
        self.body["status"] == "firing"
    }

    /// The value of a label of each of its alerts.
    #[must_use]
    pub fn labels(&self, name: &str) -> Vec<&str> {
        let alerts = self.body["alerts"].as_array();
        let values = alerts.into_iter().flatten();
        values
            .map(|alert| alert["labels"][name].as_str().unwrap_or_default())
            .collect()
    }
}

type Noted = Arc<Mutex<Vec<Notification>>>;

/// The receiver; stops when dropped.
#[derive(Debug)]
pub struct Webhook {
    address: SocketAddr,
    noted: Noted,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Webhook {
    /// Listens on a free port of the loopback.
    ///
    /// # Errors
    /// When there is none, or no thread.
    pub fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
        let address = listener.local_addr()?;
        let noted = Noted::default();
        let router = Router::new()
            .fallback(note)
            .layer(DefaultBodyLimit::max(MOST_BYTES))
            .with_state(Arc::clone(&noted));
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("webhook".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        served = axum::serve(listener, router) => served,
                        _ = stopped => Ok(()),
                    }
                })
            })?;
        Ok(Self {
            address,
            noted,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Its base URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What came so far, in its order.
    #[must_use]
    pub fn notifications(&self) -> Vec<Notification> {
        lock(&self.noted).clone()
    }

    /// Waits until `enough` is true of what came, `patience` at most; the last answer.
    pub fn wait(&self, patience: Duration, enough: impl Fn(&[Notification]) -> bool) -> bool {
        clock::wait_until(patience, || enough(&lock(&self.noted)))
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It may have ended by itself.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(noted: &Noted) -> MutexGuard<'_, Vec<Notification>> {
    noted.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn note(State(noted): State<Noted>, uri: Uri, body: Bytes) -> StatusCode {
    let Ok(body) = serde_json::from_slice(&body) else {
        return StatusCode::BAD_REQUEST;
    };
    let receiver = uri.path().rsplit('/').next().unwrap_or_default().to_owned();
    lock(&noted).push(Notification {
        at: clock::now(),
        wall: SystemTime::now(),
        receiver,
        body,
    });
    StatusCode::OK
}
