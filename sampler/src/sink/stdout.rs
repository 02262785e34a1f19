//! JSON lines: one event a line, for a pipe.
//!
//! Input: the queue. Output: lines on a writer, flushed whenever the queue is empty. A reader that goes away (a closed
//! pipe) ends the sink with an error. Limits: none of its own; a slow reader fills the queue, which drops its oldest.

use std::io::{self, Write};

use super::queue::QueueReceiver;

/// Every lane is open: a writer takes all kinds.
const ALL: [bool; 3] = [true; 3];

/// The sink.
#[derive(Debug)]
pub struct JsonLines<W> {
    out: W,
}

impl<W: Write> JsonLines<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self { out }
    }

    /// Writes what the queue gives until its sender is gone.
    pub async fn run(mut self, mut queue: QueueReceiver) -> io::Result<()> {
        while let Some(queued) = queue.recv(ALL).await {
            // These bytes were encoded a moment ago in this process; what cannot be read is a bug, and is counted.
            let line = queued.record.decode().map_err(io::Error::other);
            match line
                .and_then(|event| sampler_event::to_json_line(&event).map_err(io::Error::other))
            {
                Ok(line) => {
                    writeln!(self.out, "{line}")?;
                    queue
                        .ledger()
                        .delivered(&queued.record, queued.origin, queued.since.elapsed());
                }
                Err(error) => {
                    tracing::error!(%error, key = queued.record.key, "an event cannot be written as JSON");
                    queue.ledger().dead_letter(&queued.record, queued.origin);
                }
            }
            if queue.is_empty() {
                self.out.flush()?;
            }
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sampler_event::{Event, NodeHeartbeat, StreamWindow};

    use super::*;
    use crate::sink::{Capacity, Kind, Ledger, Record, Stamp, queue};

    #[tokio::test]
    async fn writes_a_line_per_event_and_keeps_the_books() {
        let (sender, receiver) = queue(Capacity::DEFAULT, Arc::new(Ledger::default()));
        let ledger = Arc::clone(receiver.ledger());
        let window = StreamWindow {
            stream: "news".into(),
            retrans_segs: 3,
            ..Default::default()
        };
        sender.push(Record::of(&Event::Window(Box::new(window))));
        sender.push(Record::of(&Event::Node(Box::new(NodeHeartbeat {
            node: "n".into(),
            ..Default::default()
        }))));
        sender.push(Record {
            kind: Kind::Window,
            key: "junk".to_owned(),
            stamp: Stamp::default(),
            payload: vec![0xff; 3],
        });
        drop(sender);
        let mut out = Vec::new();
        JsonLines::new(&mut out)
            .run(receiver)
            .await
            .expect("written");
        let lines = String::from_utf8(out).expect("text");
        let lines: Vec<&str> = lines.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(
            lines[0].starts_with(r#"{"type":"node""#) && lines[1].contains(r#""retrans_segs":3"#),
            "{lines:?}"
        );
        let totals = ledger.totals();
        assert_eq!(
            (
                totals.produced,
                totals.delivered,
                totals.dead_letter,
                totals.waiting
            ),
            (3, 2, 1, 0)
        );
    }

    #[tokio::test]
    async fn a_reader_that_goes_away_ends_it() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (sender, receiver) = queue(Capacity::DEFAULT, Arc::new(Ledger::default()));
        sender.push(Record::of(&Event::Node(Box::default())));
        let error = JsonLines::new(Closed)
            .run(receiver)
            .await
            .expect_err("closed");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
