//! The retransmissions of the last ten seconds: what an application asks for, beside the kernel's own counter.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, Result};
use lab::clock;
use lab::clock::unix_ms;
use lab::counters::TcpCounters;
use lab::network::Network;
use serde_json::Value;

use super::centre::{Centre, HTTP};
use super::streams::ALL;

/// Length of the span.
pub const SPAN_S: u64 = 10;
/// Until every window of the span is in.
const PATIENCE: Duration = Duration::from_secs(10);

/// The kernel's counter at the last whole seconds.
#[derive(Default)]
pub struct KernelSeconds {
    /// Unix time, s, and segments retransmitted by then; oldest first.
    readings: VecDeque<(u64, u64)>,
}

impl KernelSeconds {
    /// Reads the counter if a second has begun since the last time; to be called several times a second.
    pub fn look(&mut self, network: &Network) -> Result<()> {
        let second = unix_ms() / 1_000;
        if self
            .readings
            .back()
            .is_some_and(|(last, _)| *last >= second)
        {
            return Ok(());
        }
        let counted = TcpCounters::read(network.server())?.data_retrans_segs();
        self.readings.push_back((second, counted));
        while self.readings.len() > 2 * SPAN_S as usize {
            self.readings.pop_front();
        }
        Ok(())
    }

    /// End of the newest span that was read at both ends, s, and what was counted in it.
    fn newest(&self) -> Option<(u64, u64)> {
        let (end, counted) = self.readings.back()?;
        let begin = self.readings.iter().find(|(at, _)| *at + SPAN_S == *end)?;
        Some((*end, counted - begin.1))
    }
}

/// Prints the totals of all streams as an application gets them, and the kernel's number. The end of the span, s; nothing
/// before the first whole one.
pub fn print(kernel: &KernelSeconds, centre: &Centre, network: &Network) -> Result<Option<u64>> {
    let Some((end_s, truth)) = kernel.newest() else {
        return Ok(None);
    };
    println!("   retransmissions of the last {SPAN_S} s, as an application asks for them:");
    let (mut value, mut low, mut high) = (0.0, 0.0, 0.0);
    for stream in &ALL {
        let path = format!(
            "/api/v1/streams/{}/total?metric=retrans_segs&over_s={SPAN_S}&at_ms={}",
            stream.name,
            end_s * 1_000
        );
        let answer = whole(centre, network, &path)?;
        let number = |name: &str| answer[name].as_f64().unwrap_or(0.0);
        println!("   curl '{HTTP}{path}'\n     {answer}");
        value += number("value");
        low += number("low");
        high += number("high");
    }
    println!(
        "   all streams: {value:.0} (single intervals added up: {low:.0} to {high:.0}); the kernel's own counter: {truth}"
    );
    Ok(Some(end_s))
}

/// The answer, once all of its windows are in.
fn whole(centre: &Centre, network: &Network, path: &str) -> Result<Value> {
    let mut answer = Value::Null;
    clock::wait_until(PATIENCE, || {
        let body = centre.get(network.server(), path).unwrap_or_default();
        answer = serde_json::from_str(&body).unwrap_or(Value::Null);
        answer["provisional"] == false
    });
    (!answer.is_null()).then_some(answer).context("no answer")
}
