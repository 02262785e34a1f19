//! What this node spends, and what follows from it.
//!
//! Input: CPU time of the process, of the kernel programs, and the counts of the windows. Output: lower or higher rates, a kernel
//! side to be taken off, words for heartbeats and the log.

use sampler_event::{Event, Flag};

use super::{node::Node, off::Why};
use crate::{
    config::Limits,
    kernel::parts::program,
    limits::{Budget, Cost, Governor, Meter, Verdict},
    metrics::ProgramCost,
    node_stats::{self, NetCounters, OwnUse},
    stage::clock::Now,
};

/// The books of it.
pub(super) struct Spending {
    meter: Meter,
    budget: Budget,
    governor: Governor,
    /// Read at the last edge.
    pub(super) own: OwnUse,
    /// Read at the last edge; a failed read leaves nothing rather than zeros.
    pub(super) net: Option<NetCounters>,
    /// Of the kernel programs, read at the last edge; empty unless the kernel measures it.
    pub(super) programs: Vec<ProgramCost>,
    pub(super) cost: Cost,
    pub(super) percent: f64,
}

impl Spending {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            meter: Meter::default(),
            budget: Budget::default(),
            governor: Governor::new(limits),
            own: OwnUse::default(),
            net: None,
            programs: Vec::new(),
            cost: Cost::default(),
            percent: 0.0,
        }
    }

    pub(super) fn limit_percent(&self) -> f64 {
        self.governor.limit_percent()
    }

    /// Takes in what a window counted.
    pub(super) fn count(&mut self, events: &[Event]) {
        self.meter.count(events);
    }

    fn read(&mut self, now: Now, programs: Vec<ProgramCost>) {
        self.own = node_stats::own_use().unwrap_or_default();
        self.net = node_stats::net_counters().ok();
        // The other programs run in our own time.
        let fold = programs.iter().find(|c| c.name == program::PICK_AND_FOLD);
        let run_ns = fold.filter(|c| c.runs != 0).map(|c| c.run_ns);
        self.programs = programs;
        let opens = self.net.as_ref().map(|net| net.tcp_opens);
        self.cost = Cost {
            // A failed read is no time given back.
            daemon_us: self.own.cpu_us_total.max(self.cost.daemon_us),
            kernel_us: self.meter.read_us(run_ns, opens),
        };
        self.percent = self.budget.spend(now.monotonic_us, self.cost);
    }

    fn words(&self) -> String {
        format!(
            "{:.2} % of a core over the last minute, {} % allowed",
            self.percent,
            self.limit_percent()
        )
    }

    /// What is done because of the limit; empty if nothing is.
    pub(super) fn limited(&self) -> String {
        match self.governor.halvings() {
            0 if self.governor.is_limiting() => format!("cost above its limit: {}", self.words()),
            0 => String::new(),
            halvings => format!(
                "rates of new flows are divided by {} for what it costs: {}",
                1 << halvings,
                self.words()
            ),
        }
    }
}

impl Node {
    /// Reads what was spent, and lowers or raises rates; `Some`: the kernel side is to be taken off.
    pub(super) fn judge_cost(&mut self, now: Now) -> Option<Why> {
        let programs = self.program_costs();
        self.spending.read(now, programs);
        if self.off.is_some() {
            return None;
        }
        let percent = self.spending.percent;
        let verdict = self.spending.governor.judge(now.monotonic_us, percent);
        if self.spending.governor.is_limiting() {
            self.flags |= Flag::Limited as u32;
        }
        let words = self.spending.words();
        match verdict {
            Verdict::Stay => {}
            Verdict::Above => tracing::warn!("the sampler costs more than it may: {words}"),
            Verdict::Below => tracing::info!("the sampler costs no more than it may: {words}"),
            Verdict::Halvings(halvings) => {
                self.stage.lower_rates(halvings, &self.side);
                let divisor = 1 << halvings;
                tracing::warn!(
                    "rates of new flows are divided by {divisor} for what it costs: {words}"
                );
            }
            Verdict::Detach => return Some(Why::Limit(words)),
        }
        None
    }

    /// Another limit begins anew: rates are as configured until it judges.
    pub(super) fn set_limits(&mut self, old: &Limits) {
        let limits = &self.config().limits;
        if (limits.cpu_percent, limits.action) == (old.cpu_percent, old.action) {
            return;
        }
        self.spending.governor = Governor::new(limits);
        self.stage.lower_rates(0, &self.side);
    }
}
