//! A machine that cannot do it: both commands say so with 69, in a sentence that a person can act on, and leave nothing behind. What it
//! lacks here is its type information, which is hidden from them.

use anyhow::{Context, Result, ensure};
use aya::programs::loaded_programs;
use nix::mount::{MsFlags, mount, umount};

use crate::sampler;

/// The exit status for it.
const UNSUPPORTED: i32 = 69;
/// The verifier's words for a program's states and its own work.
const DUMP: [&str; 3] = ["R1=", "processed ", "Verifier output"];
/// Where type information is.
const BTF: &str = "/sys/kernel/btf";

/// An empty folder over another, until it is dropped.
struct Hidden(&'static str);

impl Hidden {
    fn new(folder: &'static str) -> Result<Self> {
        let kind = Some("tmpfs");
        mount(kind, folder, kind, MsFlags::empty(), None::<&str>).context(folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Err(error) = umount(self.0) {
            eprintln!("{} stays hidden: {error}", self.0);
        }
    }
}

/// Asks both.
pub fn run() -> Result<String> {
    let _hidden = Hidden::new(BTF)?;
    let before = loaded_programs().count();
    let (code, said, _) = sampler::ends(&["doctor"])?;
    ensure!(code == UNSUPPORTED, "doctor: exit status {code}: {said}");
    let check = said.split_once("kernel side").map_or("", |(_, rest)| rest);
    let found = check.split_once("->").map_or("", |(found, _)| found);
    one_sentence(found)?;
    let (code, _, said) = sampler::ends(&["run", "--listen", "*:443"])?;
    ensure!(code == UNSUPPORTED, "run: exit status {code}: {said}");
    one_sentence(&said)?;
    ensure!(loaded_programs().count() == before, "a program is left");
    Ok(format!("69: {}", said.trim()))
}

/// None of the verifier's log is in what was said.
pub fn no_dump(said: &str) -> Result<()> {
    let has_dump = DUMP.iter().any(|word| said.contains(word));
    ensure!(!has_dump, "the verifier's log: {said:?}");
    Ok(())
}

fn one_sentence(said: &str) -> Result<()> {
    let said = said.trim();
    let is_one = !said.is_empty() && said.lines().count() == 1;
    ensure!(is_one, "no sentence: {said:?}");
    no_dump(said)
}
