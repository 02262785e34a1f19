//! A run: from the brokers' records to the report.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::time::{Duration, Instant};

use sampler_event::Event;
use serde::Serialize;
use service::brokers::{self, AskError};
use service::{exit, topics};

use super::compare::{Compared, compare};
use super::export::Export;
use super::said::{self, Ran};
use super::settings::Settings;
use super::{Failure, WARM_UP_MS};
use crate::alert::utc;
use crate::consume::{Partition, Past, PastError, PastRecord};
use crate::input::{Reason, Sequences, Taken, Topic, sequence_of};
use crate::replay::{Episodes, Replay, Suspected};

/// A run that takes longer says how far it is.
const QUIET: Duration = Duration::from_secs(2);
/// Where nobody watches, less often.
const UNWATCHED: Duration = Duration::from_secs(15);
/// After the last moment what is late is waited for: so long beside the lateness, ms.
const LATE_MS: u64 = 5_000;
/// Reading begins on whole windows of every length, ms.
const ROUND_MS: u64 = 10_000;
const DAY_MS: f64 = 86_400_000.0;

/// The result.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub site: String,
    /// First moment, Unix ms.
    pub from_ms: u64,
    /// The moment after the last one, Unix ms.
    pub to_ms: u64,
    /// When reading began, Unix ms.
    pub begin_ms: u64,
    pub episodes: Vec<Compared>,
    /// Of the running rules, those that these do not raise.
    pub gone: Vec<Ran>,
    pub suspected: Vec<Suspected>,
    pub summary: Summary,
    /// What is to be known about it.
    pub notes: Vec<String>,
}

/// Numbers.
#[derive(Debug, Default, Serialize)]
pub(super) struct Summary {
    /// Streams with events times the days that they had some.
    pub stream_days: f64,
    pub streams: usize,
    pub nodes: usize,
    /// Alerts that went on in the time, and those of severity `page`.
    pub alerts: u64,
    pub pages: u64,
    pub suspects: u64,
    /// Suspicions that became an alert.
    pub suspects_confirmed: u64,
    /// None: no stream had events.
    pub pages_per_stream_day: Option<f64>,
    pub suspects_per_stream_day: Option<f64>,
    pub windows: u64,
    /// Windows that came when nobody waited for them any more.
    pub windows_late: u64,
    /// Windows that were no use.
    pub windows_unused: u64,
    pub pulses: u64,
    pub heartbeats: u64,
    pub duplicates: u64,
    /// Holes in the sequences.
    pub lost: u64,
    /// Records that are no events, by reason.
    pub undecodable: BTreeMap<&'static str, u64>,
    /// Episodes that found no room.
    pub crowded: u64,
}

