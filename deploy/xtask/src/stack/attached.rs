//! What a process holds of the kernel's BPF objects, and what of that is still there later.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use anyhow::{Result, ensure};
use aya::maps::loaded_maps;
use aya::programs::{loaded_links, loaded_programs};
use lab::clock;

/// How long the kernel may take to free what nobody holds any more.
const FREED: Duration = Duration::from_secs(10);

/// Kernel-wide numbers of programs, maps and links.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Attached {
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
    links: BTreeSet<u32>,
}

impl Attached {
    /// What the descriptors of a process stand for, from the text of its `/proc/<pid>/fdinfo/*`, all of which is in the `kernel` too.
    pub fn by(descriptors: &str, kernel: &Self) -> Result<Self> {
        let attached = Self::parse(descriptors)?;
        let whole = !attached.programs.is_empty() && !attached.maps.is_empty();
        ensure!(
            whole && !attached.links.is_empty(),
            "it holds only {attached:?}"
        );
        let seen = attached.common(kernel);
        ensure!(seen == attached, "of {attached:?} the kernel has {seen:?}");
        Ok(attached)
    }

    /// From lines with a name, a colon, a tab and a number; others are passed over.
    pub fn parse(text: &str) -> Result<Self> {
        let mut attached = Self::default();
        for line in text.lines() {
            let Some((name, number)) = line.split_once(":\t") else {
                continue;
            };
            let numbers = match name {
                "prog_id" => &mut attached.programs,
                "map_id" => &mut attached.maps,
                "link_id" => &mut attached.links,
                _ => continue,
            };
            numbers.insert(number.trim().parse()?);
        }
        Ok(attached)
    }

    /// All that is in the kernel that this runs on. A number that cannot be looked at belongs to something that is going.
    pub fn now() -> Self {
        Self {
            programs: loaded_programs()
                .filter_map(|p| Some(p.ok()?.id()))
                .collect(),
            maps: loaded_maps().filter_map(|m| Some(m.ok()?.id())).collect(),
            links: loaded_links().filter_map(|l| Some(l.ok()?.id())).collect(),
        }
    }

    /// How much it is.
    pub fn counts(&self) -> String {
        let (programs, maps) = (self.programs.len(), self.maps.len());
        format!(
            "{programs} programs, {maps} maps, {} links",
            self.links.len()
        )
    }

    /// Waits until none of it is in the kernel that `look` looks into.
    pub fn gone(&self, look: impl Fn() -> Result<Self>) -> Result<()> {
        let mut left = Ok(Self::default());
        let gone = clock::wait_until(FREED, || {
            left = look().map(|kernel| self.common(&kernel));
            left.as_ref().is_ok_and(|left| *left == Self::default())
        });
        ensure!(gone, "still in the kernel: {:?}", left?);
        Ok(())
    }

    fn common(&self, other: &Self) -> Self {
        Self {
            programs: &self.programs & &other.programs,
            maps: &self.maps & &other.maps,
            links: &self.links & &other.links,
        }
    }
}

/// As `/proc/<pid>/fdinfo/*` has it, and [`Attached::parse`] takes it.
impl fmt::Display for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, numbers) in [
            ("prog_id", &self.programs),
            ("map_id", &self.maps),
            ("link_id", &self.links),
        ] {
            for number in numbers {
                writeln!(f, "{name}:\t{number}")?;
            }
        }
        Ok(())
    }
}
