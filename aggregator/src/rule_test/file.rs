//! The file of a test: rules, what nodes do, and what must come of it.
//!
//! Input: TOML. Output: a [`File`] whose tests can be played, or everything that is wrong with it, each with its place. Paths in it are relative
//! to its folder. Times are lengths since the begin of a test (`"90s"`, `"1m30s"`, whole seconds) or times of RFC 3339.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use glob::Pattern;
use jiff::SignedDuration;
use service::config::error::{ConfigErrors, Findings, Place, Wrong, file_error};
use service::config::names::{self, MAX_NAME_BYTES, MAX_NODE_BYTES};
use service::config::reader::{Parsed, Section, choice, number, one_of, text, type_error, whole};
use service::config::source::Source;
use service::config::{file, labels};
use sha2::{Digest, Sha256};
use toml::de::DeValue;

use super::expect::{Expected, ExpectedAlert};
use super::nodes::{self, Input, SAYS};
use super::recorded::{self, DELAY_MS, Recorded};
use super::series::{self, MAX_WINDOWS, Series};
use crate::alert::State;
use crate::config::{self, Config};

/// When a test begins that says nothing else: 2026-01-01T00:00:00Z, Unix ms.
const BEGIN_MS: u64 = 1_767_225_600_000;
/// Longest test, ms.
const MAX_MS: u64 = MAX_WINDOWS as u64 * 1_000;
/// Nodes of one input.
const MAX_NODES: u64 = 1_024;
const LENGTHS: &str =
    "a length since the begin such as \"90s\" or \"1m30s\", whole seconds, or a time of RFC 3339";

const STATES: [(&str, State); 5] = [
    ("ok", State::Ok),
    ("pending", State::Pending),
    ("firing", State::Firing),
    ("resolving", State::Resolving),
    ("suspect", State::Suspect),
];

/// A file.
#[derive(Debug)]
pub struct File {
    /// Rules, site and how to merge.
    pub config: Config,
    /// When its tests begin, Unix ms.
    begin_ms: Option<u64>,
    /// In their order.
    pub tests: Vec<Test>,
}

/// One test.
#[derive(Debug)]
pub struct Test {
    place: Place,
    /// What it is about.
    pub name: String,
    inputs: Vec<Input>,
    recorded: Vec<(Place, PathBuf)>,
    /// When it ends, ms since its begin.
    pub until_ms: u64,
    /// What is expected when, in the order of time.
    pub expected: Vec<Expected>,
    /// How many alerts it must raise in all.
    pub fired: Option<(Place, u64)>,
    /// How many suspicions.
    pub suspected: Option<(Place, u64)>,
}

impl File {
    /// Reads a file.
    ///
    /// # Errors
    /// Everything that is wrong with it, with places.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let text = file::read_text(path)
            .map_err(|why| file_error(path, "", why, "a readable TOML file"))?;
        Self::read(&Source::new(path, text))
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn read(source: &Source) -> Result<Self, ConfigErrors> {
        let mut findings = Findings::default();
        let mut read = None;
        // Nobody asks for its hash.
        file::with_table(
            source,
            &mut Sha256::new(),
            &mut findings,
            |section, findings| {
                read = Self::of(section, source.name(), findings);
            },
        );
        match (read, findings.errors.is_empty()) {
            (Some(mut file), true) => {
                file.config.warnings.extend(findings.warnings);
                Ok(file)
            }
            _ => {
                findings
                    .errors
                    .sort_by(|one, other| one.place.cmp(&other.place));
                Err(ConfigErrors(findings.errors))
            }
        }
    }

