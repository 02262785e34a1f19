//! What changed on the nodes lately: the first thing that somebody asks who is woken up.
//!
//! Input: heartbeats, each held against the one before of its node. Output: sentences about the last half hour, equal ones of several nodes as one.
//! Limits: [`MAX_CHANGES`] changes of a site, the oldest are forgotten; [`MAX_NODES`] nodes; [`MAX_SAID`] sentences.

use std::collections::{BTreeMap, VecDeque};

use sampler_event::{LifeCycle, NodeHeartbeat};

use super::rfc3339::utc;

/// How far back an alert looks, ms.
pub const LOOK_BACK_MS: u64 = 30 * 60_000;
/// Changes kept.
pub const MAX_CHANGES: usize = 1_024;
/// Nodes whose last word is kept.
pub const MAX_NODES: usize = 1_024;
/// Sentences of one alert.
pub const MAX_SAID: usize = 5;

/// What a node's heartbeat said of itself.
#[derive(Clone, Debug, Default)]
struct Word {
    at_ms: u64,
    instance: u64,
    version: String,
    config_sha256: Vec<u8>,
    sampling_key_id: u32,
    /// Sampling rate and its number, by stream.
    rates: BTreeMap<String, (f64, u32)>,
}

#[derive(Clone, Debug)]
struct Change {
    at_ms: u64,
    node: String,
    /// None: it is about the whole node.
    stream: Option<String>,
    what: String,
}

/// The log.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    words: BTreeMap<String, Word>,
    log: VecDeque<Change>,
}

impl Changes {
    /// Takes in a heartbeat; older ones than known change nothing.
    pub fn hear(&mut self, heartbeat: &NodeHeartbeat) {
        let at_ms = heartbeat.window_start_ms;
        let known = self.words.get(&heartbeat.node);
        if known.is_some_and(|word| word.at_ms >= at_ms) {
            return;
        }
        if known.is_none() && self.words.len() >= MAX_NODES {
            return;
        }
        let word = word_of(heartbeat);
        let known = self.words.insert(heartbeat.node.clone(), word.clone());
        let mut found = Vec::new();
        if let Some(known) = known {
            node_changes(&known, &word, &mut found);
            stream_changes(&known, &word, &mut found);
        }
        if heartbeat.life_cycle() == LifeCycle::Stopping {
            found.push((None, "stopped".to_owned()));
        }
        for (stream, what) in found {
            if self.log.len() >= MAX_CHANGES {
                self.log.pop_front();
            }
            self.log.push_back(Change {
                at_ms,
                node: heartbeat.node.clone(),
                stream,
                what,
            });
        }
    }

    /// What changed for a stream since a moment, newest first, of those that `serves` it.
    pub fn since(
        &self,
        moment_ms: u64,
        stream: &str,
        serves: impl Fn(&str) -> bool,
    ) -> Vec<String> {
        let mut said: Vec<(&str, Vec<&Change>)> = Vec::new();
        for change in self.log.iter().rev() {
            let of_stream = match &change.stream {
                Some(of) => of == stream,
                None => serves(&change.node),
            };
            if change.at_ms < moment_ms || !of_stream {
                continue;
            }
            let known = said.iter().position(|(what, _)| *what == change.what);
            match known {
                Some(at) => said[at].1.push(change),
                None if said.len() < MAX_SAID => said.push((&change.what, vec![change])),
                None => {}
            }
        }
        said.into_iter()
            .map(|(what, of)| sentence(what, &of))
            .collect()
    }

    /// Forgets nodes that were not heard of since a moment.
    pub fn forget_before(&mut self, moment_ms: u64) {
        self.words.retain(|_, word| word.at_ms >= moment_ms);
    }
}

fn word_of(heartbeat: &NodeHeartbeat) -> Word {
    let rates = heartbeat.streams.iter().map(|state| {
        let rate = (state.sampling_rate, state.rate_epoch);
        (state.stream.clone(), rate)
    });
    Word {
        at_ms: heartbeat.window_start_ms,
        instance: heartbeat.instance,
        version: heartbeat.version.clone(),
        config_sha256: heartbeat.config_sha256.clone(),
        sampling_key_id: heartbeat.sampling_key_id,
        rates: rates.collect(),
    }
}

type Found = Vec<(Option<String>, String)>;