pub(super) struct Work<'a> {
    settings: &'a Settings,
    past: Past,
    replay: Replay,
    episodes: Episodes,
    seen: HashMap<Partition, Sequences>,
    refused: [u64; Reason::COUNT],
    duplicates: u64,
    /// Time of the first and last event of each stream inside the asked time, Unix ms.
    streams: BTreeMap<String, (u64, u64)>,
    export: Option<Export>,
    partitions: BTreeMap<String, usize>,
    from_ms: u64,
    begin_ms: u64,
    /// Told by the first record.
    oldest_ms: Option<u64>,
    started: Instant,
    told: Instant,
    watched: bool,
    err: &'a mut dyn Write,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        settings: &'a Settings,
        watched: bool,
        err: &'a mut dyn Write,
    ) -> Result<Self, Failure> {
        let partitions = ask(settings)?;
        let counts: BTreeMap<Topic, i32> = Topic::ALL
            .into_iter()
            .filter_map(|topic| {
                let count = *partitions.get(topic.name()).unwrap_or(&0);
                i32::try_from(count)
                    .ok()
                    .filter(|count| *count > 0)
                    .map(|count| (topic, count))
            })
            .collect();
        for topic in [Topic::Window, Topic::Node] {
            if !counts.contains_key(&topic) {
                let (name, brokers) = (topic.name(), settings.kafka.brokers.join(", "));
                let message = format!(
                    "topic {name}: not at {brokers}, or not for this client to see: `flowvitals-aggregator check` says more about the brokers"
                );
                return Err(Failure::new(exit::UNSUPPORTED, message));
            }
        }
        let begin_ms = settings
            .from_ms
            .map_or(0, |from_ms| from_ms.saturating_sub(WARM_UP_MS));
        let begin_ms = begin_ms / ROUND_MS * ROUND_MS;
        let late_ms = u64::from(settings.config.merge.lateness_ms) + LATE_MS;
        let export = settings.export.as_deref().map(Export::start).transpose()?;
        let globs = settings.streams.clone();
        let rules = settings.config.rules();
        let wanted = move |topic: Topic, key: &[u8]| {
            let Ok(stream) = std::str::from_utf8(key) else {
                return true;
            };
            let asked = globs.is_empty() || globs.iter().any(|glob| glob.matches(stream));
            topic == Topic::Node || (asked && rules.iter().any(|rule| rule.watches(stream)))
        };
        let past = Past::open(
            &settings.kafka,
            &counts,
            (begin_ms, settings.to_ms.saturating_add(late_ms)),
            Box::new(wanted),
        )
        .map_err(broken)?;
        let now = Instant::now();
        Ok(Self {
            replay: Replay::new(&settings.config, counts[&Topic::Window], begin_ms),
            settings,
            past,
            episodes: Episodes::default(),
            seen: HashMap::new(),
            refused: [0; Reason::COUNT],
            duplicates: 0,
            streams: BTreeMap::new(),
            export,
            partitions,
            from_ms: settings.from_ms.unwrap_or(0),
            begin_ms,
            oldest_ms: None,
            started: now,
            told: now,
            watched,
            err,
        })
    }

    pub(super) fn run(mut self) -> Result<Report, Failure> {
        while let Some(record) = self.past.read().map_err(broken)? {
            self.begin(record.append_ms);
            self.take(record)?;
            self.listen();
            self.tell_progress();
        }
        let late_ms = u64::from(self.settings.config.merge.lateness_ms) + LATE_MS;
        if self.oldest_ms.is_some() {
            self.replay
                .pass(self.settings.to_ms.saturating_add(late_ms));
            self.listen();
        }
        if self.watched && self.started.elapsed() > QUIET {
            // What was said of the progress is in its line.
            let _ = writeln!(self.err);
        }
        self.report()
    }

    /// The first record says how far Kafka goes back.
    fn begin(&mut self, append_ms: u64) {
        if self.oldest_ms.is_some() {
            return;
        }
        self.oldest_ms = Some(append_ms);
        if self.begin_ms + ROUND_MS < append_ms {
            // Time without anybody would be played in vain.
            let partitions = *self.partitions.get(Topic::Window.name()).unwrap_or(&0);
            let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
            self.begin_ms = append_ms / ROUND_MS * ROUND_MS;
            self.replay = Replay::new(&self.settings.config, partitions, self.begin_ms);
        }
        self.from_ms = self.from_ms.max(self.begin_ms);
    }

    fn take(&mut self, record: PastRecord) -> Result<(), Failure> {
        let mut event = match record.event {
            Ok(event) => event,
            Err(refused) => {
                self.refused[refused.reason.index()] += 1;
                return Ok(());
            }
        };
        let sequences = self.seen.entry(record.partition).or_default();
        let key = (&event).into();
        if sequences.take(key, sequence_of(&event), record.append_ms) != Taken::New {
            self.duplicates += 1;
            return Ok(());
        }
        let at_ms = record.append_ms;
        if let Event::Node(heartbeat) = &mut event {
            heartbeat
                .streams
                .retain(|state| self.settings.wants(&state.stream));
        }
        if let Event::Window(window) = &event
            && (self.from_ms..self.settings.to_ms).contains(&at_ms)
        {
            match self.streams.get_mut(&window.stream) {
                Some((_, last_ms)) => *last_ms = at_ms,
                None => drop(self.streams.insert(window.stream.clone(), (at_ms, at_ms))),
            }
        }
        if let Some(export) = &mut self.export {
            export.take(&event, at_ms)?;
        }
        self.replay.take(&event, record.partition.1, at_ms);
        Ok(())
    }

    fn listen(&mut self) {
        for heard in self.replay.heard() {
            self.episodes.hear(&heard);
        }
    }

    fn tell_progress(&mut self) {
        let every = if self.watched { QUIET } else { UNWATCHED };
        if self.told.elapsed() < every {
            return;
        }
        self.told = Instant::now();
        let (passed, all) = (self.past.passed(), self.past.held().records.max(1));
        let percent = passed * 100 / all;
        let (at, alerts) = (utc(self.replay.now_ms()), self.episodes.found.len());
        let line = format!("{percent:3} % of {all} records, at {at}, {alerts} alerts");
        // Who cannot be told loses nothing of the result.
        let _ = match self.watched {
            true => write!(self.err, "\r{line}").and_then(|()| self.err.flush()),
            false => writeln!(self.err, "{line}"),
        };
    }

    fn report(mut self) -> Result<Report, Failure> {
        let (from_ms, to_ms) = (self.from_ms, self.settings.to_ms);
        let mut notes = self.notes();
        if let Some(export) = self.export.take() {
            let late_ms = u64::from(self.settings.config.merge.lateness_ms) + LATE_MS;
            let file = &self.settings.rules;
            notes.push(export.end(self.begin_ms, to_ms + late_ms, file, &self.episodes)?);
        }
        let wants = |stream: &str| self.settings.wants(stream);
        let inside = |begin_ms: u64, end_ms: Option<u64>| {
            begin_ms < to_ms && end_ms.is_none_or(|end_ms| end_ms >= from_ms)
        };
        let mut episodes = std::mem::take(&mut self.episodes);
        episodes
            .found
            .retain(|found| inside(found.starts_at_ms, found.ends_at_ms));
        episodes
            .suspected
            .retain(|found| (from_ms..to_ms).contains(&found.since_ms));
        let ran = self.ran(&mut notes).map(|mut ran| {
            ran.retain(|ran| inside(ran.starts_at_ms, ran.ends_at_ms) && wants(&ran.key.stream));
            ran
        });
        let summary = self.summary(&episodes);
        let (compared, gone) = compare(episodes.found, ran);
        Ok(Report {
            site: self.settings.config.site.clone(),
            from_ms,
            to_ms,
            begin_ms: self.begin_ms,
            episodes: compared,
            gone,
            suspected: episodes.suspected,
            summary,
            notes,
        })
    }

    fn ran(&self, notes: &mut Vec<String>) -> Option<Vec<Ran>> {
        let partitions = self.partitions.get(topics::ALERT).copied().unwrap_or(0);
        let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
        if partitions == 0 {
            notes.push(format!(
                "there is no topic {}: nothing to compare with",
                topics::ALERT
            ));
            return None;
        }
        match said::read(&self.settings.kafka, &self.settings.config.site, partitions) {
            Ok(ran) => Some(ran),
            Err(trouble) => {
                notes.push(format!("not compared with the running rules: {trouble}"));
                None
            }
        }
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        match (self.oldest_ms, self.settings.from_ms) {
            (None, _) => notes.push("Kafka holds no events of that time for these rules".to_owned()),
            (Some(oldest_ms), Some(from_ms)) if self.past.held().oldest && oldest_ms > from_ms => notes.push(format!(
                "Kafka holds nothing before {}: the rest of the time asked for is gone",
                utc(oldest_ms)
            )),
            (Some(oldest_ms), _) if oldest_ms + WARM_UP_MS > self.from_ms => notes.push(format!(
                "events begin {} s before the first moment: what is learned in {} s was not, suspicions may differ",
                self.from_ms.saturating_sub(oldest_ms) / 1_000,
                WARM_UP_MS / 1_000
            )),
            _ => {}
        }
        notes
    }

    fn summary(&self, episodes: &Episodes) -> Summary {
        let length = |(first_ms, last_ms): &(u64, u64)| (last_ms - first_ms) as f64 / DAY_MS;
        let stream_days: f64 = self.streams.values().map(length).sum();
        let begun = episodes
            .found
            .iter()
            .filter(|found| found.starts_at_ms >= self.from_ms);
        let (alerts, pages) = begun.fold((0, 0), |(alerts, pages), found| {
            (alerts + 1, pages + u64::from(found.severity == "page"))
        });
        let suspects = episodes.suspected.len() as u64;
        let confirmed = episodes
            .suspected
            .iter()
            .filter(|one| one.confirmed)
            .count();
        let a_day = |count: u64| (stream_days > 0.0).then(|| count as f64 / stream_days);
        let counts = self.replay.counts();
        let totals = || self.seen.values();
        let given_up: u64 = totals().map(|of| of.totals().given_up).sum();
        let missing: u64 = totals().map(Sequences::missing_now).sum();
        let refused = Reason::LABELS.into_iter().zip(self.refused);
        Summary {
            stream_days,
            streams: self.streams.len(),
            nodes: self.replay.nodes(),
            alerts,
            pages,
            suspects,
            suspects_confirmed: confirmed as u64,
            pages_per_stream_day: a_day(pages),
            suspects_per_stream_day: a_day(suspects),
            windows: counts.windows,
            windows_late: counts.late,
            windows_unused: counts.unused,
            pulses: counts.pulses,
            heartbeats: counts.heartbeats,
            duplicates: self.duplicates,
            lost: given_up + missing,
            undecodable: refused.filter(|(_, count)| *count > 0).collect(),
            crowded: episodes.crowded,
        }
    }
}

/// Partitions of all topics.
fn ask(settings: &Settings) -> Result<BTreeMap<String, usize>, Failure> {
    let config = settings
        .kafka
        .past()
        .map_err(|error| Failure::new(exit::CONFIG, error))?;
    match brokers::ask(&config) {
        Ok(cluster) => Ok(cluster.partitions),
        Err(AskError::Settings(error)) => Err(Failure::new(exit::CONFIG, error)),
        Err(AskError::NoAnswer(reason)) => {
            let brokers = settings.kafka.brokers.join(", ");
            let message = format!("no broker of {brokers} answers: {reason}");
            Err(Failure::new(exit::UNSUPPORTED, message))
        }
    }
}

fn broken(error: PastError) -> Failure {
    match error {
        PastError::Settings(error) => Failure::new(exit::CONFIG, error),
        error => {
            let message =
                format!("{error}; `flowvitals-aggregator check` says more about the brokers");
            Failure::new(exit::UNSUPPORTED, message)
        }
    }
}
