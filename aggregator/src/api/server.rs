//! Connections: accepted up to a number, with or without TLS, cut off when they are too slow, ended at the stop.
//!
//! Input: a listening socket and a router. Output: HTTP/1.1. Limits: [`Limits`](super::Limits) and the sizes beside it. A client
//! that sends a byte a second is cut off with the head's time, one that takes no answer by the kernel (TCP_USER_TIMEOUT).

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower_service::Service;

use super::guard::{Guard, Peer};
use super::limits::{MAX_HEAD_BYTES, MAX_HEADERS, Refusal};

/// When no connection can be accepted (out of descriptors), the next try comes after this.
const PAUSE: Duration = Duration::from_millis(100);
/// What a connection too many is told.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
connection: close\r\ncontent-length: 43\r\n\r\n{\"error\":\"too many connections: try again\"}";

/// Serves until `shutdown`, then lets requests that are under way finish.
pub(super) async fn run(
    listener: TcpListener,
    router: Router,
    guard: Arc<Guard>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let router = guard.wrap(router);
    let places = Arc::new(Semaphore::new(guard.limits().connections));
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let (stream, peer) = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            guard.refusals().count(Refusal::Connections);
            refuse(&stream, &guard);
            continue;
        };
        let connection = Connection {
            peer,
            router: router.clone(),
            guard: Arc::clone(&guard),
            stopped: stopped.clone(),
        };
        connections.spawn(async move {
            connection.serve(stream).await;
            drop(place);
        });
    }
    drop(listener);
    let _ = stop.send(true);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(guard.limits().drain, all)
        .await
        .is_err()
    {
        connections.shutdown().await;
    }
    Ok(())
}

/// A new socket has room for so few bytes; whoever does not read them is closed all the same.
fn refuse(stream: &TcpStream, guard: &Guard) {
    if !guard.access().is_tls() {
        let _ = stream.try_write(FULL);
    }
}

struct Connection {
    peer: SocketAddr,
    router: Router,
    guard: Arc<Guard>,
    stopped: watch::Receiver<bool>,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        let stalled = self.guard.limits().stalled.as_millis();
        let stalled_ms = u32::try_from(stalled).unwrap_or(u32::MAX);
        // Both make it better; a connection without them is served as well.
        let _ = setsockopt(&stream, sockopt::TcpUserTimeout, &stalled_ms);
        let _ = stream.set_nodelay(true);
        let Some(acceptor) = self.guard.access().acceptor() else {
            return self.converse(stream).await;
        };
        let accepted = tokio::time::timeout(self.guard.limits().head, acceptor.accept(stream));
        match accepted.await {
            Ok(Ok(stream)) => self.converse(stream).await,
            Ok(Err(error)) => {
                self.guard.refusals().count(Refusal::Handshake);
                tracing::debug!(%error, peer = %self.peer, "no TLS connection");
            }
            Err(_) => self.guard.refusals().count(Refusal::Handshake),
        }
    }

    async fn converse(mut self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let peer = Peer(self.peer.ip());
        let router = self.router.clone();
        let service = service_fn(move |request| answer(router.clone(), request, peer));
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.guard.limits().head)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD_BYTES);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = until_stopped(&mut self.stopped) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, peer = %self.peer, "a connection ended early");
            if let Some(why) = refusal(&error) {
                self.guard.refusals().count(why);
            }
        }
    }
}

/// Why we ended a connection; none: its client did.
fn refusal(error: &hyper::Error) -> Option<Refusal> {
    if error.is_timeout() {
        Some(Refusal::Idle)
    } else if error.is_parse_too_large() {
        Some(Refusal::Size)
    } else if error.is_parse() {
        Some(Refusal::Malformed)
    } else {
        None
    }
}

async fn until_stopped(stopped: &mut watch::Receiver<bool>) {
    // Ends also when the sender is gone.
    drop(stopped.wait_for(|stopped| *stopped).await);
}

async fn answer(
    mut router: Router,
    mut request: Request<Incoming>,
    peer: Peer,
) -> Result<Response, Infallible> {
    request.extensions_mut().insert(peer);
    router.call(request.map(Body::new)).await
}
