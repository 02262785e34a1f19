//! The alert that is always on while events flow: whoever does not hear it any more knows that alerts do not come through.
//!
//! Input: whether events flow, and the time. Output: the alert, every [`EVERY`], good for [`HOLDS_MS`]. Nothing is said while no events
//! flow, so that Alertmanager ends it by itself: that is the news.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::MissedTickBehavior;

use super::alertmanager::Alertmanagers;
use crate::alert::Alert;

/// As often as any alert that is on is said again.
pub const EVERY: Duration = Duration::from_secs(15);

/// Three of four may get lost, ms.
pub const HOLDS_MS: u64 = 60_000;

/// The watchdog of a site. Pure: times are arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watchdog {
    site: String,
    since_ms: Option<u64>,
}

impl Watchdog {
    /// Has not barked yet.
    pub fn new(site: impl Into<String>) -> Self {
        Self {
            site: site.into(),
            since_ms: None,
        }
    }

    /// What is to be said now; none while no events flow. Its beginning stays the same until they stop.
    pub fn tick(&mut self, flows: bool, now_ms: u64) -> Option<Alert> {
        if !flows {
            self.since_ms = None;
            return None;
        }
        let since_ms = *self.since_ms.get_or_insert(now_ms);
        Some(Alert::watchdog(&self.site, since_ms, now_ms + HOLDS_MS))
    }

    /// Says it for ever, as long as `flows` says that events flow.
    pub async fn run(mut self, alertmanagers: Arc<Alertmanagers>, flows: impl Fn() -> bool) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let unix = SystemTime::now().duration_since(UNIX_EPOCH);
            let now_ms = unix.unwrap_or_default().as_millis() as u64;
            if let Some(alert) = self.tick(flows(), now_ms) {
                alertmanagers.send(vec![alert]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_on_from_the_first_event_and_off_with_the_last() {
        let mut watchdog = Watchdog::new("ams1");
        assert_eq!(watchdog.tick(false, 1_000), None);
        let times = |alert: Option<Alert>| alert.map(|alert| (alert.starts_at, alert.ends_at));
        let at = |start: &str, end: &str| {
            let time = |text: &str| format!("1970-01-01T00:{text}.000Z");
            Some((time(start), time(end)))
        };
        let said = watchdog.tick(true, 15_000).expect("an alert");
        assert_eq!(said.labels["alertname"], "FlowvitalsWatchdog");
        assert_eq!(said.labels["site"], "ams1");
        assert_eq!(times(Some(said)), at("00:15", "01:15"));
        // Frozen, and held up a minute ahead.
        assert_eq!(times(watchdog.tick(true, 30_000)), at("00:15", "01:30"));
        assert_eq!(watchdog.tick(false, 45_000), None);
        assert_eq!(times(watchdog.tick(true, 60_000)), at("01:00", "02:00"));
    }
}
