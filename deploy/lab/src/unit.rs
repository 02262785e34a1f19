//! The systemd units that we ship, as tests look at them.
//!
//! Limits: systemd-analyze must be installed, systemd itself need not run.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A shipped unit.
#[derive(Clone, Debug)]
pub struct Unit {
    name: String,
    path: PathBuf,
    text: String,
}

impl Unit {
    /// The unit of that name below `deploy/systemd`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn shipped(name: &str) -> io::Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../systemd")
            .join(name);
        Ok(Self {
            name: name.to_owned(),
            text: std::fs::read_to_string(&path)?,
            path,
        })
    }

    /// Its text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Every value of a setting, in the order of the file.
    #[must_use]
    pub fn settings(&self, name: &str) -> Vec<&str> {
        let lines = self.text.lines();
        lines
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .collect()
    }

    /// The unit with a text replaced, for tests of the test.
    #[must_use]
    pub fn with(&self, from: &str, to: &str) -> Self {
        Self {
            text: self.text.replace(from, to),
            ..self.clone()
        }
    }

    /// Judges its exposure, offline; fails above `threshold_tenths`. None where systemd-analyze is not installed.
    #[must_use]
    pub fn security(&self, threshold_tenths: u32) -> Option<Output> {
        let threshold = format!("--threshold={threshold_tenths}");
        analyze(
            Command::new("systemd-analyze")
                .args(["security", "--offline=yes", &threshold])
                .arg(&self.path),
        )
    }

    /// Has systemd read it, with `program` for the one that is not installed where this runs; the copy goes to `folder`.
    /// None where systemd-analyze is not installed.
    ///
    /// # Errors
    /// When the copy cannot be written.
    pub fn verify(&self, program: &str, folder: &Path) -> io::Result<Option<Output>> {
        let copy = folder.join(&self.name);
        let installed = format!("/usr/bin/{}", self.name.trim_end_matches(".service"));
        std::fs::write(&copy, self.text.replace(&installed, program))?;
        Ok(analyze(
            Command::new("systemd-analyze")
                .args(["verify", "--man=no", "--recursive-errors=no"])
                .arg(&copy),
        ))
    }
}

fn analyze(command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(error) => {
            println!("skipped: systemd-analyze: {error}");
            None
        }
    }
}
