//! Whether a daemon could listen where its configuration says.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// How long who listens there may take to answer.
const PATIENCE: Duration = Duration::from_millis(1_000);
/// As much of an answer as is looked at.
const ENOUGH_BYTES: u64 = 256 * 1024;

/// What is there.
#[derive(Debug)]
pub enum Port {
    /// Nothing: it can be bound.
    Free,
    /// A daemon of ours: who checks a configuration runs beside the service.
    Ours,
    /// It cannot be bound.
    Refused(io::Error),
}

/// Looks; nothing is left behind.
pub fn look(listen: SocketAddr) -> Port {
    match TcpListener::bind(listen) {
        Ok(_) => Port::Free,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_ours(listen) => Port::Ours,
        Err(error) => Port::Refused(error),
    }
}

/// Whether who listens there has metrics named as ours are.
fn is_ours(listen: SocketAddr) -> bool {
    let mut answer = Vec::new();
    let mut ask = || -> io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&listen, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let request = format!("GET /metrics HTTP/1.0\r\nHost: {listen}\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        stream.take(ENOUGH_BYTES).read_to_end(&mut answer).map(drop)
    };
    // However it ended, what was said until then is the answer.
    let _ended = ask();
    let ours = b"flowvitals_";
    answer.windows(ours.len()).any(|window| window == ours)
}