    fn of(mut section: Section<'_>, path: &Path, findings: &mut Findings) -> Option<Self> {
        let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
        let rules_place = section.place_if_set("rules");
        let named = section.optional(findings, "rules", |value| Ok(folder.join(text(value)?)));
        let site = section.optional(findings, "site", |value| {
            names::name(text(value)?, MAX_NAME_BYTES)
        });
        let begin_ms = section.optional(findings, "begin", moment);
        let alerts = config::alerts(&mut section, findings);
        let mut config = match named {
            Some(file) => match Config::load(&file) {
                Ok(config) => config,
                Err(errors) => {
                    findings.errors.extend(errors.0);
                    return None;
                }
            },
            None => Config::default(),
        };
        match rules_place {
            Some(place) if !alerts.is_empty() => {
                let wrong = Wrong::new("there are [[alert]] in this file as well", "one of both");
                findings.error(place, "rules", wrong);
            }
            Some(_) => {}
            None => config.alerts = alerts,
        }
        if config.alerts.is_empty() && findings.errors.is_empty() {
            let wrong = Wrong::new(
                "there are no rules to test",
                "rules = \"aggregator.toml\", or [[alert]]",
            );
            findings.error(section.place(), "rules", wrong);
        }
        config.site = site.unwrap_or(config.site);
        let tests = section.tables(findings, "test");
        if tests.is_empty() {
            findings.error(
                section.place(),
                "test",
                Wrong::new("there is none", "[[test]]"),
            );
        }
        let begin = begin_ms.unwrap_or(BEGIN_MS);
        let reader = Reader {
            folder: &folder,
            begin_ms: begin,
            config: &config,
        };
        let tests = tests
            .into_iter()
            .filter_map(|test| reader.test(test, findings))
            .collect();
        section.end(findings, &[]);
        Some(Self {
            config,
            begin_ms,
            tests,
        })
    }
}

impl Test {
    /// When it begins, Unix ms, and all its events.
    ///
    /// # Errors
    /// If a file of recorded events is none, or the inputs make no sense together.
    pub fn events(&self, file: &File) -> Result<(u64, Vec<Recorded>), ConfigErrors> {
        let wrong = |place: &Place, option: &str, message: String| {
            let mut findings = Findings::default();
            findings.error(place.clone(), option, Wrong::new(message, ""));
            ConfigErrors(findings.errors)
        };
        let mut all = Vec::new();
        for (place, path) in &self.recorded {
            let read = recorded::read(path).map_err(|error| {
                let (path, message) = (path.display(), error.message);
                wrong(
                    place,
                    "input.events",
                    format!("{path}:{}: {message}", error.line),
                )
            })?;
            all.extend(read);
        }
        let first_ms = all
            .iter()
            .map(|one: &Recorded| recorded::start_ms(&one.event))
            .min();
        // Recorded events have times of their own.
        let begin_ms = file.begin_ms.or(first_ms.map(|ms| ms / 1_000 * 1_000));
        let begin_ms = begin_ms.unwrap_or(BEGIN_MS);
        let until_ms = begin_ms + self.until_ms;
        let site = &file.config.site;
        let made = nodes::events(site, &self.inputs, begin_ms, until_ms)
            .map_err(|message| wrong(&self.place, "test.input", message))?;
        all.extend(made);
        all.sort_by_key(|recorded| recorded.append_ms);
        Ok((begin_ms, all))
    }
}

/// What the tests of a file have in common.
struct Reader<'a> {
    folder: &'a Path,
    begin_ms: u64,
    config: &'a Config,
}

