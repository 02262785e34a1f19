//! What a process holds of the kernel's BPF objects, and what of that is still there later.

use std::collections::BTreeSet;
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
    /// What the descriptors of a process stand for, from the text of its `/proc/<pid>/fdinfo/*`.
    pub fn by(descriptors: &str) -> Result<Self> {
        let mut attached = Self::default();
        for line in descriptors.lines() {
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
        let whole = !attached.programs.is_empty() && !attached.maps.is_empty();
        ensure!(
            whole && !attached.links.is_empty(),
            "it holds only {attached:?}"
        );
        Ok(attached)
    }

    /// How much it is.
    pub fn counts(&self) -> String {
        let (programs, maps) = (self.programs.len(), self.maps.len());
        format!(
            "{programs} programs, {maps} maps, {} links",
            self.links.len()
        )
    }

    /// Waits until none of it is in the kernel any more.
    pub fn gone(&self) -> Result<()> {
        let mut left = Self::default();
        let gone = clock::wait_until(FREED, || {
            left = self.left();
            left.programs.is_empty() && left.maps.is_empty() && left.links.is_empty()
        });
        ensure!(gone, "still in the kernel: {left:?}");
        Ok(())
    }

    /// What of it is in the kernel. A number that cannot be looked at belongs to something that is going.
    fn left(&self) -> Self {
        let programs = loaded_programs().filter_map(|p| Some(p.ok()?.id()));
        let maps = loaded_maps().filter_map(|m| Some(m.ok()?.id()));
        let links = loaded_links().filter_map(|l| Some(l.ok()?.id()));
        Self {
            programs: programs.filter(|id| self.programs.contains(id)).collect(),
            maps: maps.filter(|id| self.maps.contains(id)).collect(),
            links: links.filter(|id| self.links.contains(id)).collect(),
        }
    }
}
