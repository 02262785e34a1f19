//! The picture: a line about the node and a table of streams. Pure.
//!
//! Input: [`NodeLine`] and [`Row`]s. Output: a frame of a terminal, or plain text. Numbers are over sampled flows, but for
//! `new/s`, which is exact.

use std::fmt::Write;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row as TableRow, Table};

use super::rates::{NodeLine, Row, SpoolLine};

/// Columns: heading and width.
const COLUMNS: [(&str, u16); 11] = [
    ("stream", 20),
    ("rate", 6),
    ("new/s", 8),
    ("open", 7),
    ("Mbit/s", 9),
    ("retr/s", 8),
    ("retr %", 7),
    ("rtt ms", 8),
    ("~p90 ms", 8),
    ("stalls", 7),
    ("stall %", 8),
];
/// A retransmit ratio from which a row stands out.
const HIGH_RETRANS: f64 = 0.02;

fn cells(row: &Row) -> [String; COLUMNS.len()] {
    let some = |value: Option<f64>, factor: f64| {
        value.map_or("-".to_owned(), |value| format!("{:.2}", value * factor))
    };
    [
        row.stream.clone(),
        format!("{:.3}", row.sampling_rate),
        format!("{:.1}", row.seen_per_s),
        format!("{:.0}", row.flows_open),
        format!("{:.2}", row.sent_bps / 1e6),
        format!("{:.1}", row.retrans_per_s),
        some(row.retrans_ratio, 100.0),
        some(row.rtt_mean_ms, 1.0),
        some(row.rtt_p90_ms, 1.0),
        format!("{:.0}", row.stalls_open),
        some(row.stall_ratio, 100.0),
    ]
}

/// The line about the node.
pub fn headline(node: &NodeLine) -> String {
    let late = node
        .late_p99_ms
        .map_or("-".to_owned(), |late_ms| format!("{late_ms:.1} ms"));
    format!(
        "flowvitals {} | kernel {} | sink {} ({:.0} waiting, {:.0} lost){} | cpu {:.2} % | rss {:.1} MB | late p99 {late} | TCP only",
        node.version,
        node.kernel_mode,
        node.sink,
        node.waiting,
        node.lost,
        node.spool.as_ref().map_or_else(String::new, spool),
        node.cpu_ratio * 100.0,
        node.rss_bytes / 1e6,
    )
}

fn spool(line: &SpoolLine) -> String {
    let room = line
        .room_s
        .map_or_else(String::new, |s| format!(", room {:.0} min", s / 60.0));
    let trouble = if line.degraded { ", disk!" } else { "" };
    format!(
        " | spool {:.0} ({:.0} s{room}{trouble})",
        line.events, line.age_s
    )
}

/// Plain text, for a pipe.
pub fn plain(node: &NodeLine, rows: &[Row]) -> String {
    let mut out = headline(node) + "\n";
    let headings = COLUMNS.map(|(heading, _)| heading.to_owned());
    for cells in std::iter::once(headings).chain(rows.iter().map(cells)) {
        for (place, (cell, (_, width))) in cells.iter().zip(COLUMNS).enumerate() {
            let width = usize::from(width);
            // Writing to a string cannot fail.
            let _ = if place == 0 {
                write!(out, "{cell:<width$}")
            } else {
                write!(out, " {cell:>width$}")
            };
        }
        out.push('\n');
    }
    if rows.is_empty() {
        out.push_str("no stream has series (metrics.streams), or none had a flow yet\n");
    }
    out
}

/// Draws a frame. `note` is the last trouble, if there is one.
pub fn draw(frame: &mut Frame<'_>, node: &NodeLine, rows: &[Row], note: Option<&str>) {
    let [head, body, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Line::from(headline(node)), head);
    let heading = TableRow::new(COLUMNS.map(|(heading, _)| Cell::from(heading)))
        .style(Style::new().add_modifier(Modifier::REVERSED));
    let lines = rows.iter().map(|row| {
        let line = TableRow::new(cells(row));
        match row.retrans_ratio {
            Some(ratio) if ratio >= HIGH_RETRANS => line.style(Style::new().fg(Color::Red)),
            _ if row.stalls_open > 0.0 => line.style(Style::new().fg(Color::Yellow)),
            _ => line,
        }
    });
    frame.render_widget(
        Table::new(lines, COLUMNS.map(|(_, width)| Constraint::Length(width))).header(heading),
        body,
    );
    let foot_line = note.map_or_else(
        || Line::from("q: quit"),
        |note| Line::from(note.to_owned()).style(Style::new().fg(Color::Red)),
    );
    frame.render_widget(foot_line, foot);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    fn row() -> Row {
        Row {
            stream: "sport-1".into(),
            sampling_rate: 0.1,
            seen_per_s: 12.5,
            sent_bps: 3.2e6,
            retrans_ratio: Some(0.031),
            ..Row::default()
        }
    }

    #[test]
    fn draws_every_column() {
        let mut terminal = Terminal::new(TestBackend::new(120, 6)).expect("terminal");
        let node = NodeLine {
            version: "0.1.0".into(),
            sink: "ok".into(),
            ..NodeLine::default()
        };
        terminal
            .draw(|frame| draw(frame, &node, &[row()], Some("no answer")))
            .expect("drawn");
        let buffer = terminal.backend().buffer();
        let line = |y: u16| {
            (0..120)
                .map(|x| buffer[(x, y)].symbol())
                .collect::<String>()
        };
        assert!(
            line(0).starts_with("flowvitals 0.1.0 | kernel"),
            "{}",
            line(0)
        );
        assert!(
            COLUMNS.iter().all(|(heading, _)| line(1).contains(heading)),
            "{}",
            line(1)
        );
        let words: Vec<String> = line(2).split_whitespace().map(str::to_owned).collect();
        assert_eq!(
            words,
            [
                "sport-1", "0.100", "12.5", "0", "3.20", "0.0", "3.10", "-", "-", "0", "-"
            ]
        );
        assert_eq!(buffer[(0, 2)].fg, Color::Red);
        assert!(line(5).starts_with("no answer"));
    }

    #[test]
    fn the_spool_is_shown_where_there_is_one() {
        assert!(!headline(&NodeLine::default()).contains("spool"));
        let spool = SpoolLine {
            events: 7000.0,
            age_s: 35.2,
            room_s: Some(1860.0),
            degraded: true,
        };
        let node = NodeLine {
            spool: Some(spool),
            ..NodeLine::default()
        };
        let text = headline(&node);
        assert!(
            text.contains("| spool 7000 (35 s, room 31 min, disk!) |"),
            "{text}"
        );
    }

    #[test]
    fn plain_columns_stand_under_their_names() {
        let text = plain(&NodeLine::default(), &[row()]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1].len(), lines[2].len(), "{text}");
        assert!(plain(&NodeLine::default(), &[]).contains("no stream"));
    }
}
