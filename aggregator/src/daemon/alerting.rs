//! How alerting is doing: counts and the times that words took, for metrics and status.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use service::metrics::{Buckets, Family, Kind as Type, Value, counter, gauge};

use crate::alert::Kind;
use crate::alert::engine::{Counts, States};
use crate::publish::alertmanager::Alertmanagers;
use crate::publish::records::Status;

/// Upper bounds of the times, seconds.
const BOUNDS_S: [f64; 10] = [0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 120.0];

#[derive(Clone, Debug, Default)]
struct Times {
    counts: [u64; BOUNDS_S.len()],
    count: u64,
    sum_s: f64,
}

impl Times {
    fn add(&mut self, ms: u64) {
        let seconds = ms as f64 / 1e3;
        self.count += 1;
        self.sum_s += seconds;
        for (count, bound) in self.counts.iter_mut().zip(BOUNDS_S) {
            *count += u64::from(seconds <= bound);
        }
    }

    fn value(&self) -> Value {
        Value::Histogram(Box::new(Buckets {
            count: self.count,
            sum: self.sum_s,
            classic: BOUNDS_S.into_iter().zip(self.counts).collect(),
            ..Buckets::default()
        }))
    }
}

#[derive(Clone, Debug, Default)]
struct Noted {
    counts: Counts,
    states: States,
    topics: Status,
    state_read: u64,
    state_trouble: Option<String>,
    fired: Times,
    suspected: Times,
}

/// The books.
#[derive(Debug, Default)]
pub struct Alerting {
    noted: Mutex<Noted>,
    alertmanagers: OnceLock<Arc<Alertmanagers>>,
}

impl Alerting {
    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those who are told.
    pub(super) fn tells(&self, alertmanagers: Arc<Alertmanagers>) {
        // There is one start.
        let _ = self.alertmanagers.set(alertmanagers);
    }

    /// Notes how engine and topics are doing.
    pub(super) fn note(
        &self,
        counts: Counts,
        states: States,
        topics: Status,
        state_read: u64,
        state_trouble: Option<String>,
    ) {
        let mut noted = self.lock();
        noted.counts = counts;
        noted.states = states;
        noted.topics = topics;
        noted.state_read = state_read;
        noted.state_trouble = state_trouble;
    }

    /// Something was said so long after the end of its evidence.
    pub(super) fn said(&self, kind: Kind, late_ms: u64) {
        let mut noted = self.lock();
        match kind {
            Kind::Fired => noted.fired.add(late_ms),
            _ => noted.suspected.add(late_ms),
        }
    }

    /// What is wrong, in words.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let noted = self.lock();
        let topics = noted.topics.trouble.clone();
        let topics = topics.or_else(|| noted.state_trouble.clone());
        let alertmanagers = || self.alertmanagers.get()?.health().into_iter().next();
        let trouble = topics.or_else(alertmanagers);
        trouble.map(|trouble| format!("alerts: {trouble}"))
    }

    /// Its metrics.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let noted = self.lock().clone();
        let states = [
            ("ok", noted.states.ok),
            ("pending", noted.states.pending),
            ("firing", noted.states.firing),
            ("resolving", noted.states.resolving),
            ("suspect", noted.states.suspect),
        ];
        let by_state = states.into_iter().fold(
            Family::new(
                Type::Gauge,
                "flowvitals_aggregator_alerts",
                "Pairs of rule and stream of this member by state; a suspect one counts beside its rule's state.",
            ),
            |family, (state, count)| family.number(&[("state", state)], count as f64),
        );
        let mut records = Family::new(
            Type::Counter,
            "flowvitals_aggregator_records_total",
            "Records of alerts and states by topic and what became of them; one that failed is sent again.",
        );
        for (topic, fates) in &noted.topics.fates {
            for (outcome, count) in [
                ("delivered", fates.delivered),
                ("failed", fates.failed),
                ("dropped", fates.dropped),
            ] {
                let labels = [("topic", *topic), ("outcome", outcome)];
                records = records.number(&labels, count as f64);
            }
        }
        let mut latency = Family::new(
            Type::Histogram,
            "flowvitals_aggregator_alert_latency_seconds",
            "From the end of the evidence, in event time, to the word about it.",
        );
        for (kind, times) in [("fired", &noted.fired), ("suspected", &noted.suspected)] {
            latency.push(&[("kind", kind)], times.value());
        }
        let mut families = vec![
            by_state,
            records,
            latency,
            gauge(
                "flowvitals_aggregator_records_unconfirmed",
                "Records of alerts and states that no broker has confirmed.",
                noted.topics.unconfirmed as f64,
            ),
            counter(
                "flowvitals_aggregator_evaluations_total",
                "Observations that a rule has judged.",
                noted.counts.evaluations,
            ),
            counter(
                "flowvitals_aggregator_suspects_total",
                "Suspicions that began, by rule and stream.",
                noted.counts.suspects,
            ),
            counter(
                "flowvitals_aggregator_state_records_read_total",
                "Records read from the state topic, our own included.",
                noted.state_read,
            ),
            counter(
                "flowvitals_aggregator_state_records_unreadable_total",
                "Records of the state topic that are none of ours.",
                noted.counts.state_unreadable,
            ),
            counter(
                "flowvitals_aggregator_partitions_superseded_total",
                "Partitions that a later owner took while we still had them.",
                noted.counts.superseded,
            ),
            counter(
                "flowvitals_aggregator_alerts_crowded_total",
                "Pairs of rule and stream that found no room.",
                noted.counts.crowded,
            ),
        ];
        families.extend(
            self.alertmanagers
                .get()
                .into_iter()
                .flat_map(|them| them.families()),
        );
        families
    }
}
