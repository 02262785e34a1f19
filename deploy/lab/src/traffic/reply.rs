//! The server's side of one connection, without sockets: requests in, what to write next out.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A request longer than this is none of ours.
const LINE_BYTES: usize = 256;
/// Requests that may wait for their turn on one connection.
const QUEUE: usize = 1_024;

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Send {
        left: u64,
        chunk: u64,
        pause: Duration,
    },
    Close,
    Reset,
}

/// What the connection should do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Write up to so many bytes now.
    Write(u64),
    /// Do nothing before this moment.
    Wait(Instant),
    /// Nothing is asked for.
    Idle,
    /// Close with FIN.
    Close,
    /// Close with RST.
    Reset,
}

/// The requests of one connection and how far they are answered.
#[derive(Debug, Default)]
pub(super) struct Reply {
    line: Vec<u8>,
    tasks: VecDeque<Task>,
    /// Left of the chunk on its way.
    chunk_left: u64,
    not_before: Option<Instant>,
}

impl Reply {
    /// Takes bytes from the client; false when they are no requests.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> bool {
        for &byte in bytes {
            if byte != b'\n' {
                self.line.push(byte);
                if self.line.len() > LINE_BYTES {
                    return false;
                }
                continue;
            }
            let line = std::mem::take(&mut self.line);
            match std::str::from_utf8(&line).ok().and_then(parse) {
                Some(task) if self.tasks.len() < QUEUE => self.tasks.push_back(task),
                _ => return false,
            }
        }
        true
    }

    /// What to do at `now`.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        if let Some(moment) = self.not_before {
            if moment > now {
                return Next::Wait(moment);
            }
            self.not_before = None;
        }
        match self.tasks.front() {
            None => Next::Idle,
            Some(Task::Close) => Next::Close,
            Some(Task::Reset) => Next::Reset,
            Some(Task::Send { left, chunk, .. }) => {
                if self.chunk_left == 0 {
                    self.chunk_left = (*chunk).min(*left);
                }
                if self.chunk_left == 0 {
                    // A response of no bytes is answered already.
                    self.tasks.pop_front();
                    return self.next(now);
                }
                Next::Write(self.chunk_left)
            }
        }
    }

    /// So many bytes of the last `Write` went out.
    pub(super) fn written(&mut self, bytes: u64, now: Instant) {
        self.chunk_left = self.chunk_left.saturating_sub(bytes);
        let Some(Task::Send { left, pause, .. }) = self.tasks.front_mut() else {
            return;
        };
        *left = left.saturating_sub(bytes);
        if *left == 0 {
            self.tasks.pop_front();
        } else if self.chunk_left == 0 && !pause.is_zero() {
            self.not_before = Some(now + *pause);
        }
    }
}

fn parse(line: &str) -> Option<Task> {
    let mut words = line.split_ascii_whitespace();
    let verb = words.next()?;
    let mut number = || words.next()?.parse::<u64>().ok();
    let task = match verb {
        "GET" => Task::Send {
            left: number()?,
            chunk: u64::MAX,
            pause: Duration::ZERO,
        },
        "DRIP" => Task::Send {
            left: number()?,
            chunk: number()?.max(1),
            pause: Duration::from_millis(number()?),
        },
        "BYE" => Task::Close,
        "RST" => Task::Reset,
        _ => return None,
    };
    Some(task)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn requests_are_answered_in_order_and_then_the_close() {
        let now = clock::now();
        let mut reply = Reply::default();
        assert!(reply.feed(b"GET 10\nGET 0\nGE"));
        assert!(reply.feed(b"T 5\nBYE\n"));
        assert_eq!(reply.next(now), Next::Write(10));
        reply.written(4, now);
        assert_eq!(reply.next(now), Next::Write(6));
        reply.written(6, now);
        assert_eq!(reply.next(now), Next::Write(5));
        reply.written(5, now);
        assert_eq!(reply.next(now), Next::Close);
    }

    #[test]
    fn a_drip_pauses_between_chunks_only() {
        let now = clock::now();
        let mut reply = Reply::default();
        assert!(reply.feed(b"DRIP 5 3 100\n"));
        assert_eq!(reply.next(now), Next::Write(3));
        reply.written(3, now);
        let later = now + Duration::from_millis(100);
        assert_eq!(reply.next(now), Next::Wait(later));
        assert_eq!(reply.next(later), Next::Write(2));
        reply.written(2, later);
        assert_eq!(reply.next(later), Next::Idle);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        assert!(!Reply::default().feed(b"HELO\n"));
        assert!(!Reply::default().feed(b"GET many\n"));
        assert!(!Reply::default().feed(&[b'x'; LINE_BYTES + 1]));
    }
}
