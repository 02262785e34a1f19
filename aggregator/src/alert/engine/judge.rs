//! What is judged, and when: moments that are complete, time that passes, rules that change.
//!
//! Input: the merged data and the time. Output: what the rules say of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Engine;
use super::ownership::Held;
use super::saying::Saying;
use super::stream::Stream;
use crate::alert::changes::LOOK_BACK_MS;
use crate::alert::rule::Rule;
use crate::merge::Live;

/// What was learned is saved so often, ms.
const SAVE_EVERY_MS: u64 = 45_000;

impl Engine {
    /// Looks at every moment that is complete, or waited for long enough. To be called when windows or heartbeats were taken in.
    pub fn evaluate(&mut self, live: &Live, now_ms: u64) {
        let ready = |held: &Held| held.reading.is_empty() && !held.superseded;
        let ours: BTreeSet<i32> = self
            .held
            .iter()
            .filter(|(_, held)| ready(held))
            .map(|(partition, _)| *partition)
            .collect();
        let mut evaluations = 0;
        let (streams, mut saying) = self.parts(live, now_ms);
        for stream in streams.values_mut().filter(|s| ours.contains(&s.partition)) {
            evaluations += look_at_all(stream, live, &mut saying);
        }
        self.counts.evaluations += evaluations;
    }

    /// The time passes; to be called about once a second. `consuming` says whether this aggregator is connected and has read what there is: one
    /// that is cut off does not know who is missing.
    pub fn tick(&mut self, live: &Live, now_ms: u64, consuming: bool) {
        let forget_ms = now_ms.saturating_sub(self.options.node_forget_after_ms);
        self.no_data
            .values_mut()
            .for_each(|n| n.forget_before(forget_ms));
        self.no_data.retain(|_, no_data| no_data.expected() > 0);
        self.changes
            .forget_before(now_ms.saturating_sub(LOOK_BACK_MS));
        self.discover(live);
        let at_ms = now_ms.saturating_sub(self.options.lateness_ms) / 1_000 * 1_000;
        let no_data = std::mem::take(&mut self.no_data);
        let reading: BTreeSet<i32> = self
            .held
            .iter()
            .filter(|(_, held)| !held.reading.is_empty())
            .map(|(partition, _)| *partition)
            .collect();
        let site = self.site.clone();
        let (streams, mut saying) = self.parts(live, now_ms);
        for (name, stream) in streams {
            if reading.contains(&stream.partition) {
                continue;
            }
            let nodes = no_data.get(name);
            if let Some(nodes) = nodes {
                stream.look_for_nodes(nodes, at_ms, consuming, &mut saying);
            }
            stream.tick(nodes, &mut saying);
            if now_ms >= stream.save_at_ms {
                let first = stream.save_at_ms == 0;
                stream.save_at_ms = now_ms.saturating_add(SAVE_EVERY_MS);
                if !first {
                    stream.save(&site, nodes, saying.out);
                }
            }
        }
        self.no_data = no_data;
        self.count_tracked();
    }

    /// Other rules are in force. Episodes of those that are gone end.
    pub fn reload(&mut self, rules: Vec<Arc<Rule>>, live: &Live, now_ms: u64) {
        self.rules = rules;
        let by_name: BTreeMap<String, Arc<Rule>> = self
            .rules
            .iter()
            .map(|rule| (rule.name.clone(), Arc::clone(rule)))
            .collect();
        let (streams, mut saying) = self.parts(live, now_ms);
        for (name, stream) in streams.iter_mut() {
            let known: Vec<String> = stream.tracked.keys().cloned().collect();
            for rule_name in known {
                let rule = by_name.get(&rule_name).filter(|rule| rule.watches(name));
                let tracked = stream.tracked.get_mut(&rule_name);
                match (rule, tracked) {
                    (Some(rule), Some(tracked)) if rule.metric == tracked.rule.metric => {
                        tracked.rule = Arc::clone(rule);
                        tracked.gone = false;
                    }
                    _ => stream.close(&rule_name, &mut saying),
                }
            }
            if !stream.tracked.values().any(|t| t.rule.fast && !t.gone) {
                stream.detector = None;
            }
        }
        let names: Vec<String> = self.streams.keys().cloned().collect();
        names.iter().for_each(|name| self.add(name));
        self.discover(live);
    }
}

/// Looks at every moment of a stream that is due; how many observations that were.
fn look_at_all(stream: &mut Stream, live: &Live, saying: &mut Saying<'_>) -> u64 {
    let nodes = live.nodes();
    let newest_ms = live.now_ms();
    if stream.evaluated_ms == 0 {
        // New here: what was before is not judged.
        stream.evaluated_ms = live.watermark_ms() / 1_000 * 1_000;
    }
    if newest_ms < stream.evaluated_ms + 1_000 {
        return 0;
    }
    let step_ms = nodes.step_ms(&stream.name).unwrap_or(1_000);
    let mut looked = 0;
    loop {
        let at_ms = (stream.evaluated_ms / step_ms + 1) * step_ms;
        if at_ms > newest_ms {
            return looked;
        }
        let presence = nodes.presence(&stream.name, at_ms);
        let whole = presence.expected > 0 && presence.reported == presence.expected;
        if !whole && at_ms > live.watermark_ms() {
            return looked;
        }
        looked += stream.look(at_ms, presence, saying);
    }
}