impl Reader<'_> {
    fn test(&self, mut section: Section<'_>, findings: &mut Findings) -> Option<Test> {
        let place = section.place();
        let name = section.optional(findings, "name", |value| text(value).map(str::to_owned));
        if section.value("name").is_none() {
            findings.error(
                place.clone(),
                "test.name",
                Wrong::new("is missing", "what the test shows"),
            );
        }
        let until = section.optional(findings, "until", |value| self.since_begin(value));
        let mut count = |key| {
            let place = section.place_if_set(key);
            let count = section.optional(findings, key, |value| whole(value, 0..=1_000_000));
            place.zip(count)
        };
        let (fired, suspected) = (count("fired"), count("suspected"));
        let (mut inputs, mut recorded) = (Vec::new(), Vec::new());
        let tables = section.tables(findings, "input");
        if tables.is_empty() {
            let wrong = Wrong::new("there is none: nothing happens", "[[test.input]]");
            findings.error(place.clone(), "test.input", wrong);
        }
        for table in tables {
            match self.input(table, findings) {
                Some(Given::Series(input)) => inputs.push(*input),
                Some(Given::File(place, file)) => recorded.push((place, file)),
                None => {}
            }
        }
        let only = inputs.as_slice();
        let stream = match only {
            [one] if recorded.is_empty() => Some(one.stream.clone()),
            _ => None,
        };
        let mut expected: Vec<_> = section
            .tables(findings, "expect")
            .into_iter()
            .filter_map(|table| self.expected(table, stream.as_deref(), findings))
            .collect();
        expected.sort_by_key(|expected| expected.at_ms);
        if expected.is_empty() && fired.is_none() && suspected.is_none() {
            let wrong = Wrong::new(
                "nothing is expected",
                "[[test.expect]], fired = …, or suspected = …",
            );
            findings.error(place.clone(), "test.expect", wrong);
        }
        let last_ms = expected.last().map_or(0, |expected| expected.at_ms);
        let until_ms = until.unwrap_or(0).max(last_ms);
        if until_ms == 0 && findings.errors.is_empty() {
            findings.error(
                place.clone(),
                "test.until",
                Wrong::new("is missing: the test has no end", LENGTHS),
            );
        }
        section.end(findings, &[]);
        Some(Test {
            place,
            name: name?,
            inputs,
            recorded,
            until_ms,
            expected,
            fired,
            suspected,
        })
    }

    fn input(&self, mut section: Section<'_>, findings: &mut Findings) -> Option<Given> {
        let place = section.place();
        if let Some(at) = section.place_if_set("events") {
            let file = section.optional(findings, "events", |value| {
                Ok(self.folder.join(text(value)?))
            });
            section.end(findings, &[]);
            return Some(Given::File(at, file?));
        }
        let missing = |section: &mut Section<'_>, key, allowed: &str, findings: &mut Findings| {
            if section.value(key).is_none() {
                let name = section.name(key);
                findings.error(place.clone(), &name, Wrong::new("is missing", allowed));
            }
        };
        missing(
            &mut section,
            "stream",
            "stream = \"…\", or events = \"FILE\"",
            findings,
        );
        missing(
            &mut section,
            "nodes",
            "how many, or a list of names",
            findings,
        );
        let stream = section.optional(findings, "stream", |value| {
            names::name(text(value)?, MAX_NAME_BYTES)
        });
        let nodes = section.optional(findings, "nodes", node_names);
        let window_ms = section.or(findings, "window_ms", 1_000, |value| {
            one_of(value, &[1_000, 2_000, 5_000, 10_000])
        });
        let pulse_ms = section.or(findings, "pulse_ms", 0, |value| {
            one_of(value, &[0, 100, 200, 500])
        });
        let says = section.optional(findings, "says", |value| series::words(value, &SAYS));
        const MOST: f64 = 1e9;
        let mut series = |key, default, most| {
            section.or(findings, key, Series::constant(default), |value| {
                series::numbers(value, 0.0..=most)
            })
        };
        let delay_ms = series("delay_ms", DELAY_MS as f64, 3_600_000.0);
        let sampling_rate = series("sampling_rate", 0.1, 1.0);
        let flows = series("flows", 100.0, MOST);
        let data_segs_out = series("data_segs_out", 4_000.0, MOST);
        let retrans_segs = series("retrans_segs", 0.0, MOST);
        let stall_ms = series("stall_ms", 0.0, MOST);
        let rtt_count = series("rtt_count", 0.0, MOST);
        let rtt_slow = series("rtt_slow", 0.0, MOST);
        let flows_silent = series("flows_silent", 0.0, MOST);
        let busy_ms = section.optional(findings, "busy_ms", |value| {
            series::numbers(value, 0.0..=MOST)
        });
        let spread = section.or(findings, "spread", 0.25, |value| {
            let allowed =
                "a number from 0 to 2: the relative standard deviation between groups of flows";
            match number(value, allowed)? {
                spread if (0.0..=2.0).contains(&spread) => Ok(spread),
                spread => Err(Wrong::new(format!("{spread} is out of range"), allowed)),
            }
        });
        let labels = section
            .table(findings, "labels", "input.labels")
            .map(|table| labels::labels(table, "stream", findings))
            .unwrap_or_default();
        section.end(findings, &[]);
        Some(Given::Series(Box::new(Input {
            stream: stream?,
            nodes: nodes?,
            window_ms: window_ms as u32,
            pulse_ms: pulse_ms as u32,
            says: says.unwrap_or(Series::constant(nodes::Says::Data)),
            delay_ms,
            sampling_rate,
            flows,
            data_segs_out,
            retrans_segs,
            stall_ms,
            busy_ms,
            rtt_count,
            rtt_slow,
            flows_silent,
            spread,
            labels,
        })))
    }

    fn expected(
        &self,
        mut section: Section<'_>,
        stream: Option<&str>,
        findings: &mut Findings,
    ) -> Option<Expected> {
        let place = section.place();
        let at_ms = section.optional(findings, "at", |value| self.since_begin(value));
        for key in ["at", "alerts"] {
            if section.value(key).is_none() {
                let allowed = match key {
                    "at" => LENGTHS,
                    _ => "all alerts that are on: [] is none",
                };
                findings.error(
                    place.clone(),
                    &section.name(key),
                    Wrong::new("is missing", allowed),
                );
            }
        }
        let tables = section.tables(findings, "alerts").into_iter();
        let alerts: Vec<_> = tables
            .map(|table| self.alert(table, stream, findings))
            .collect();
        section.end(findings, &[]);
        Some(Expected {
            place,
            at_ms: at_ms?,
            alerts: alerts.into_iter().collect::<Option<_>>()?,
        })
    }

    fn alert(
        &self,
        mut section: Section<'_>,
        stream: Option<&str>,
        findings: &mut Findings,
    ) -> Option<ExpectedAlert> {
        let place = section.place();
        let names: Vec<_> = self
            .config
            .alerts
            .iter()
            .map(|alert| alert.rule.name.as_str())
            .collect();
        let only_rule = match names.as_slice() {
            [one] => Some((*one).to_owned()),
            _ => None,
        };
        let rule = section.optional(findings, "rule", |value| match text(value)? {
            name if names.contains(&name) => Ok(name.to_owned()),
            name => Err(Wrong::new(
                format!("there is no rule `{name}`"),
                names.join(", "),
            )),
        });
        let named = section.optional(findings, "stream", |value| {
            names::name(text(value)?, MAX_NAME_BYTES)
        });
        let state = section.optional(findings, "state", |value| choice(value, &STATES));
        let (rule, stream) = (rule.or(only_rule), named.or(stream.map(str::to_owned)));
        let missing = [
            ("rule", rule.is_none()),
            ("stream", stream.is_none()),
            ("state", state.is_none()),
        ];
        for (key, missing) in missing {
            if missing && section.value(key).is_none() {
                let name = section.name(key);
                findings.error(
                    place.clone(),
                    &name,
                    Wrong::new("is missing", "what the alert is about and its state"),
                );
            }
        }
        let alert = ExpectedAlert {
            severity: section
                .optional(findings, "severity", |value| text(value).map(str::to_owned)),
            since_ms: section.optional(findings, "since", |value| self.span(value)),
            value: section.optional(findings, "value", value_range),
            nodes: section.optional(findings, "nodes", |value| whole(value, 0..=MAX_NODES)),
            by_nodes: section.optional(findings, "fired_by", |value| {
                choice(value, &[("rule", false), ("nodes", true)])
            }),
            labels: patterns(&mut section, findings, "labels"),
            annotations: patterns(&mut section, findings, "annotations"),
            rule: rule.unwrap_or_default(),
            stream: stream.unwrap_or_default(),
            state: state.unwrap_or(State::Ok),
            place,
        };
        section.end(findings, &[]);
        Some(alert)
    }

    /// A time of the test, ms since its begin.
    fn since_begin(&self, value: &DeValue<'_>) -> Parsed<u64> {
        let wrong = |message: String| Wrong::new(message, LENGTHS);
        let ms = match value {
            DeValue::Integer(_) => whole(value, 0..=MAX_MS / 1_000)? * 1_000,
            _ => {
                let text = text(value)?;
                let length = || {
                    text.parse::<SignedDuration>()
                        .ok()?
                        .as_millis()
                        .try_into()
                        .ok()
                };
                let at = || config::time_ms(text)?.checked_sub(self.begin_ms);
                length()
                    .or_else(at)
                    .ok_or_else(|| wrong(format!("`{text}` is no time of the test")))?
            }
        };
        match ms <= MAX_MS {
            true => Ok(ms),
            false => Err(wrong("is more than a day after the begin".to_owned())),
        }
    }

    /// One time, or the first and the last.
    fn span(&self, value: &DeValue<'_>) -> Parsed<(u64, u64)> {
        let Some(items) = value.as_array() else {
            return self.since_begin(value).map(|at_ms| (at_ms, at_ms));
        };
        let times: Result<Vec<_>, _> = items
            .iter()
            .map(|item| self.since_begin(item.get_ref()))
            .collect();
        match times?.as_slice() {
            [first, last] if first <= last => Ok((*first, *last)),
            _ => Err(Wrong::new(
                "is no span",
                "a time, or a list of the first and the last",
            )),
        }
    }
}

