//! `rules test`: what rules say of events that a file describes.
//!
//! In: files with rules, what nodes do (or events that were recorded), and which alerts that must raise. Out: a line per test, and for one that fails
//! what was expected and what came; an exit code. The engine is the daemon's, the time is an argument: an hour is played
//! in a moment, and the same file always ends the same way. Flow: `file → nodes, recorded → replay → expect`.
//! Limits: those of [`recorded::MAX_EVENTS`] and [`series::MAX_WINDOWS`].

mod expect;
mod file;
mod nodes;
pub mod recorded;
pub mod series;
mod words;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use service::config::ConfigErrors;
use service::exit;

use self::expect::{Difference, Moment, Standing};
use self::file::{File, Test};
use self::recorded::Recorded;
use crate::alert::Rule;
use crate::cli::RulesTestArgs;
use crate::replay::{Episodes, Heard, Replay};

/// Exit code of tests that failed.
pub const FAILED: u8 = 1;
/// Lines of the story of a test that failed.
const MOST_TOLD: usize = 40;

/// Runs `rules test`; the result is the exit code.
///
/// # Errors
/// If `out` or `err` cannot be written.
pub fn run(args: &RulesTestArgs, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<u8> {
    let (mut passed, mut failed, mut wrong) = (0, 0, false);
    for name in &args.files {
        let file = match File::load(name) {
            Ok(file) => file,
            Err(errors) => {
                wrong = true;
                errors.report(name, err)?;
                continue;
            }
        };
        for warning in &file.config.warnings {
            writeln!(err, "warning: {warning}")?;
        }
        writeln!(out, "{}", name.display())?;
        for test in &file.tests {
            match play(&file, test) {
                Err(errors) => {
                    wrong = true;
                    errors.report(name, err)?;
                }
                Ok(played) => {
                    let good = played.differences.is_empty();
                    *(if good { &mut passed } else { &mut failed }) += 1;
                    played.write(test, args.verbose, out)?;
                }
            }
        }
    }
    writeln!(out, "{passed} passed, {failed} failed")?;
    Ok(match (wrong, failed) {
        (true, _) => exit::CONFIG,
        (false, 0) => exit::OK,
        (false, _) => FAILED,
    })
}

/// Whether all tests of a file pass; for tests of files that are shipped.
///
/// # Errors
/// What `rules test` would print.
pub fn check(file: &Path) -> Result<(), String> {
    let args = RulesTestArgs {
        files: vec![file.to_path_buf()],
        verbose: false,
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = run(&args, &mut out, &mut err).map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match code {
        exit::OK => Ok(()),
        _ => Err(text(&out) + &text(&err)),
    }
}

/// What became of a test.
struct Played {
    differences: Vec<Difference>,
    /// What was said, ms since the begin and in words.
    story: Vec<(u64, String)>,
    events: usize,
}

fn play(file: &File, test: &Test) -> Result<Played, ConfigErrors> {
    let (begin_ms, events) = test.events(file)?;
    let rules: BTreeMap<String, Arc<Rule>> = file
        .config
        .rules()
        .into_iter()
        .map(|rule| (rule.name.clone(), rule))
        .collect();
    let mut player = Player {
        replay: Replay::new(&file.config, 1, begin_ms),
        standing: Standing::default(),
        episodes: Episodes::default(),
        story: Vec::new(),
        begin_ms,
    };
    let (count, mut differences) = (events.len(), Vec::new());
    let mut events = events.into_iter().peekable();
    for expected in &test.expected {
        let at_ms = begin_ms + expected.at_ms;
        while let Some(recorded) = events.next_if(|recorded| recorded.append_ms <= at_ms) {
            player.take(&recorded);
        }
        player.pass(at_ms);
        let moment = Moment {
            standing: &player.standing,
            replay: &player.replay,
            rules: &rules,
            begin_ms,
        };
        let at = words::seconds(expected.at_ms);
        let found = moment.differences(expected).into_iter();
        differences.extend(found.map(|found| Difference {
            message: format!("at {at}: {}", found.message),
            ..found
        }));
    }
    let until_ms = begin_ms + test.until_ms;
    while let Some(recorded) = events.next_if(|recorded| recorded.append_ms <= until_ms) {
        player.take(&recorded);
    }
    player.pass(until_ms);
    let counts = [
        (&test.fired, player.episodes.found.len(), "fired"),
        (
            &test.suspected,
            player.episodes.suspected.len(),
            "suspected",
        ),
    ];
    for (wanted, got, what) in counts {
        if let Some((place, wanted)) = wanted
            && *wanted != got as u64
        {
            differences.push(Difference {
                place: place.clone(),
                message: format!("in all: expected {what} = {wanted}, got {got}"),
            });
        }
    }
    Ok(Played {
        differences,
        story: player.story,
        events: count,
    })
}

struct Player {
    replay: Replay,
    standing: Standing,
    episodes: Episodes,
    story: Vec<(u64, String)>,
    begin_ms: u64,
}

impl Player {
    fn take(&mut self, recorded: &Recorded) {
        self.replay.take(&recorded.event, 0, recorded.append_ms);
        self.listen();
    }

    fn pass(&mut self, to_ms: u64) {
        self.replay.pass(to_ms);
        self.listen();
    }

    fn listen(&mut self) {
        for heard in self.replay.heard() {
            self.standing.hear(&heard);
            self.episodes.hear(&heard);
            self.tell(&heard);
        }
    }

    fn tell(&mut self, heard: &Heard) {
        let record = &heard.record;
        let Some(news) = expect::news(record) else {
            return;
        };
        let (rule, stream) = (&record.key.rule, &record.key.stream);
        let facts = match record.notice.kind.is_suspect() {
            true => "peak",
            false => "estimate",
        };
        let facts = record.annotations.get(facts).map_or("", |text| text);
        let blank = if facts.is_empty() { "" } else { ": " };
        self.story.push((
            record.notice.said_ms.saturating_sub(self.begin_ms),
            format!("{rule} on {stream} {news}{blank}{facts}"),
        ));
    }
}

impl Played {
    fn write(&self, test: &Test, verbose: bool, out: &mut dyn Write) -> io::Result<()> {
        let good = self.differences.is_empty();
        let word = if good { "ok    " } else { "FAILED" };
        let (count, events) = (test.expected.len(), self.events);
        let until = words::seconds(test.until_ms);
        writeln!(
            out,
            "  {word}  {}  ({until}, {events} events, {count} expected moments)",
            test.name
        )?;
        for Difference { place, message } in &self.differences {
            writeln!(out, "    {place}: {message}")?;
        }
        if good && !verbose {
            return Ok(());
        }
        if self.story.is_empty() {
            return writeln!(out, "    nothing was said");
        }
        writeln!(out, "    what was said:")?;
        for (at_ms, what) in self.story.iter().take(MOST_TOLD) {
            writeln!(out, "    {:>10}  {what}", words::seconds(*at_ms))?;
        }
        match self.story.len().saturating_sub(MOST_TOLD) {
            0 => Ok(()),
            more => writeln!(out, "    … and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests;
