//! `check`: what is wrong with a configuration, and what a right one means.
//!
//! In: the files, and unless `--offline` this machine (key, cgroups, metrics port, state
//! directory); nothing is changed. Out: text on `out`, findings on `err`, an exit code.

mod explain;
mod machine;

mod summary;

use std::io::{self, Write};
use std::path::Path;

use crate::cli::CheckArgs;
use crate::config::{Config, diff};
use service::exit;

pub use explain::{Explanation, Question, explain};

use machine::Report;

/// Runs `check`; the result is the exit code.
pub fn run(args: &CheckArgs, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<u8> {
    let Some(config) = load(&args.config, err)? else {
        return Ok(exit::CONFIG);
    };
    let old = match &args.diff {
        None => None,
        Some(file) => match load(file, err)? {
            None => return Ok(exit::CONFIG),
            Some(old) => Some(old),
        },
    };
    let machine = match args.offline {
        true => None,
        false => Some(machine::look(&config)),
    };
    for warning in &config.warnings {
        writeln!(err, "warning: {warning}")?;
    }
    if let Some(report) = &machine {
        report_machine(report, err)?;
    }
    let key = machine.as_ref().and_then(|report| report.key.as_ref());
    if let (Some(local), Some(client)) = (args.explain, args.client) {
        let question = explain::Question {
            local,
            client,
            cgroup: args.cgroup.as_deref(),
            mark: args.mark,
        };
        match explain(&config, &question, key) {
            Some(explanation) => write!(out, "{explanation}")?,
            None => {
                writeln!(
                    err,
                    "error: the kernel's tables disagree with the rules: a bug"
                )?;
                return Ok(exit::BUG);
            }
        }
    }
    if let Some(old) = &old {
        write_diff(old, &config, out)?;
    }
    if args.explain.is_none() && old.is_none() {
        summary::write(&config, machine.as_ref(), out)?;
    }
    Ok(match machine {
        Some(report) if !report.errors.is_empty() => exit::CONFIG,
        _ => exit::OK,
    })
}

/// A configuration, or its errors on `err`.
fn load(file: &Path, err: &mut dyn Write) -> io::Result<Option<Config>> {
    match Config::load(file) {
        Ok(config) => Ok(Some(config)),
        Err(errors) => {
            errors.report(file, err)?;
            Ok(None)
        }
    }
}

fn report_machine(report: &Report, err: &mut dyn Write) -> io::Result<()> {
    for warning in &report.warnings {
        writeln!(err, "warning: {warning}")?;
    }
    for error in &report.errors {
        writeln!(err, "{error}")?;
    }
    Ok(())
}

fn write_diff(old: &Config, new: &Config, out: &mut dyn Write) -> io::Result<()> {
    let changes = diff(old, new);
    if changes.is_empty() {
        return writeln!(out, "no difference");
    }
    for change in &changes {
        writeln!(out, "{change}")?;
    }
    let restarts = changes
        .iter()
        .filter(|change| change.needs_restart())
        .count();
    match restarts {
        0 => writeln!(out, "{} changes; a reload takes them all", changes.len()),
        _ => writeln!(out, "{} changes; {restarts} need a restart", changes.len()),
    }
}

#[cfg(test)]
mod tests;
