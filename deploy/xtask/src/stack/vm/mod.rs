//! `cargo xtask vm-test`: the sampler on other kernels than this machine's, in guests of QEMU.
//!
//! In: the sampler and the guest program as `cargo build` makes them, and Debian's kernels. Out: a line per check, and a table of
//! kernels and checks. Nothing of it needs root, /dev/kvm or the network of a guest. Limits: two guests at a time.

mod apt;
pub mod guest;
pub mod initramfs;
pub mod kernels;
pub mod modules;
pub mod series;
mod table;

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use lab::clock;
use lab::guest::{Line, Outcome};

use crate::cli::VmTest;
use crate::interrupt;
use kernels::Kernel;
use modules::Purpose;
use series::Series;

/// They have one CPU each.
const AT_A_TIME: usize = 2;

/// What became of a series.
pub struct Trial {
    series: Series,
    /// Absent if none was to be had.
    release: Option<String>,
    /// Of all checks; or why they are not all there.
    outcomes: Result<Vec<Outcome>>,
    time: Duration,
}

impl Trial {
    fn passed(&self) -> bool {
        let outcomes = self.outcomes.as_ref();
        outcomes.is_ok_and(|all| !all.is_empty() && all.iter().all(|outcome| outcome.passed))
    }

    /// The kernel's name in lines and table.
    fn name(&self) -> &str {
        self.release.as_deref().unwrap_or(self.series.name)
    }
}

/// Tries all chosen kernels, also after a failure.
pub fn run(options: &VmTest) -> Result<()> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "guests are made of this machine's programs, and the kernels are for x86-64"
    );
    interrupt::watch()?;
    let start = clock::now();
    let wanted = kernels::of(&series::chosen(&options.kernels)?)?;
    let at_hand: Vec<_> = wanted
        .iter()
        .filter_map(|(_, kernel)| kernel.as_ref().ok())
        .collect();
    let initramfs = initramfs::make(&at_hand, Purpose::Checks)?;
    let trials = all(wanted, &initramfs);
    if interrupt::came() {
        bail!("interrupted");
    }
    println!("\n{}", table::of(&trials));
    println!(
        "{} kernels in {:.0} s",
        trials.len(),
        start.elapsed().as_secs_f64()
    );
    let failed: Vec<_> = trials.iter().filter(|trial| !trial.passed()).collect();
    ensure!(
        failed.is_empty(),
        "not as expected: {}",
        failed
            .iter()
            .map(|trial| trial.name())
            .collect::<Vec<_>>()
            .join(", ")
    );
    Ok(())
}

/// The slowest first would be best, but all that can take part take about as long.
fn all(wanted: Vec<(Series, Result<Kernel>)>, initramfs: &Path) -> Vec<Trial> {
    let count = wanted.len();
    let waiting = Mutex::new(wanted.into_iter().enumerate());
    let over = Mutex::new(Vec::with_capacity(count));
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME.min(count) {
            scope.spawn(|| {
                let next = || {
                    waiting
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .next()
                };
                while let Some((number, (series, kernel))) = next().filter(|_| !interrupt::came()) {
                    let trial = one(series, kernel, initramfs);
                    over.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((number, trial));
                }
            });
        }
    });
    let mut over = over.into_inner().unwrap_or_else(PoisonError::into_inner);
    over.sort_by_key(|(number, _)| *number);
    over.into_iter().map(|(_, trial)| trial).collect()
}

fn one(series: Series, kernel: Result<Kernel>, initramfs: &Path) -> Trial {
    let start = clock::now();
    let release = kernel.as_ref().ok().map(|kernel| kernel.release.clone());
    let name = release.clone().unwrap_or_else(|| series.name.to_owned());
    let outcomes = kernel.and_then(|kernel| {
        println!("        {name:<16} boots");
        guest::run(&kernel, initramfs, |line| say(&name, line))
    });
    if let Err(error) = &outcomes {
        println!("FAILED  {name:<16} {error:#}");
    }
    Trial {
        series,
        release,
        outcomes,
        time: start.elapsed(),
    }
}

fn say(kernel: &str, line: &Line) {
    match line {
        Line::Begins(check) => println!("        {kernel:<16} {check} …"),
        Line::Over(outcome) => {
            let verdict = if outcome.passed { "ok" } else { "FAILED" };
            let seconds = outcome.time.as_secs_f64();
            println!(
                "{verdict:<7} {kernel:<16} {:<10} {seconds:>5.1} s  {}",
                outcome.check, outcome.seen
            );
        }
        Line::End => {}
    }
}
