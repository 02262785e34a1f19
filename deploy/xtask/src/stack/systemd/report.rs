//! The table of what was checked, a line at a time.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use lab::clock;

use crate::{interrupt, progress};

/// Counts of checks so far.
#[derive(Default)]
pub struct Report {
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Report {
    /// Makes a check: `Ok` holds what was seen, `Err` what is wrong. Whether it passed.
    pub fn check(&mut self, what: &str, check: impl FnOnce() -> Result<String>) -> bool {
        if interrupt::came() {
            return false;
        }
        let start: Instant = clock::now();
        match progress::during(what, check) {
            Ok(seen) => {
                self.passed(what, &seen, start.elapsed());
                true
            }
            Err(error) => {
                self.failed += 1;
                line("FAILED", what, &format!("{error:#}"), start.elapsed());
                false
            }
        }
    }

    /// Something that was seen to be right.
    pub fn passed(&mut self, what: &str, seen: &str, time: Duration) {
        self.passed += 1;
        line("ok", what, seen, time);
    }

    /// Something that cannot be tried here. True, as nothing is wrong.
    pub fn skipped(&mut self, what: &str, why: &str) -> bool {
        self.skipped += 1;
        line("not", what, why, Duration::ZERO);
        true
    }

    /// The last line; fails if anything did.
    pub fn end(&self) -> Result<()> {
        println!(
            "{} passed, {} failed, {} cannot be tried here",
            self.passed, self.failed, self.skipped
        );
        if interrupt::came() {
            bail!("interrupted");
        }
        if self.failed > 0 {
            bail!("{} checks failed", self.failed);
        }
        Ok(())
    }
}

fn line(verdict: &str, what: &str, seen: &str, time: Duration) {
    println!(
        "{verdict:<6} {:>5.1} s  {what:<39} {seen}",
        time.as_secs_f64()
    );
}
