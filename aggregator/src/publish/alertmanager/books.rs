//! What became of the alerts for one Alertmanager, and how it is doing. Pure: times are arguments.

use std::time::Duration;

use service::latency::Latency;
use service::metrics::{Family, Kind, Value};

use super::client::PostError;
use super::queue::Put;

const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

/// Counts since the start. `said` = taken + refused + replaced + stale + expired + crowded + unfit + those that wait.
#[derive(Clone, Debug, Default)]
pub struct Books {
    /// Alerts that were to be said.
    pub said: u64,
    /// It took them.
    pub taken: u64,
    /// It would not take them.
    pub refused: u64,
    /// A newer word about the same alert came before they could be said.
    pub replaced: u64,
    /// The end of the same alert waited already.
    pub stale: u64,
    /// They held no more before they could be said.
    pub expired: u64,
    /// There was no room.
    pub crowded: u64,
    /// Their times were none, or over.
    pub unfit: u64,
    /// Requests that failed and were made again.
    pub retries: u64,
    /// From being said to being taken.
    pub reached: Latency,
    failing: Option<Failing>,
}

/// Since when it fails, and why.
#[derive(Clone, Debug)]
struct Failing {
    since: Duration,
    reason: String,
}

impl Books {
    /// Counts an alert that was put into the queue.
    pub(super) fn put(&mut self, put: Put) {
        self.said += 1;
        match put {
            Put::Added => {}
            Put::Replaced => self.replaced += 1,
            Put::Stale => self.stale += 1,
            Put::Full | Put::Crowded => self.crowded += 1,
            Put::Unfit => self.unfit += 1,
        }
    }

    /// Counts alerts that were taken, each after so long; whether it had failed before.
    pub(super) fn taken(&mut self, times: impl Iterator<Item = Duration>) -> bool {
        for time in times {
            self.taken += 1;
            self.reached.record(time);
        }
        self.failing.take().is_some()
    }

    /// Notes a failure; whether the reason is a new one.
    pub(super) fn failed(&mut self, error: &PostError, now: Duration) -> bool {
        let reason = error.to_string();
        match &mut self.failing {
            Some(failing) if failing.reason == reason => false,
            Some(failing) => {
                failing.reason = reason;
                true
            }
            None => {
                self.failing = Some(Failing { since: now, reason });
                true
            }
        }
    }

    /// Why it does not take alerts, in words; none: it does, as far as is known.
    #[must_use]
    pub fn trouble(&self, url: &str, waiting: usize, now: Duration) -> Option<String> {
        let failing = self.failing.as_ref()?;
        let for_s = now.saturating_sub(failing.since).as_secs();
        let reason = &failing.reason;
        Some(format!(
            "{url} takes no alerts for {for_s} s: {reason}; {waiting} wait"
        ))
    }
}

/// The metrics of all of them: URL, books and how many alerts wait.
#[must_use]
pub fn families(all: &[(&str, Books, usize)]) -> Vec<Family> {
    let mut alerts = Family::new(
        Kind::Counter,
        "flowvitals_alertmanager_alerts_total",
        "Alerts for an Alertmanager by what became of them; those that are repeated count again.",
    );
    let mut retries = Family::new(
        Kind::Counter,
        "flowvitals_alertmanager_retries_total",
        "Requests to an Alertmanager that failed and were made again.",
    );
    let mut waiting = Family::new(
        Kind::Gauge,
        "flowvitals_alertmanager_waiting_alerts",
        "Alerts that an Alertmanager has not taken yet.",
    );
    let mut up = Family::new(
        Kind::Gauge,
        "flowvitals_alertmanager_up",
        "Whether the last request to an Alertmanager went well; 1 before the first.",
    );
    let mut reached = Family::new(
        Kind::Summary,
        "flowvitals_alertmanager_reached_seconds",
        "Time from saying an alert to the Alertmanager's having taken it.",
    );
    for (url, books, wait) in all {
        let url: &str = url;
        let outcomes = [
            ("taken", books.taken),
            ("refused", books.refused),
            ("replaced", books.replaced),
            ("stale", books.stale),
            ("expired", books.expired),
            ("crowded", books.crowded),
            ("unfit", books.unfit),
        ];
        for (outcome, count) in outcomes {
            alerts = alerts.number(&[("url", url), ("outcome", outcome)], count as f64);
        }
        retries = retries.number(&[("url", url)], books.retries as f64);
        waiting = waiting.number(&[("url", url)], *wait as f64);
        up = up.number(
            &[("url", url)],
            f64::from(u8::from(books.failing.is_none())),
        );
        let quantiles = QUANTILES
            .iter()
            .map(|&q| (q, books.reached.quantile_s(q).unwrap_or(f64::NAN)));
        let summary = Value::Summary {
            count: books.reached.count(),
            sum: books.reached.sum_s(),
            quantiles: quantiles.collect(),
        };
        reached.push(&[("url", url)], summary);
    }
    vec![alerts, retries, waiting, up, reached]
}
