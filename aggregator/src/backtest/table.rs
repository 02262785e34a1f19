//! The report for a person.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::compare::Running;
use super::work::{Report, Summary};
use crate::alert::content::number;
use crate::alert::{FiredBy, RuleMetric, utc};
use crate::config::Config;
use crate::replay::Found;

const HEAD: [&str; 9] = [
    "FIRED",
    "RULE",
    "STREAM",
    "DURATION",
    "ESTIMATE (95 %)",
    "PEAK",
    "NODES",
    "BY",
    "RUNNING RULES",
];

/// Writes it.
pub(super) fn write(report: &Report, config: &Config, out: &mut dyn Write) -> io::Result<()> {
    let (from, to) = (utc(report.from_ms), utc(report.to_ms));
    writeln!(out, "site {}, {from} to {to}\n", report.site)?;
    let metrics: BTreeMap<&str, RuleMetric> = config
        .alerts
        .iter()
        .map(|alert| (alert.rule.name.as_str(), alert.rule.metric))
        .collect();
    let metric = |rule: &str| {
        metrics
            .get(rule)
            .copied()
            .unwrap_or(RuleMetric::RetransRatio)
    };
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(
        report
            .episodes
            .iter()
            .map(|one| row(&one.found, metric(&one.found.key.rule), &one.running)),
    );
    match report.episodes.as_slice() {
        [] => writeln!(out, "no alert")?,
        _ => write_rows(&rows, out)?,
    }
    if !report.gone.is_empty() {
        writeln!(out, "\nraised by the running rules, not by these:")?;
        for ran in &report.gone {
            let (key, on) = (&ran.key, utc(ran.starts_at_ms));
            let lasted = ran.duration_ms.map_or("still on".to_owned(), length);
            writeln!(out, "{on}  {}  {}  {lasted}", key.rule, key.stream)?;
        }
    }
    writeln!(out)?;
    write_summary(&report.summary, out)
}

fn row(found: &Found, metric: RuleMetric, running: &Running) -> [String; HEAD.len()] {
    let value = |value| number(metric, value);
    let estimate = found.estimate.map_or("–".to_owned(), |found| {
        format!(
            "{} ({} to {})",
            value(found.value),
            value(found.low),
            value(found.high)
        )
    });
    let nodes = match metric {
        RuleMetric::NoData => format!("{} of {}", found.nodes_reported, found.nodes_expected),
        _ => format!("{} of {}", found.nodes_touched, found.nodes_with_data),
    };
    let by = match found.fired_by {
        Some(FiredBy::Nodes(nodes)) => format!("{nodes} nodes"),
        _ => "rule".to_owned(),
    };
    [
        utc(found.starts_at_ms),
        found.key.rule.clone(),
        found.key.stream.clone(),
        found.duration_ms.map_or("still on".to_owned(), length),
        estimate,
        found.peak.map_or("–".to_owned(), |peak| value(peak.value)),
        nodes,
        by,
        running_text(running),
    ]
}

fn running_text(running: &Running) -> String {
    match running {
        Running::Unknown => "not known".to_owned(),
        Running::New => "new".to_owned(),
        Running::Same {
            later_ms,
            longer_ms,
        } => {
            let seconds = |ms: i64| format!("{:.1} s", ms.unsigned_abs() as f64 / 1e3);
            let mut text = "same".to_owned();
            if *later_ms != 0 {
                let word = if *later_ms < 0 { "earlier" } else { "later" };
                text += &format!(", {} {word}", seconds(*later_ms));
            }
            if let Some(longer_ms) = longer_ms.filter(|ms| *ms != 0) {
                let word = if longer_ms < 0 { "shorter" } else { "longer" };
                text += &format!(", {} {word}", seconds(longer_ms));
            }
            text
        }
    }
}

