//! The machine's files, before and after.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use super::machine::Machine;

/// Files that the system itself writes when packages come and go.
const SYSTEM: [&str; 10] = [
    "/etc/group-",
    "/etc/gshadow-",
    "/etc/passwd-",
    "/etc/shadow-",
    "/root/.rpmdb",
    "/tmp/",
    // Copies of dpkg's books, made at midnight.
    "/var/backups/",
    "/var/cache/",
    "/var/lib/",
    "/var/log/",
];
/// What is named so is ours there too.
const OURS: &str = "flowvitals";

/// Every path on the machine's own file system.
pub struct Files {
    paths: BTreeSet<String>,
}

impl Files {
    /// What is there.
    pub fn now(machine: &Machine) -> Result<Self> {
        let found = machine.shell("find / -xdev 2>/dev/null; true")?;
        Ok(Self {
            paths: found.lines().map(str::to_owned).collect(),
        })
    }

    /// Fails where more is there than was, but for what the system keeps for itself.
    pub fn nothing_more(&self, machine: &Machine) -> Result<()> {
        let now = Self::now(machine)?;
        let more = now.paths.difference(&self.paths);
        let left: Vec<_> = more.filter(|path| !is_the_systems(path)).collect();
        ensure!(left.is_empty(), "left behind: {left:?}");
        Ok(())
    }
}

fn is_the_systems(path: &str) -> bool {
    let system = SYSTEM.iter().any(|folder| path.starts_with(folder));
    system && !path.contains(OURS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_is_ours_everywhere() {
        for (path, system) in [
            ("/var/lib/dpkg/status-old", true),
            ("/var/log/dpkg.log", true),
            ("/var/lib/flowvitals/spool", false),
            ("/var/lib/private/flowvitals-aggregator", false),
            ("/etc/flowvitals", false),
            ("/usr/bin/anything", false),
        ] {
            assert_eq!(is_the_systems(path), system, "{path}");
        }
    }
}
