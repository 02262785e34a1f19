//! A table per window for a person at a terminal.
//!
//! Input: the queue. Output: a heading now and then, and a line per stream and window. Numbers are over the sampled
//! flows, as they were counted. Limits: pulses and heartbeats are not shown. Units: in the heading.

use std::io::{self, Write};

use sampler_event::{Event, StreamWindow};

use super::queue::QueueReceiver;

/// Lines between two headings.
const HEADING_EVERY: usize = 20;

/// The sink.
#[derive(Debug)]
pub struct Table<W> {
    out: W,
    lines: usize,
}

impl<W: Write> Table<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self { out, lines: 0 }
    }

    /// Writes what the queue gives until its sender is gone.
    pub async fn run(mut self, mut queue: QueueReceiver) -> io::Result<()> {
        while let Some(queued) = queue.recv([true; 3]).await {
            match queued.record.decode() {
                Ok(Event::Window(window)) => self.line(&window)?,
                Ok(Event::Pulse(_) | Event::Node(_)) => {}
                Err(error) => {
                    tracing::error!(%error, key = queued.record.key, "an event cannot be read back");
                    queue.ledger().dead_letter(&queued.record, queued.origin);
                    continue;
                }
            }
            queue
                .ledger()
                .delivered(&queued.record, queued.origin, queued.since.elapsed());
        }
        Ok(())
    }

    fn line(&mut self, window: &StreamWindow) -> io::Result<()> {
        if self.lines.is_multiple_of(HEADING_EVERY) {
            writeln!(
                self.out,
                "{:<8} {:<16} {:>7} {:>7} {:>7} {:>9} {:>8} {:>7} {:>8} {:>7} {:>9}",
                "time",
                "stream",
                "seen",
                "sampled",
                "open",
                "sent kB",
                "retrans",
                "ratio %",
                "rtt ms",
                "stalls",
                "stall ms"
            )?;
        }
        self.lines = self.lines.wrapping_add(1);
        writeln!(self.out, "{}", row(window))?;
        self.out.flush()
    }
}

fn row(window: &StreamWindow) -> String {
    let day_s = window.window_start_ms / 1000 % 86_400;
    let stalled_us = [
        window.stall_network_us,
        window.stall_receiver_us,
        window.stall_sender_us,
        window.stall_other_us,
    ];
    let stalled_us = stalled_us.into_iter().fold(0, u64::saturating_add);
    let clock = format!(
        "{:02}:{:02}:{:02}",
        day_s / 3600,
        day_s / 60 % 60,
        day_s % 60
    );
    format!(
        "{clock:<8} {:<16} {:>7} {:>7} {:>7} {:>9} {:>8} {:>7} {:>8} {:>7} {:>9}",
        window.stream,
        window.flows_seen,
        window.flows_sampled,
        window.flows_open,
        window.bytes_sent / 1000,
        window.retrans_segs,
        quotient(window.retrans_segs as f64 * 100.0, window.data_segs_out),
        quotient(window.rtt_sum_us as f64 / 1000.0, window.rtt_count),
        window.stalls,
        stalled_us / 1000,
    )
}

/// A quotient with two decimals; a dash where there is nothing to divide by.
fn quotient(dividend: f64, divisor: u64) -> String {
    if divisor == 0 {
        "-".to_owned()
    } else {
        format!("{:.2}", dividend / divisor as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_was_counted() {
        let window = StreamWindow {
            stream: "sport-1".into(),
            window_start_ms: 86_400_000 * 3 + 3_723_000,
            flows_seen: 120,
            bytes_sent: 1_234_567,
            retrans_segs: 5,
            data_segs_out: 1000,
            stall_network_us: 2_500_000,
            stall_other_us: 500_000,
            ..Default::default()
        };
        let mut table = Table::new(Vec::new());
        table.line(&window).expect("written");
        let text = String::from_utf8(table.out).expect("text");
        let words: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            words[1],
            [
                "01:02:03", "sport-1", "120", "0", "0", "1234", "5", "0.50", "-", "0", "3000"
            ]
        );
        let widths: Vec<usize> = text.lines().map(str::len).collect();
        assert_eq!(
            widths[0], widths[1],
            "columns stand under their names:\n{text}"
        );
    }
}