fn write_rows(rows: &[[String; HEAD.len()]], out: &mut dyn Write) -> io::Result<()> {
    let mut widths = [0; HEAD.len()];
    for row in rows {
        for (width, text) in widths.iter_mut().zip(row) {
            *width = (*width).max(text.chars().count());
        }
    }
    for row in rows {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(text, width)| format!("{text:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn write_summary(found: &Summary, out: &mut dyn Write) -> io::Result<()> {
    let a_day = |rate: Option<f64>| rate.map_or("–".to_owned(), |rate| format!("{rate:.2}"));
    writeln!(
        out,
        "{} alerts, {} of them pages: {} pages per stream-day ({} streams, {:.3} stream-days)",
        found.alerts,
        found.pages,
        a_day(found.pages_per_stream_day),
        found.streams,
        found.stream_days
    )?;
    writeln!(
        out,
        "{} suspicions, {} of them became an alert: {} per stream-day",
        found.suspects,
        found.suspects_confirmed,
        a_day(found.suspects_per_stream_day)
    )?;
    writeln!(
        out,
        "read: {} windows ({} late, {} of no use), {} pulses, {} heartbeats of {} nodes",
        found.windows,
        found.windows_late,
        found.windows_unused,
        found.pulses,
        found.heartbeats,
        found.nodes
    )?;
    let reasons: Vec<_> = found
        .undecodable
        .iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    let refused: u64 = found.undecodable.values().sum();
    let reasons = match reasons.as_slice() {
        [] => String::new(),
        reasons => format!(" ({})", reasons.join(", ")),
    };
    writeln!(
        out,
        "not read: {refused} records that are no events{reasons}, {} duplicates, {} events lost",
        found.duplicates, found.lost
    )?;
    match found.crowded {
        0 => Ok(()),
        crowded => writeln!(
            out,
            "{crowded} alerts and suspicions found no room in this report"
        ),
    }
}

/// "1 h 2 min 3.0 s".
fn length(ms: u64) -> String {
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, (ms % 60_000) as f64 / 1e3);
    match (hours, minutes) {
        (0, 0) => format!("{seconds:.1} s"),
        (0, minutes) => format!("{minutes} min {seconds:.1} s"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backtest::compare::compare;
    use crate::backtest::compare::tests::{found, ran};

    const BEGIN_MS: u64 = 1_795_376_700_000;

    #[test]
    fn a_report_reads_well() {
        let all = vec![
            found("sport-1", BEGIN_MS, Some(BEGIN_MS + 63_000)),
            found("sport-10", BEGIN_MS + 1_000, None),
        ];
        let theirs = vec![
            ran("sport-1", BEGIN_MS + 2_000, Some(BEGIN_MS + 63_000)),
            ran("news", BEGIN_MS, None),
        ];
        let (episodes, gone) = compare(all, Some(theirs));
        let report = Report {
            site: "ams1".to_owned(),
            from_ms: BEGIN_MS,
            to_ms: BEGIN_MS + 3_600_000,
            begin_ms: BEGIN_MS,
            episodes,
            gone,
            suspected: Vec::new(),
            summary: Summary {
                undecodable: [("schema", 2)].into(),
                pages_per_stream_day: Some(1.5),
                ..Summary::default()
            },
            notes: Vec::new(),
        };
        let mut out = Vec::new();
        write(&report, &Config::default(), &mut out).expect("written");
        let text = String::from_utf8(out).expect("text");
        for line in [
            "site ams1, 2026-11-22T19:45:00.000Z to 2026-11-22T20:45:00.000Z",
            "2026-11-22T19:45:00.000Z  loss  sport-1   1 min 3.0 s  –                –     0 of 0  rule  same, 2.0 s earlier, 2.0 s longer",
            "2026-11-22T19:45:01.000Z  loss  sport-10  still on     –                –     0 of 0  rule  new",
            "2026-11-22T19:45:00.000Z  loss  news  still on",
            "0 alerts, 0 of them pages: 1.50 pages per stream-day (0 streams, 0.000 stream-days)",
            "not read: 2 records that are no events (2 schema), 0 duplicates, 0 events lost",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "no {line:?} in\n{text}"
            );
        }
        let json = serde_json::to_value(&report).expect("JSON");
        assert_eq!(json["episodes"][0]["running"]["same"]["later_ms"], -2_000);
        assert_eq!(json["episodes"][1]["running"], "new");
        assert_eq!(json["episodes"][0]["stream"], "sport-1");
    }

    #[test]
    fn lengths() {
        assert_eq!(length(900), "0.9 s");
        assert_eq!(length(61_500), "1 min 1.5 s");
        assert_eq!(length(7_260_000), "2 h 1 min");
    }
}
