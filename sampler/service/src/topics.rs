//! Names of the topics, as `deploy/kafka/cluster.toml` declares them.

/// Windows, by stream.
pub const WINDOW: &str = "flowvitals.window.v1";
/// Pulses, by stream.
pub const PULSE: &str = "flowvitals.pulse.v1";
/// Heartbeats, by node.
pub const NODE: &str = "flowvitals.node.v1";
/// Alerts, by rule, site and stream.
pub const ALERT: &str = "flowvitals.alert.v1";
/// States of alerts and baselines, by rule, site and stream.
pub const STATE: &str = "flowvitals.state.v1";
/// Records that could not be read.
pub const DEAD_LETTERS: &str = "flowvitals.dlq.v1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_declared() {
        let declared = include_str!("../../../deploy/kafka/cluster.toml");
        for topic in [WINDOW, PULSE, NODE, ALERT, STATE, DEAD_LETTERS] {
            assert!(
                declared.contains(&format!("name = \"{topic}\"\n")),
                "{topic}"
            );
        }
    }
}
