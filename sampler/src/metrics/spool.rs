//! The spool and the ledger's laws as families. Pure but for the wall clock of the age.
//!
//! Input: [`SpoolStatus`], the sink's totals, laws. Output: families. Units: base units.

use std::time::{SystemTime, UNIX_EPOCH};

use service::metrics::family::{Family, Kind, counter, gauge};

use super::node::summary;
use crate::laws::Law;
use crate::sink::Totals;
use crate::spool::SpoolStatus;

/// What does not add up, by law.
pub fn laws_family(laws: impl Iterator<Item = Law>) -> Family {
    let family = Family::new(
        Kind::Gauge,
        "flowvitals_ledger_difference",
        "Left less right side of what must be equal: 0, or something was lost unexplained. Laws of flows may differ for one window.",
    );
    laws.fold(family, |family, law| {
        family.number(&[("law", law.name)], law.difference() as f64)
    })
}

/// Families of the spool.
pub fn families(status: &SpoolStatus, totals: &Totals) -> Vec<Family> {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = wall.unwrap_or_default().as_millis() as u64;
    let earlier = &totals.earlier;
    let mut families = vec![
        gauge(
            "flowvitals_spool_bytes",
            "Bytes of the spool on disk.",
            status.bytes as f64,
        ),
        gauge(
            "flowvitals_spool_limit_bytes",
            "Bound of the spool (option max_bytes).",
            status.max_bytes as f64,
        ),
        gauge(
            "flowvitals_spool_events",
            "Events in the spool that no broker has confirmed.",
            status.records as f64,
        ),
        gauge(
            "flowvitals_spool_backlog_events",
            "Of those: on disk only, to be replayed.",
            (status.pending + status.pending_earlier) as f64,
        ),
        gauge(
            "flowvitals_spool_age_seconds",
            "Age of about the oldest event that no broker has confirmed; 0 if there is none.",
            status.age_s(now_ms),
        ),
        gauge(
            "flowvitals_spool_degraded",
            "1 while the disk does not take events, or not in time; the log and the heartbeat say why.",
            f64::from(u8::from(status.trouble().is_some())),
        ),
        counter(
            "flowvitals_spool_unspooled_events_total",
            "Windows and heartbeats that went on from memory because the disk did not take them.",
            totals.unspooled,
        ),
        counter(
            "flowvitals_spool_replayed_events_total",
            "Events of the backlog that were confirmed.",
            totals.replayed,
        ),
        counter(
            "flowvitals_spool_torn_bytes_total",
            "Bytes cut off at start because a record was not whole.",
            status.torn_bytes,
        ),
        counter(
            "flowvitals_spool_dead_letters_total",
            "Events written down as dead letters.",
            status.dead_letters,
        ),
        summary(
            "flowvitals_spool_sync_duration_seconds",
            "How long it took to bring a segment to the disk.",
            &status.sync,
        ),
        Family::new(
            Kind::Gauge,
            "flowvitals_spool_earlier_events",
            "Events of earlier lives of the daemon that were found at start, by what became of them.",
        )
        .number(&[("fate", "delivered")], earlier.delivered as f64)
        .number(&[("fate", "dropped")], earlier.dropped.sum() as f64)
        .number(&[("fate", "dead_letter")], earlier.dead_letter as f64)
        .number(&[("fate", "waiting")], earlier.waiting as f64)
        .number(&[("fate", "spooled")], earlier.spooled as f64)
        .number(&[("fate", "at_risk")], earlier.at_risk as f64),
    ];
    // Nothing is written yet: no rate, and no word about it.
    families.extend(status.room_s().map(|room_s| {
        gauge(
            "flowvitals_spool_room_seconds",
            "How long the spool's bound lasts at the present rate, while no broker takes anything.",
            room_s,
        )
    }));
    families
}
