//! One player's connection: asks, reads, pauses, ends, as its plan says.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use super::plan::{End, Plan, Reading, Request};

/// Reads in one turn, so that a fast connection leaves room for the others.
const READS: u32 = 16;
/// A header longer than this is refused.
const HEADER_BYTES: usize = 16_384;

/// How a connection ended, as the client saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientEnd {
    /// Read to the server's FIN, as planned.
    Fin,
    /// Reset by the server, or given up by the kernel.
    Reset,
    /// Reset by the client, as planned.
    ResetSent,
    /// The server's FIN came before all responses were there.
    EarlyFin,
    /// The answer was none: wrong status or more bytes than asked for.
    BadResponse,
    /// It never came to be.
    ConnectFailed(ErrorKind),
    /// Open when the client was stopped.
    Open,
}

/// What the connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waits {
    pub read: bool,
    pub write: bool,
    pub until: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Sending,
    Receiving,
    Pausing(Instant),
    Holding(Instant),
    Ending,
}

pub(super) struct Connection {
    pub stream: TcpStream,
    pub bytes_read: u64,
    pub responses: u32,
    state: State,
    connected: bool,
    out: Vec<u8>,
    sent: usize,
    asked: u32,
    response: Response,
    /// Set while the reader has stopped.
    stopped_until: Option<Instant>,
    has_stopped: bool,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, plan: &Plan, now: Instant) -> Self {
        let mut connection = Self {
            stream,
            bytes_read: 0,
            responses: 0,
            state: State::Sending,
            connected: plan.fast_open,
            out: Vec::new(),
            sent: 0,
            asked: 0,
            response: Response::Left(0),
            stopped_until: None,
            has_stopped: false,
        };
        connection.ask_or_end(plan, now);
        connection
    }

    /// Does all that can be done at `now`; what it waits for then, or its end.
    pub(super) fn advance(
        &mut self,
        plan: &Plan,
        now: Instant,
        buffer: &mut [u8],
    ) -> Result<Waits, ClientEnd> {
        if !self.connected {
            match self.stream.take_error() {
                Ok(None) => {}
                Ok(Some(error)) | Err(error) => {
                    return Err(ClientEnd::ConnectFailed(error.kind()));
                }
            }
        }
        let mut reads = 0;
        loop {
            match self.state {
                State::Pausing(until) if until <= now => self.ask_or_end(plan, now),
                State::Holding(until) if until <= now => self.begin_end(plan)?,
                _ => {}
            }
            if self.sent < self.out.len() && !self.send(plan)? {
                return Ok(self.waits());
            }
            if self.stopped_until.is_some_and(|until| until <= now) {
                self.stopped_until = None;
            }
            if self.stopped_until.is_some() || !self.receive(plan, now, buffer)? {
                return Ok(self.waits());
            }
            reads += 1;
            if reads >= READS && self.state == State::Receiving {
                return Ok(self.waits());
            }
        }
    }

    fn waits(&self) -> Waits {
        let pause = match self.state {
            State::Pausing(until) | State::Holding(until) => Some(until),
            _ => None,
        };
        Waits {
            read: self.connected && self.stopped_until.is_none(),
            write: self.sent < self.out.len(),
            until: self.stopped_until.or(pause),
        }
    }

    fn ask_or_end(&mut self, plan: &Plan, now: Instant) {
        if self.asked >= plan.requests {
            self.state = State::Holding(now + plan.hold);
            return;
        }
        self.say(&plan.request_text(self.asked));
        self.asked += 1;
        self.response = Response::expected(&plan.request);
        self.state = State::Sending;
    }

    fn say(&mut self, text: &str) {
        self.out.clear();
        self.out.extend_from_slice(text.as_bytes());
        self.sent = 0;
    }

    fn begin_end(&mut self, plan: &Plan) -> Result<(), ClientEnd> {
        self.state = State::Ending;
        match plan.end {
            // An abort whose bytes never came is a plain reset.
            End::ClientReset | End::Abort { .. } => return Err(ClientEnd::ResetSent),
            // Fails only when the connection is gone, which the next read tells.
            End::ClientFin => drop(self.stream.shutdown(Shutdown::Write)),
            End::ServerFin | End::ServerReset | End::HalfClose => {}
        }
        if let Some(text) = plan.end_text() {
            self.say(text);
        }
        Ok(())
    }

    /// True when all is sent.
    fn send(&mut self, plan: &Plan) -> Result<bool, ClientEnd> {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(count) => {
                    self.connected = true;
                    self.sent += count;
                }
                Err(error) if waits(error.kind()) || in_progress(&error) => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if !self.connected => {
                    return Err(ClientEnd::ConnectFailed(error.kind()));
                }
                Err(_) => return Err(ClientEnd::Reset),
            }
        }
        if self.state == State::Sending {
            self.state = State::Receiving;
            if plan.end == End::HalfClose && self.asked >= plan.requests {
                // Fails only when the connection is gone, which the next read tells.
                drop(self.stream.shutdown(Shutdown::Write));
            }
        }
        Ok(true)
    }

    /// Reads once; true when there may be more to do.
    fn receive(&mut self, plan: &Plan, now: Instant, buffer: &mut [u8]) -> Result<bool, ClientEnd> {
        // A response of no bytes is there as soon as it is asked for.
        if self.state == State::Receiving && self.response == Response::Left(0) {
            self.responded(plan, now);
            return Ok(true);
        }
        let room = self.room(plan, buffer.len());
        match self.stream.read(&mut buffer[..room]) {
            Ok(0) if self.state == State::Ending => Err(ClientEnd::Fin),
            Ok(0) => Err(ClientEnd::EarlyFin),
            Ok(count) => {
                self.bytes_read += count as u64;
                let whole = self
                    .response
                    .take(&buffer[..count])
                    .ok_or(ClientEnd::BadResponse)?;
                self.obey_limits(plan, now)?;
                if whole {
                    self.responded(plan, now);
                }
                Ok(true)
            }
            Err(error) if waits(error.kind()) => Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(_) => Err(ClientEnd::Reset),
        }
    }

    fn responded(&mut self, plan: &Plan, now: Instant) {
        self.responses += 1;
        if self.asked < plan.requests {
            self.state = State::Pausing(now + plan.pause);
        } else {
            self.state = State::Holding(now + plan.hold);
        }
    }

    /// How much may be read at once without going past the plan's limits.
    fn room(&self, plan: &Plan, whole: usize) -> usize {
        let mut limit = u64::MAX;
        if let Reading::Stop { after_bytes, .. } = plan.reading
            && !self.has_stopped
        {
            limit = limit.min(after_bytes);
        }
        if let End::Abort { after_bytes } = plan.end {
            limit = limit.min(after_bytes);
        }
        let left = limit.saturating_sub(self.bytes_read).max(1);
        usize::try_from(left).unwrap_or(usize::MAX).min(whole)
    }

    fn obey_limits(&mut self, plan: &Plan, now: Instant) -> Result<(), ClientEnd> {
        if let End::Abort { after_bytes } = plan.end
            && self.bytes_read >= after_bytes
        {
            return Err(ClientEnd::ResetSent);
        }
        if let Reading::Stop { after_bytes, pause } = plan.reading
            && !self.has_stopped
            && self.bytes_read >= after_bytes
        {
            self.has_stopped = true;
            self.stopped_until = Some(now + pause);
        }
        Ok(())
    }
}

