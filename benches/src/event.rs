//! Events: time to encode and decode, and bytes. Budgets: 640 bytes for a window with 1,000 samples
//! of 100 flows, 128 for a pulse.

use std::{hint::black_box, time::Instant};

use anyhow::Result;
use sampler_event::{
    Event, LifeCycle, Message, NodeHeartbeat, StreamPulse, StreamState, StreamWindow, to_json_line,
};

use crate::{
    fixture::{REGION, pulse, window},
    statistics::Samples,
};

const ROUNDS: usize = 50;
/// Events of a round, all of them different.
const EVENTS: u64 = 200;
/// Streams that a heartbeat lists.
const STREAMS: usize = 200;

fn heartbeat(seed: u64) -> NodeHeartbeat {
    let state = |n: usize| StreamState {
        stream: format!("sport-{n}"),
        next_sequence: 86_400 + seed,
        sampling_rate: 0.1,
        rate_epoch: 3,
        flows_open: 50 + n as u64,
        ..StreamState::default()
    };
    NodeHeartbeat {
        node: "edge-07.ams1".into(),
        site: "ams1".into(),
        sequence: seed,
        life_cycle: LifeCycle::Run.into(),
        streams: (0..STREAMS).map(state).collect(),
        ..NodeHeartbeat::default()
    }
}

/// Prints the table.
pub fn run() -> Result<()> {
    println!(
        "medians of {ROUNDS} rounds over {EVENTS} events\n{:<34} {:>11} {:>10} {:>10} {:>10}",
        "", "bytes, most", "encode ns", "decode ns", "JSON ns"
    );
    let windows: Vec<StreamWindow> = (0..EVENTS).map(|n| window(n, 100, REGION)).collect();
    let pulses: Vec<StreamPulse> = windows.iter().map(pulse).collect();
    let heartbeats: Vec<NodeHeartbeat> = (0..EVENTS).map(heartbeat).collect();
    let name = "window, 100 flows, 1,000 samples";
    measure(name, &windows, |window| {
        Event::Window(window.clone().into())
    })?;
    measure("pulse", &pulses, |pulse| Event::Pulse(pulse.clone()))?;
    let name = "heartbeat, 200 streams";
    measure(name, &heartbeats, |heartbeat| {
        Event::Node(heartbeat.clone().into())
    })
}

fn measure<T: Message + Default>(
    name: &str,
    events: &[T],
    wrap: impl Fn(&T) -> Event,
) -> Result<()> {
    let bytes: Vec<Vec<u8>> = events.iter().map(Message::encode_to_vec).collect();
    let wrapped: Vec<Event> = events.iter().map(wrap).collect();
    let most = bytes.iter().map(Vec::len).max().unwrap_or(0);
    let (mut encode, mut decode, mut json) =
        (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..ROUNDS {
        encode.push(ns_each(events, |event| {
            black_box(event.encode_to_vec());
            Ok(())
        })?);
        decode.push(ns_each(&bytes, |bytes| {
            black_box(T::decode(bytes.as_slice())?);
            Ok(())
        })?);
        json.push(ns_each(&wrapped, |event| {
            black_box(to_json_line(event)?);
            Ok(())
        })?);
    }
    println!(
        "{name:<34} {most:>11} {:>10.0} {:>10.0} {:>10.0}",
        encode.median(),
        decode.median(),
        json.median()
    );
    Ok(())
}

fn ns_each<T>(items: &[T], mut work: impl FnMut(&T) -> Result<()>) -> Result<f64> {
    let begin = Instant::now();
    for item in items {
        work(item)?;
    }
    Ok(begin.elapsed().as_nanos() as f64 / items.len() as f64)
}
