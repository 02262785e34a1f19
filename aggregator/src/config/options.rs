//! What a configuration asks of merging and of the engine.

use std::sync::Arc;

use super::Config;
use crate::alert::{Engine, Rule, engine};
use crate::merge::LiveOptions;

/// The least that is kept in memory, ms.
const LEAST_HORIZON_MS: u64 = 120_000;

impl Config {
    /// The rules.
    #[must_use]
    pub fn rules(&self) -> Vec<Arc<Rule>> {
        let rules = self.alerts.iter();
        rules.map(|alert| Arc::new(alert.rule.clone())).collect()
    }

    /// How to merge for an engine with these rules.
    #[must_use]
    pub fn live_options(&self) -> LiveOptions {
        let lateness_ms = u64::from(self.merge.lateness_ms);
        let reach_ms = Engine::reach_ms(&self.rules()) + 2 * lateness_ms;
        LiveOptions {
            horizon_ms: reach_ms.max(LEAST_HORIZON_MS),
            lateness_ms,
            node_forget_after_ms: u64::from(self.merge.node_forget_after_s) * 1_000,
            max_windows: self.merge.max_windows as usize,
        }
    }

    /// How the engine works.
    #[must_use]
    pub fn engine_options(&self) -> engine::Options {
        engine::Options {
            lateness_ms: self.merge.lateness_ms.into(),
            node_forget_after_ms: u64::from(self.merge.node_forget_after_s) * 1_000,
            ..engine::Options::default()
        }
    }
}
