//! Writes the protobuf form of a JSON line beside it: `cargo run --example golden WINDOW.json …` makes `WINDOW.bin`.
//!
//! For the golden files of a new version of the schema. A file that exists is never written again: old versions stay as they were.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use sampler_event::{Event, Message};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for name in std::env::args().skip(1) {
        let bytes = match serde_json::from_str(&fs::read_to_string(&name)?)? {
            Event::Window(window) => window.encode_to_vec(),
            Event::Pulse(pulse) => pulse.encode_to_vec(),
            Event::Node(heartbeat) => heartbeat.encode_to_vec(),
        };
        let target = Path::new(&name).with_extension("bin");
        File::create_new(&target)?.write_all(&bytes)?;
        println!("{}: {} bytes", target.display(), bytes.len());
    }
    Ok(())
}
