//! Counts of what passed: from libtest's summaries, pure.

/// Passed, failed, skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Ran, and was right.
    pub passed: u64,
    /// Was wrong.
    pub failed: u64,
    /// Did not run, and said why.
    pub skipped: u64,
}

impl Tally {
    /// One step that is a check of its own.
    pub fn step(passed: bool) -> Self {
        Self {
            passed: u64::from(passed),
            failed: u64::from(!passed),
            skipped: 0,
        }
    }

    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }

    /// Sums the summaries in a test run's output, which was made with `--show-output`.
    ///
    /// A test that could not run prints `skipped: reason` and returns; libtest calls that passed.
    pub fn of_tests(output: &str) -> Self {
        let mut tally = Self::default();
        for line in output.lines() {
            if let Some(summary) = line.strip_prefix("test result: ") {
                tally.passed += number_before(summary, " passed");
                tally.failed += number_before(summary, " failed");
                tally.skipped += number_before(summary, " ignored");
            }
        }
        let said = output.lines().filter(|line| line.starts_with("skipped: "));
        let said = said.count() as u64;
        tally.skipped += said;
        tally.passed = tally.passed.saturating_sub(said);
        tally
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

/// What to show of a failed step: the failed tests' own output, or else the last lines.
pub fn failures(output: &str, at_most: usize) -> String {
    let mut inside = false;
    let blocks = output.lines().filter(|line| {
        inside = match *line {
            "failures:" => true,
            _ => inside && !line.starts_with("test result: "),
        };
        inside
    });
    let mut lines: Vec<_> = blocks.take(at_most).collect();
    if lines.is_empty() {
        lines = output.lines().collect();
        lines.drain(..lines.len().saturating_sub(at_most));
    }
    lines.join("\n")
}

fn number_before(text: &str, word: &str) -> u64 {
    text.split(';')
        .filter_map(|part| part.strip_suffix(word))
        .filter_map(|part| part.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_add_up_and_said_skips_are_no_passes() {
        let output = "running 3 tests\n\nsuccesses:\n---- a stdout ----\nskipped: no root\n\n\
                      test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n\
                      test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured\n";
        let tally = Tally::of_tests(output);
        assert_eq!(tally.to_string(), "3 passed, 2 failed, 2 skipped");
    }

    #[test]
    fn a_failure_is_shown_also_where_much_follows() {
        let output = "successes:\n---- a stdout ----\nfine\nfailures:\n---- b stdout ----\nwrong\n\
                      test result: FAILED. 1 passed; 1 failed\nrunning 0 tests\n";
        assert_eq!(failures(output, 9), "failures:\n---- b stdout ----\nwrong");
        assert_eq!(failures("one\ntwo\nthree\n", 2), "two\nthree");
    }

    #[test]
    fn nothing_skipped_is_not_mentioned() {
        let both = Tally::step(true).plus(Tally::step(false));
        assert_eq!(both.to_string(), "1 passed, 1 failed");
    }
}
