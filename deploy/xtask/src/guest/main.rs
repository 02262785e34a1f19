//! Init of a guest of `cargo xtask vm-test`: sets the machine up, makes the checks, says what came of each on the second serial
//! port, and switches the machine off. What goes wrong with itself is on the console.

#[path = "../stack/attached.rs"]
mod attached;
mod checks;
mod clocks;
mod exact;
mod last;
mod machine;
mod netem;
mod off;
mod open;
mod refused;
mod rtt;
mod sampler;
mod stall;
mod unit;

use std::fs::{File, OpenOptions};
use std::io::Write;

use anyhow::{Context, Result};
use lab::clock;
use lab::guest::{Line, Marks, Outcome};

/// The second serial port.
const LINES: &str = "/dev/ttyS1";

fn main() {
    if std::process::id() != 1 {
        eprintln!("this is the init of a guest: cargo xtask vm-test starts it");
        std::process::exit(2);
    }
    if let Err(error) = run() {
        eprintln!("guest: {error:#}");
    }
    machine::off();
}

fn run() -> Result<()> {
    machine::mount_all()?;
    let lines = OpenOptions::new().write(true).open(LINES);
    let mut report = Report(lines.context(LINES)?);
    machine::load_modules()?;
    let command_line = std::fs::read_to_string("/proc/cmdline")?;
    let marks = Marks::from_command_line(&command_line);
    let marks = marks.context("nothing is expected of this kernel")?;
    checks::run(&mut report, marks)?;
    report.say(&Line::End)
}

/// The way to the host.
pub struct Report(File);

impl Report {
    /// Makes a check: `Ok` holds what was seen, `Err` what is wrong. Whether it passed.
    pub fn check(&mut self, name: &str, check: impl FnOnce() -> Result<String>) -> Result<bool> {
        self.say(&Line::Begins(name.to_owned()))?;
        let start = clock::now();
        let (passed, seen) = match check() {
            Ok(seen) => (true, seen),
            Err(error) => (false, format!("{error:#}")),
        };
        self.say(&Line::Over(Outcome {
            check: name.to_owned(),
            passed,
            time: start.elapsed(),
            seen,
        }))?;
        Ok(passed)
    }

    fn say(&mut self, line: &Line) -> Result<()> {
        writeln!(self.0, "{line}").context(LINES)
    }
}
