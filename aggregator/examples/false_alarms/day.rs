//! What a day brings to a stream: its tide of viewers, a match, and what happens to its nodes.
//!
//! Pure functions of the time of the day, ms; loads are multiples of the audience at the top of a usual evening.

/// Length of a day, ms.
pub const DAY_MS: u64 = 86_400_000;
/// An hour, ms.
pub const HOUR_MS: u64 = 3_600_000;
/// The match begins, ms of the day.
pub const KICK_OFF_MS: u64 = 20 * HOUR_MS - 900_000;
/// It is over, ms of the day.
pub const WHISTLE_MS: u64 = 22 * HOUR_MS - 900_000;
/// How long the crowd's arrival really triples the loss: everyone is in slow start, and access networks fill.
pub const RUSH_MS: u64 = 8_000;

/// Viewers by the time of day: a tide between a tenth and 1, and two more at the match. Half of those come within 20 seconds of the
/// kick-off, the others within five minutes; all but a twentieth leave within a minute of the whistle, and the usual tide is back in
/// an hour.
pub fn audience(day_ms: u64) -> f64 {
    let day = day_ms as f64 / DAY_MS as f64;
    let tide = 0.55 + 0.45 * ((day - 20.0 / 24.0) * std::f64::consts::TAU).cos();
    let since = |moment_ms: u64| day_ms.checked_sub(moment_ms).map(|ms| ms as f64);
    let Some(playing) = since(KICK_OFF_MS) else {
        return tide;
    };
    let come = (playing / 20_000.0).min(1.0) + (playing / 300_000.0).min(1.0);
    let Some(gone) = since(WHISTLE_MS) else {
        return tide + come;
    };
    let left = (-gone / 20_000.0).exp();
    let back = 0.05 + 0.95 * (gone / HOUR_MS as f64).min(1.0);
    (tide * back).max(tide * left) + come * left
}

/// Loss by load: networks lose more when they are full. From night to prime time it triples, at the match it is 1.3 times as high
/// again (interdomain links and access networks show more than that at the worst places, nothing at the best).
pub fn tide_of_loss(load: f64) -> f64 {
    0.3 + 0.7 * load.min(1.0) + 0.15 * (load - 1.0).max(0.0)
}

/// Part of its usual flows that a node has `since_ms` after the begin of its drain: none after half a minute, all again after ten.
pub fn drained(since_ms: f64) -> f64 {
    match since_ms {
        ms if ms < 600_000.0 => (1.0 - ms / 30_000.0).max(0.0),
        ms => ((ms - 600_000.0) / 30_000.0).min(1.0),
    }
}

/// Part of its flows that a node sees so long after its daemon began anew without what it knew: only new connections are sampled.
pub fn seen_again(since_ms: f64) -> f64 {
    1.0 - (-since_ms / 180_000.0).exp()
}
