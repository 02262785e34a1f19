//! Compiles `proto/flowvitals/v1/event.proto` to Rust without protoc, with serde derives, so that JSON lines and protobuf share
//! one set of names.

use std::error::Error;

/// Fields that JSON shows as words instead of numbers, with the module that does it.
const SPELLED: [(&str, &str); 7] = [
    ("StreamWindow.flags", "flags"),
    ("StreamPulse.flags", "flags"),
    ("NodeHeartbeat.flags", "flags"),
    ("StreamWindow.rtt_source", "rtt_source"),
    ("NodeHeartbeat.rtt_source", "rtt_source"),
    ("NodeHeartbeat.life_cycle", "life_cycle"),
    ("NodeHeartbeat.config_sha256", "hex"),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let schema = protox::compile(["flowvitals/v1/event.proto"], ["proto"])?;
    let mut config = prost_build::Config::new();
    config
        .btree_map(["."])
        .message_attribute(".", "#[derive(serde::Serialize, serde::Deserialize)]")
        .message_attribute(".", "#[serde(default)]");
    for (field, module) in SPELLED {
        config.field_attribute(
            format!(".flowvitals.v1.{field}"),
            format!("#[serde(with = \"crate::json::{module}\")]"),
        );
    }
    config.compile_fds(schema)?;
    Ok(())
}