fn node_changes(known: &Word, word: &Word, found: &mut Found) {
    let mut say = |what: String| found.push((None, what));
    if known.version != word.version {
        say(format!("version {} to {}", known.version, word.version));
    }
    if known.config_sha256 != word.config_sha256 {
        let (from, to) = (short(&known.config_sha256), short(&word.config_sha256));
        say(format!("configuration {from} to {to}"));
    }
    if known.sampling_key_id != word.sampling_key_id {
        say("sampling key".to_owned());
    }
    if known.instance != word.instance {
        say("restarted".to_owned());
    }
}

fn stream_changes(known: &Word, word: &Word, found: &mut Found) {
    for (stream, (rate, epoch)) in &word.rates {
        let (before, epoch_before) = match known.rates.get(stream) {
            Some(before) => *before,
            None => {
                found.push((Some(stream.clone()), "began to serve it".to_owned()));
                continue;
            }
        };
        let same_life = known.instance == word.instance;
        if before.to_bits() != rate.to_bits() {
            let what = format!("sampling rate {before} to {rate}");
            found.push((Some(stream.clone()), what));
        } else if same_life && epoch_before != *epoch {
            found.push((Some(stream.clone()), "sampling epoch".to_owned()));
        }
    }
    for stream in known
        .rates
        .keys()
        .filter(|stream| !word.rates.contains_key(*stream))
    {
        found.push((Some(stream.clone()), "serves it no more".to_owned()));
    }
}

fn short(hash: &[u8]) -> String {
    let digits: String = hash
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    match digits.is_empty() {
        true => "none".to_owned(),
        false => digits,
    }
}

/// "version 1 to 2 on edge-1 at …", or "… on 12 nodes since …".
fn sentence(what: &str, of: &[&Change]) -> String {
    let first_ms = of.iter().map(|change| change.at_ms).min().unwrap_or(0);
    match of {
        [one] => format!("{what} on {} at {}", one.node, utc(one.at_ms)),
        _ => format!("{what} on {} nodes since {}", of.len(), utc(first_ms)),
    }
}

#[cfg(test)]
mod tests {
    use sampler_event::StreamState;

    use super::*;

    fn heartbeat(node: &str, start_ms: u64) -> NodeHeartbeat {
        NodeHeartbeat {
            node: node.to_owned(),
            instance: 1,
            window_start_ms: start_ms,
            window_ms: 1_000,
            version: "1".to_owned(),
            config_sha256: vec![0xab; 32],
            life_cycle: LifeCycle::Run.into(),
            streams: vec![StreamState {
                stream: "sport".to_owned(),
                sampling_rate: 0.1,
                ..StreamState::default()
            }],
            ..NodeHeartbeat::default()
        }
    }

    #[test]
    fn equal_changes_of_several_nodes_are_one_sentence() {
        let mut changes = Changes::default();
        for node in ["a", "b", "c"] {
            changes.hear(&heartbeat(node, 1_000));
        }
        assert!(
            changes.since(0, "sport", |_| true).is_empty(),
            "a first word"
        );
        for node in ["a", "b"] {
            let mut next = heartbeat(node, 2_000);
            next.version = "2".to_owned();
            changes.hear(&next);
            changes.hear(&heartbeat(node, 1_500));
        }
        let mut next = heartbeat("c", 3_000);
        next.streams[0].sampling_rate = 0.05;
        next.config_sha256 = vec![0xcd; 32];
        changes.hear(&next);
        let said = changes.since(0, "sport", |_| true);
        assert_eq!(
            said,
            [
                "sampling rate 0.1 to 0.05 on c at 1970-01-01T00:00:03.000Z",
                "configuration abababab to cdcdcdcd on c at 1970-01-01T00:00:03.000Z",
                "version 1 to 2 on 2 nodes since 1970-01-01T00:00:02.000Z",
            ]
        );
        let of_c = changes.since(3_000, "news", |node| node == "c");
        assert_eq!(of_c.len(), 1, "rates are of a stream: {of_c:?}");
    }

    #[test]
    fn the_log_is_bounded() {
        let mut changes = Changes::default();
        for at in 1..3 * MAX_CHANGES as u64 {
            let mut next = heartbeat("a", at);
            next.version = at.to_string();
            changes.hear(&next);
        }
        assert_eq!(changes.log.len(), MAX_CHANGES);
        assert_eq!(changes.since(0, "sport", |_| true).len(), MAX_SAID);
        changes.forget_before(u64::MAX);
        assert!(changes.words.is_empty());
    }
}
