//! `check`: what is wrong with a configuration, and what a right one means.
//!
//! In: the file, and unless `--offline` the brokers, a Cassandra and this machine; nothing is changed. Out: text on `out`, findings
//! on `err`, an exit code. Limits: the brokers get [`service::brokers::TIMEOUT`] to answer, a Cassandra 15 s.

mod surroundings;

mod store;

mod summary;

use std::io::{self, Write};

use service::exit;

use crate::cli::CheckArgs;
use crate::config::Config;

/// Runs `check`; the result is the exit code.
///
/// # Errors
/// If `out` or `err` cannot be written.
pub fn run(args: &CheckArgs, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<u8> {
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(errors) => {
            errors.report(&args.config, err)?;
            return Ok(exit::CONFIG);
        }
    };
    for warning in &config.warnings {
        writeln!(err, "warning: {warning}")?;
    }
    if args.offline {
        // The file may be finished elsewhere; that it cannot be run as it is must be said all the same.
        if let Err(error) = config.ready_to_run() {
            writeln!(err, "warning: {error}")?;
        }
        summary::write(&config, None, out)?;
        return Ok(exit::OK);
    }
    let found = surroundings::look(&config);
    for warning in &found.warnings {
        writeln!(err, "warning: {warning}")?;
    }
    for error in &found.errors {
        writeln!(err, "{error}")?;
    }
    summary::write(&config, Some(&found), out)?;
    Ok(match found.errors.is_empty() {
        true => exit::OK,
        false => exit::CONFIG,
    })
}

#[cfg(test)]
mod tests;
