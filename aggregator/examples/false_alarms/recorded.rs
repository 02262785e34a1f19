//! What the detector says to pulses that were recorded: lines of JSON, each with `append_ms` and `pulse`, as `cargo xtask bench onset` keeps them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;

use aggregator::alert::{Design, StreamDetector};
use sampler_event::StreamPulse;
use serde::Deserialize;

#[derive(Deserialize)]
struct Line {
    append_ms: u64,
    pulse: StreamPulse,
}

/// Prints when each design suspects and agrees, by stream, with the time at which the deciding pulse was in the topic.
pub fn print(file: &Path, designs: &[Design]) -> io::Result<()> {
    let mut streams: BTreeMap<String, Vec<StreamDetector>> = BTreeMap::new();
    println!("design  stream  append_ms  what");
    for line in BufReader::new(File::open(file)?).lines() {
        let Line { append_ms, pulse } = serde_json::from_str(&line?)?;
        let detectors = streams
            .entry(pulse.stream.clone())
            .or_insert_with(|| designs.iter().copied().map(StreamDetector::new).collect());
        for (number, detector) in detectors.iter_mut().enumerate() {
            for change in detector.take(&pulse) {
                println!("{number}  {}  {append_ms}  {change:?}", pulse.stream);
            }
        }
    }
    for (stream, detectors) in &streams {
        for (number, detector) in detectors.iter().enumerate() {
            println!("{number}  {stream}  {}", serde_json::to_string(detector)?);
        }
    }
    Ok(())
}
