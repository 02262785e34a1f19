//! The daemon's end of the control socket.
//!
//! Input: connections. Output: [`Asked`], each to be answered by the window task. Limits: `AT_ONCE` connections, one request of
//! `MAX_REQUEST_BYTES` each, `PATIENCE` to say it; more connections wait in the kernel's queue.

use std::{
    fs::{self, DirBuilder, Permissions},
    io::{self, ErrorKind},
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use service::exit;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Semaphore, mpsc::Sender, oneshot},
    time::timeout,
};

use super::wire::{Answer, Peer, Request};

/// Connections served at a time.
const AT_ONCE: usize = 8;
/// Longest request.
const MAX_REQUEST_BYTES: u64 = 4096;
/// How long a client may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Root and the service's group may ask, and nobody else.
const MODE: u32 = 0o660;

/// A request, who made it, and where the answer goes.
#[derive(Debug)]
pub struct Asked {
    /// What is asked.
    pub request: Request,
    /// Who asks.
    pub by: Peer,
    /// For the answer.
    pub reply: oneshot::Sender<Answer>,
}

/// The bound socket; its file goes with it.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    file: SocketFile,
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // The service manager may have taken its directory away already.
        let _ = fs::remove_file(&self.0);
    }
}

/// Makes the socket, in place of one that a killed daemon left.
///
/// # Errors
/// What the file system says; [`ErrorKind::AddrInUse`] where another daemon answers, or where there is a file that is no socket.
pub fn bind(path: &Path) -> io::Result<Socket> {
    if let Some(directory) = path.parent() {
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(directory);
        made?;
    }
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse && is_left_over(path) => {
            fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        bound => bound?,
    };
    let file = SocketFile(path.to_owned());
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    listener.set_nonblocking(true)?;
    Ok(Socket { listener, file })
}

/// Whether there is a socket at which nobody listens.
fn is_left_over(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == ErrorKind::ConnectionRefused;
    is_socket && UnixStream::connect(path).is_err_and(refused)
}

/// Serves for as long as somebody takes requests.
///
/// # Errors
/// Where the socket cannot be used.
pub async fn serve(socket: Socket, requests: Sender<Asked>) -> io::Result<()> {
    let Socket {
        listener,
        file: _file,
    } = socket;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let room = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return Ok(());
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = requests.closed() => return Ok(()),
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, for example: not at full speed.
                tracing::warn!(%error, "the control socket takes no connection");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let requests = requests.clone();
        tokio::spawn(async move {
            let _place = place;
            if let Ok(Err(error)) = timeout(PATIENCE, converse(stream, requests)).await {
                tracing::debug!(%error, "a client of the control socket went away");
            }
        });
    }
}

async fn converse(mut stream: tokio::net::UnixStream, requests: Sender<Asked>) -> io::Result<()> {
    let credentials = stream.peer_cred()?;
    let by = Peer {
        uid: credentials.uid(),
        pid: credentials.pid().unwrap_or(0),
    };
    let mut line = Vec::new();
    (&mut stream)
        .take(MAX_REQUEST_BYTES)
        .read_to_end(&mut line)
        .await?;
    let answer = match serde_json::from_slice(&line) {
        Ok(request) => ask(request, by, &requests).await,
        Err(error) => Answer::refused(exit::USAGE, format!("no request: {error}")),
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    stream.write_all(&text).await
}

async fn ask(request: Request, by: Peer, requests: &Sender<Asked>) -> Answer {
    let (reply, answer) = oneshot::channel();
    let asked = Asked { request, by, reply };
    let stopping = || Answer::refused(exit::UNSUPPORTED, "the sampler is stopping");
    if requests.send(asked).await.is_err() {
        return stopping();
    }
    answer.await.unwrap_or_else(|_| stopping())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_dead_daemon_left_is_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("run/control.sock");
        let first = bind(&path).expect("bound, directory and all");
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        let second = bind(&path).expect_err("another daemon is there");
        assert_eq!(second.kind(), ErrorKind::AddrInUse);
        let Socket { listener, file } = first;
        // Killed: nobody listens, and the file stays.
        drop(listener);
        std::mem::forget(file);
        assert!(path.exists());
        drop(bind(&path).expect("in place of the old one"));
        assert!(!path.exists());
        fs::write(&path, "somebody's").expect("a file");
        assert!(bind(&path).is_err());
        assert_eq!(fs::read_to_string(&path).expect("kept"), "somebody's");
    }

    #[tokio::test]
    async fn junk_is_answered_in_words() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("control.sock");
        let (sender, _requests) = tokio::sync::mpsc::channel(1);
        let server = tokio::spawn(serve(bind(&path).expect("bound"), sender));
        for junk in [&b""[..], b"\xff\xfe", &[b'['; 5000]] {
            let mut stream = tokio::net::UnixStream::connect(&path)
                .await
                .expect("connected");
            // What is too long is not read to its end.
            let _ = stream.write_all(junk).await;
            let _ = stream.shutdown().await;
            let mut answer = Vec::new();
            let read = stream.read_to_end(&mut answer).await;
            if read.is_ok() {
                let answer: Answer = serde_json::from_slice(&answer).expect("an answer");
                assert!(matches!(answer, Answer::Refused(refusal) if refusal.code == exit::USAGE));
            }
        }
        server.abort();
    }
}
