//! Our program in guests. As init of one of `cargo xtask vm-test`: sets the machine up, makes the checks, says what came of each on
//! the second serial port, and switches the machine off. As init of one of `cargo xtask systemd-test --qemu`: makes way for the
//! systemd of a Debian root, in which it is the host's agent. What goes wrong with itself is on the console.

mod agent;
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
mod root;
mod rtt;
mod sampler;
mod stall;
mod unit;

use std::fs::{File, OpenOptions};
use std::io::Write;

use anyhow::{Context, Result, anyhow};
use attached::Attached;
use lab::clock;
use lab::guest::{Line, Marks, Outcome};

/// The second serial port.
const LINES: &str = "/dev/ttyS1";

fn main() {
    let word = std::env::args().nth(1).unwrap_or_default();
    let done = match word.as_str() {
        _ if std::process::id() == 1 => {
            if let Err(error) = run() {
                eprintln!("guest: {error:#}");
            }
            return machine::off();
        }
        "agent" => agent::serve(),
        "objects" => {
            print!("{}", Attached::now());
            Ok(())
        }
        _ => Err(anyhow!(
            "this is a guest's program: cargo xtask vm-test and systemd-test start it"
        )),
    };
    if let Err(error) = done {
        eprintln!("guest: {error:#}");
        std::process::exit(2);
    }
}

fn run() -> Result<()> {
    machine::mount_all()?;
    let command_line = std::fs::read_to_string("/proc/cmdline")?;
    if root::is_asked_for(&command_line) {
        match root::switch()? {}
    }
    let lines = OpenOptions::new().write(true).open(LINES);
    let mut report = Report(lines.context(LINES)?);
    machine::load_modules()?;
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
