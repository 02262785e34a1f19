//! How long a spool lasts when no broker takes anything. Pure.
//!
//! Input: streams, window length. Output: bytes a second, at most about: every stream active, each window as large as a window with
//! 100 flows and 1,000 round-trip samples.

use std::time::Duration;

/// A window on disk, with its frame and ack.
const WINDOW_BYTES: u64 = 690;
/// A heartbeat on disk, without its streams.
const HEARTBEAT_BYTES: u64 = 500;
/// A stream in a heartbeat.
const STREAM_BYTES: u64 = 64;

/// Bytes a second of so many streams.
pub fn expected_bytes_per_s(streams: usize, window_ms: u32) -> f64 {
    let streams = streams as u64;
    let edge_bytes = HEARTBEAT_BYTES + streams * (WINDOW_BYTES + STREAM_BYTES);
    edge_bytes as f64 * 1000.0 / f64::from(window_ms.max(1))
}

/// How long a bound lasts then.
pub fn expected_room(max_bytes: u64, streams: usize, window_ms: u32) -> Duration {
    Duration::from_secs_f64(max_bytes as f64 / expected_bytes_per_s(streams, window_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_holds_half_an_hour_of_200_streams() {
        let minutes =
            |streams, window_ms| expected_room(268_435_456, streams, window_ms).as_secs() / 60;
        assert_eq!(minutes(200, 1000), 29);
        assert_eq!(minutes(20, 1000), 287);
        assert_eq!(minutes(200, 10_000), 295);
    }
}
