//! `backtest`: which alerts rules would have raised on what Kafka still holds.
//!
//! In: rules, and the windows, pulses and heartbeats of a stretch of time. Out: every episode, held against what the running rules said of the same
//! time; a table or JSON; an exit code. Records are read in the order in which the brokers took them, decoded, each taken once, merged and judged by
//! the daemon's own engine with the broker's time as its clock. No group is joined, nothing committed, nothing written but the file that
//! `--export` names. Flow: `settings → past records → replay → compare → report`.
//! Limits: memory is that of the daemon, not of the stretch. A run begins [`WARM_UP_MS`] before its first moment with nothing known; what it says before
//! that moment does not count.

mod compare;
mod export;
mod said;
mod settings;
mod table;
mod work;

use std::io::{self, Write};

use service::exit;

use self::settings::Settings;
use self::work::Work;
use crate::cli::BacktestArgs;

/// So long before the first moment reading begins: what a detector learns has a time constant of ten minutes, and a node is missed for a
/// quarter of an hour by default.
pub const WARM_UP_MS: u64 = 900_000;

/// Why there is no result: an exit code, and words that say what to do.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// One of [`exit`].
    pub code: u8,
    /// In words.
    pub message: String,
}

impl Failure {
    fn new(code: u8, message: impl ToString) -> Self {
        Self {
            code,
            message: message.to_string(),
        }
    }
}

/// Runs `backtest`; the result is the exit code. `progress` says whether somebody watches `err`.
///
/// # Errors
/// If `out` or `err` cannot be written.
pub fn run(
    args: &BacktestArgs,
    now_ms: u64,
    watched: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<u8> {
    let settings = match Settings::of(args, now_ms) {
        Ok(settings) => settings,
        Err(failure) => {
            writeln!(err, "{failure}")?;
            return Ok(failure.code);
        }
    };
    for warning in &settings.config.warnings {
        writeln!(err, "warning: {warning}")?;
    }
    let report = Work::new(&settings, watched, err).and_then(Work::run);
    let report = match report {
        Ok(report) => report,
        Err(failure) => {
            writeln!(err, "flowvitals-aggregator: backtest: {failure}")?;
            return Ok(failure.code);
        }
    };
    for note in &report.notes {
        writeln!(err, "note: {note}")?;
    }
    match args.json {
        true => {
            serde_json::to_writer_pretty(&mut *out, &report)?;
            writeln!(out)?;
        }
        false => table::write(&report, &settings.config, out)?,
    }
    Ok(exit::OK)
}