fn waits(kind: ErrorKind) -> bool {
    kind == ErrorKind::WouldBlock || kind == ErrorKind::NotConnected
}

/// What the first write of a fast-open connection without a cookie answers.
fn in_progress(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINPROGRESS)
}

/// How much of a response is still to come.
#[derive(Debug, PartialEq, Eq)]
enum Response {
    Left(u64),
    Header(Vec<u8>),
}

impl Response {
    fn expected(request: &Request) -> Self {
        match request {
            Request::Bytes(bytes) | Request::Drip { bytes, .. } => Self::Left(*bytes),
            Request::Http { .. } => Self::Header(Vec::new()),
        }
    }

    /// Takes bytes; true when the response is whole, none when it is not what was asked for.
    fn take(&mut self, bytes: &[u8]) -> Option<bool> {
        match self {
            Self::Left(left) => {
                *left = left.checked_sub(bytes.len() as u64)?;
                Some(*left == 0)
            }
            Self::Header(header) => {
                // The end may lie across two reads.
                let from = header.len().saturating_sub(3);
                header.extend_from_slice(bytes);
                let end = header[from..].windows(4).position(|w| w == b"\r\n\r\n");
                let Some(end) = end.map(|at| from + at + 4) else {
                    return (header.len() < HEADER_BYTES).then_some(false);
                };
                let body = (header.len() - end) as u64;
                let left = content_length(&header[..end])?.checked_sub(body)?;
                *self = Self::Left(left);
                Some(left == 0)
            }
        }
    }
}

/// The length that a 200 announces.
fn content_length(header: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(header).ok()?;
    let mut lines = text.split("\r\n");
    if lines.next()?.split_ascii_whitespace().nth(1)? != "200" {
        return None;
    }
    lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_in_pieces_is_one_header() {
        let mut response = Response::Header(Vec::new());
        assert_eq!(
            response.take(b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 6\r"),
            Some(false)
        );
        assert_eq!(response.take(b"\n\r\nabc"), Some(false));
        assert_eq!(response, Response::Left(3));
        assert_eq!(response.take(b"def"), Some(true));
        assert_eq!(response.take(b"g"), None);
    }

    #[test]
    fn an_error_status_is_no_response() {
        let mut response = Response::Header(Vec::new());
        assert_eq!(response.take(b"HTTP/1.1 404 Not Found\r\n\r\n"), None);
    }
}
