//! The table of kernels and checks. Pure.

use super::Trial;

/// A row per kernel, a column per check in the order in which they were made.
pub fn of(trials: &[Trial]) -> String {
    let mut checks: Vec<&str> = Vec::new();
    for outcome in trials
        .iter()
        .flat_map(|trial| trial.outcomes.iter().flatten())
    {
        if !checks.contains(&outcome.check.as_str()) {
            checks.push(&outcome.check);
        }
    }
    let mut head = vec!["kernel".to_owned(), "expected".to_owned()];
    head.extend(checks.iter().map(|check| (*check).to_owned()));
    head.push("time".to_owned());
    let rows = trials.iter().map(|trial| row(trial, &checks));
    aligned(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

fn row(trial: &Trial, checks: &[&str]) -> Vec<String> {
    let marks = trial.series.expected;
    let expected = format!("{}, {}", marks.rtt_source, marks.kernel_mode);
    let mut row = vec![trial.name().to_owned(), expected];
    let found = |check: &str| {
        let mut outcomes = trial.outcomes.iter().flatten();
        outcomes.find(|outcome| outcome.check == check)
    };
    row.extend(
        checks
            .iter()
            .map(|check| match (found(check), &trial.outcomes) {
                (Some(outcome), _) if outcome.passed => "ok".to_owned(),
                (Some(_), _) => "FAILED".to_owned(),
                (None, Ok(_)) => "-".to_owned(),
                (None, Err(_)) => "?".to_owned(),
            }),
    );
    row.push(format!("{:.0} s", trial.time.as_secs_f64()));
    row
}

fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths);
        let cells: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a", "b"], ["long", "c"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(aligned(&rows), "a     b\nlong  c");
    }
}