/// What a test is fed with.
enum Given {
    Series(Box<Input>),
    File(Place, PathBuf),
}

fn moment(value: &DeValue<'_>) -> Parsed<u64> {
    const ALLOWED: &str = "a time of RFC 3339 on a whole 10 seconds, such as 2026-11-22T19:45:00Z";
    let text = text(value)?;
    let at_ms = config::time_ms(text).filter(|ms| ms.is_multiple_of(10_000));
    at_ms.ok_or_else(|| Wrong::new(format!("`{text}` is none"), ALLOWED))
}

fn node_names(value: &DeValue<'_>) -> Parsed<Vec<String>> {
    let Some(items) = value.as_array() else {
        let count = whole(value, 1..=MAX_NODES).map_err(|wrong| Wrong {
            allowed: format!("{}, or a list of names", wrong.allowed),
            ..wrong
        })?;
        return Ok((1..=count).map(|number| format!("edge-{number}")).collect());
    };
    let names = items
        .iter()
        .map(|item| names::name(text(item.get_ref())?, MAX_NODE_BYTES));
    let names: Vec<String> = names.collect::<Result<_, _>>()?;
    let unlike = names.iter().collect::<HashSet<_>>().len();
    match !names.is_empty() && names.len() as u64 <= MAX_NODES && unlike == names.len() {
        true => Ok(names),
        false => Err(Wrong::new(
            "is no list of nodes",
            format!("1 to {MAX_NODES} names, each once"),
        )),
    }
}

