//! Alerts and their evidence, into tables and out.

use scylla::value::CqlValue;
use scylla::value::MaybeUnset::Set;

use super::columns::{Bound, Taker, bigint};
use super::connect::Connected;
use super::read::{DAY_MS, date, days_of, text};
use super::write::Write;
use crate::store::{AlertRow, EvidenceRow, StoreError};

impl Connected {
    pub(super) async fn write_alerts(&self, rows: &[AlertRow]) -> Result<(), StoreError> {
        let by_episode = rows.iter().map(Write::Alert);
        let by_day = rows.iter().map(Write::AlertByDay);
        self.write_all(by_episode.chain(by_day).collect()).await
    }

    pub(super) async fn write_evidence(&self, rows: &[EvidenceRow]) -> Result<(), StoreError> {
        self.write_all(rows.iter().map(Write::Evidence).collect())
            .await
    }

    pub(super) async fn alert(
        &self,
        key: &str,
        episode: &str,
    ) -> Result<Vec<AlertRow>, StoreError> {
        let episode = vec![text(key), text(episode)];
        let rows = self.ask(&self.statements.alert, episode).await?;
        Ok(rows.into_iter().map(read).collect())
    }

    pub(super) async fn alerts(
        &self,
        from_ms: u64,
        to_ms: u64,
        limit: usize,
    ) -> Result<Vec<AlertRow>, StoreError> {
        let mut found = Vec::new();
        // From the newest day back, until there are enough.
        for start_ms in days_of(from_ms, to_ms).into_iter().rev() {
            let wanted = i32::try_from(limit - found.len()).unwrap_or(i32::MAX);
            if wanted == 0 {
                break;
            }
            let end_ms = start_ms.saturating_add(DAY_MS);
            let question = vec![
                text(&self.site),
                date(start_ms),
                bigint(from_ms.max(start_ms)),
                bigint(to_ms.min(end_ms)),
                CqlValue::Int(wanted),
            ];
            let rows = self.ask(&self.statements.alerts, question).await?;
            found.extend(rows.into_iter().map(read));
        }
        Ok(found)
    }

    pub(super) async fn evidence(
        &self,
        key: &str,
        episode: &str,
    ) -> Result<Vec<EvidenceRow>, StoreError> {
        let question = vec![text(key), text(episode)];
        let rows = self.ask(&self.statements.evidence, question).await?;
        let rows = rows.into_iter().map(|mut row| EvidenceRow {
            key: row.text(),
            episode: row.text(),
            window_start_ms: row.number(),
            id: row.text(),
            event: row.bytes(),
        });
        Ok(rows.collect())
    }
}

/// In the order of the statement's names; the time of writing is that of the window.
pub(super) fn bind_evidence(row: &EvidenceRow) -> Vec<Bound> {
    vec![
        Set(text(&row.key)),
        Set(text(&row.episode)),
        Set(bigint(row.window_start_ms)),
        Set(text(&row.id)),
        Set(CqlValue::Blob(row.event.clone())),
        Set(bigint(row.window_start_ms.saturating_mul(1_000))),
    ]
}

/// In the order of the statements' names; the time of writing is that of the change.
pub(super) fn bind_alert(row: &AlertRow) -> Vec<Bound> {
    vec![
        Set(text(&row.key)),
        Set(text(&row.episode)),
        Set(bigint(row.at_ms)),
        Set(CqlValue::BigInt(row.offset)),
        Set(text(&row.state)),
        // JSON is text; what is none could not be read by anybody.
        Set(text(&String::from_utf8_lossy(&row.value))),
        Set(bigint(row.at_ms.saturating_mul(1_000))),
    ]
}

fn read(mut row: Taker) -> AlertRow {
    AlertRow {
        key: row.text(),
        episode: row.text(),
        at_ms: row.number(),
        offset: row.number().cast_signed(),
        state: row.text(),
        value: row.text().into_bytes(),
    }
}
