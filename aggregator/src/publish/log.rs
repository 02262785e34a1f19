//! The log as an output: a line for everything that begins or ends.

use super::Output;
use crate::alert::Kind;
use crate::alert::engine::Said;

/// The log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Log;

impl Output for Log {
    fn say(&self, said: &Said) {
        let record = &said.record;
        let (rule, stream) = (&record.key.rule, &record.key.stream);
        let notice = &record.notice;
        let text = |name: &str| record.annotations.get(name).map_or("", String::as_str);
        let (summary, estimate) = (text("summary"), text("estimate"));
        let (onset, episode) = (text("onset"), notice.episode_id.as_deref().unwrap_or(""));
        match notice.kind {
            Kind::Fired => tracing::warn!(
                rule,
                stream,
                episode,
                onset,
                estimate,
                completeness = text("completeness"),
                worst_nodes = text("worst_nodes"),
                "alert: {summary}"
            ),
            Kind::Resolved => tracing::info!(
                rule,
                stream,
                episode,
                peak = text("peak"),
                duration = text("duration"),
                ended = text("ended"),
                "resolved: {summary}"
            ),
            Kind::Suspected => tracing::warn!(rule, stream, onset, "suspect: {summary}"),
            Kind::SuspectEnded => tracing::info!(rule, stream, "suspect no more: {summary}"),
            Kind::Pending | Kind::Withdrawn | Kind::Resolving | Kind::Relapsed => {
                tracing::debug!(rule, stream, estimate, kind = ?notice.kind, "{summary}");
            }
            Kind::Repeated | Kind::ResolvedRepeated | Kind::SuspectRepeated => {}
        }
    }
}