fn value_range(value: &DeValue<'_>) -> Parsed<(f64, f64)> {
    const ALLOWED: &str = "a list of the least and the most, such as [0.04, 0.06]";
    let items = value.as_array().ok_or_else(|| type_error(value, ALLOWED))?;
    let numbers: Result<Vec<_>, _> = items
        .iter()
        .map(|item| number(item.get_ref(), ALLOWED))
        .collect();
    match numbers?.as_slice() {
        [least, most] if least <= most => Ok((*least, *most)),
        _ => Err(Wrong::new("is no range", ALLOWED)),
    }
}

fn patterns(
    section: &mut Section<'_>,
    findings: &mut Findings,
    key: &'static str,
) -> BTreeMap<String, Pattern> {
    let Some(table) = section.table(findings, key, key) else {
        return BTreeMap::new();
    };
    let mut patterns = BTreeMap::new();
    for (_, name, place, value) in table.entries() {
        let pattern = text(value).and_then(|text| {
            let wrong = |error: glob::PatternError| {
                Wrong::new(
                    format!("`{text}` is not a glob: {}", error.msg),
                    "a text with * and ?",
                )
            };
            Pattern::new(text).map_err(wrong)
        });
        match pattern {
            Ok(pattern) => drop(patterns.insert(name.to_owned(), pattern)),
            Err(wrong) => findings.error(place, &format!("{key}.{name}"), wrong),
        }
    }
    patterns
}
