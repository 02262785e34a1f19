//! The input of a run as a file for `rules test`.
//!
//! Input: events in their order. Output: two files: the events as JSON lines, and beside them the test, with the rules by their path and how many
//! alerts and suspicions came. Limits: [`MAX_EVENTS`]; who wants more gets neither file.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use sampler_event::Event;
use service::exit;

use super::Failure;
use crate::alert::utc;
use crate::replay::Episodes;
use crate::rule_test::recorded::{self, MAX_EVENTS};

/// The files.
pub(super) struct Export {
    test: PathBuf,
    events: PathBuf,
    lines: BufWriter<File>,
    count: usize,
}

impl Export {
    pub(super) fn start(test: &Path) -> Result<Self, Failure> {
        let events = test.with_extension("jsonl");
        if events == test {
            let message = format!(
                "--export {}: this name is for the events beside it; name the test .toml",
                test.display()
            );
            return Err(Failure::new(exit::USAGE, message));
        }
        let file = File::create(&events).map_err(|error| failed(&events, &error))?;
        Ok(Self {
            test: test.to_path_buf(),
            events,
            lines: BufWriter::new(file),
            count: 0,
        })
    }

    pub(super) fn take(&mut self, event: &Event, append_ms: u64) -> Result<(), Failure> {
        self.count += 1;
        if self.count > MAX_EVENTS {
            let message = format!(
                "--export: there are more than {MAX_EVENTS} events, which is the most of a test: narrow it by --from, --to or --stream"
            );
            // It is of no use to anybody.
            let _ = fs::remove_file(&self.events);
            return Err(Failure::new(exit::USAGE, message));
        }
        recorded::write(event, append_ms, &mut self.lines)
            .map_err(|error| failed(&self.events, &error))
    }

    /// Writes the test.
    pub(super) fn end(
        mut self,
        begin_ms: u64,
        to_ms: u64,
        rules: &Path,
        said: &Episodes,
    ) -> Result<String, Failure> {
        self.lines
            .flush()
            .map_err(|error| failed(&self.events, &error))?;
        let rules = fs::canonicalize(rules).unwrap_or_else(|_| rules.to_path_buf());
        let text = self.text(begin_ms, to_ms, &rules, said);
        fs::write(&self.test, text).map_err(|error| failed(&self.test, &error))?;
        let (test, events) = (self.test.display(), self.events.display());
        Ok(format!("wrote {test} and {events}: {} events", self.count))
    }

    fn text(&self, begin_ms: u64, to_ms: u64, rules: &Path, said: &Episodes) -> String {
        let quoted = |path: &Path| toml::Value::String(path.display().to_string()).to_string();
        let events = self.events.file_name().map_or(Path::new(""), Path::new);
        let (rules, events) = (quoted(rules), quoted(events));
        let (begin, end) = (utc(begin_ms), utc(to_ms));
        let mut text = format!(
            "# What Kafka held from {begin} to {end}, warm-up included.\nrules = {rules}\nbegin = \"{begin}\"\n\n[[test]]\n\
             name = \"as it was played\"\nuntil = \"{end}\"\nfired = {}\nsuspected = {}\n\n[[test.input]]\nevents = {events}\n",
            said.found.len(),
            said.suspected.len()
        );
        for found in &said.found {
            let (key, on) = (&found.key, utc(found.starts_at_ms));
            let off = found
                .ends_at_ms
                .map_or("it is on".to_owned(), |ms| format!("to {}", utc(ms)));
            text += &format!("# {} on {} from {on} {off}\n", key.rule, key.stream);
        }
        text
    }
}

fn failed(file: &Path, error: &io::Error) -> Failure {
    let message = format!("--export: {}: {error}", file.display());
    Failure::new(exit::UNSUPPORTED, message)
}
