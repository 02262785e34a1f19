//! A kernel that cannot do it: both commands say so with 69, in a sentence that a person can act on, and leave nothing behind.

use anyhow::{Result, ensure};
use aya::programs::loaded_programs;

use crate::Report;
use crate::sampler;

/// The exit status for it.
const UNSUPPORTED: i32 = 69;
/// The verifier's words for a program's states and its own work.
const DUMP: [&str; 3] = ["R1=", "processed ", "Verifier output"];

/// Makes all checks.
pub fn run(report: &mut Report) -> Result<()> {
    report.check("doctor", doctor)?;
    report.check("run", || {
        let (code, _, said) = sampler::ends(&["run", "--listen", "*:443"])?;
        ensure!(code == UNSUPPORTED, "exit status {code}: {said}");
        one_sentence(&said)?;
        ensure!(loaded_programs().next().is_none(), "a program is left");
        Ok(format!("69: {}", said.trim()))
    })?;
    Ok(())
}

fn doctor() -> Result<String> {
    let (code, said, _) = sampler::ends(&["doctor"])?;
    ensure!(code == UNSUPPORTED, "exit status {code}: {said}");
    let check = said.split_once("kernel side").map_or("", |(_, rest)| rest);
    let found = check.split_once("->").map_or("", |(found, _)| found);
    one_sentence(found)?;
    Ok(format!("69: {}", found.trim()))
}

fn one_sentence(said: &str) -> Result<()> {
    let said = said.trim();
    let is_one = !said.is_empty() && said.lines().count() == 1;
    let has_dump = DUMP.iter().any(|word| said.contains(word));
    ensure!(is_one && !has_dump, "no sentence: {said:?}");
    Ok(())
}
