//! Connections to the streams that are open already: which of them a start would take in.
//!
//! Input: a kernel side that is loaded and not attached, the configuration, `/proc/self/net/tcp{,6}`. Output: one [`Check`].
//! Limits: the kernel side counts connections by the whole rules, in all network namespaces, each as often as processes hold it; what is
//! in this one is counted by local addresses only. In the mode `no_fold` it counts this one alone.

use ebpf_abi::rules::StreamEntry;

use super::machine::Machine;
use super::report::Check;
use super::sockets::{self, LocalRule};
use crate::config::Config;
use crate::kernel::{cgroup, probe::Probe};
use crate::rules::RuleSet;
use crate::stage::{Kernel, streams::Order};

const NAME: &str = "open connections";

/// What a start now would take in, and what not.
pub fn check(machine: &Machine, probe: &Probe, config: &Config, rules: &[LocalRule]) -> Check {
    let Some(all) = everywhere(probe, config) else {
        return Check::warn(
            NAME,
            "cannot be counted",
            "compare flows_unreached in the heartbeat after the start",
        );
    };
    judge(
        all,
        sockets::connections(machine, rules),
        probe.mode() == "full",
    )
}

/// Of all network namespaces.
fn everywhere(probe: &Probe, config: &Config) -> Option<u64> {
    let root = cgroup::mount()?;
    let id = |path: &str| cgroup::cgroup_id(&root, path);
    let compiled = RuleSet::new(&config.streams).compile(|index| index as u32, id);
    probe.set_rules(&compiled.ok()?);
    for index in 0..config.streams.len() {
        let all = StreamEntry::new(0, ebpf_abi::hash::threshold(1.0));
        probe.obey(&Order::Stream(index as u32, all));
    }
    probe.count_unreached().ok()
}

fn judge(all: u64, here: u64, can_pick_up: bool) -> Check {
    let here = here.min(all);
    let beyond = all - here;
    if all == 0 {
        return Check::ok(NAME, "none to these streams");
    }
    if !can_pick_up {
        return Check::warn(
            NAME,
            format!(
                "{all} to these streams; this kernel cannot take them in: what they do until they end is not seen"
            ),
            "6.12 or newer can; or start the sampler before the server",
        );
    }
    let found = format!(
        "{here} to these streams in this network namespace: a start takes in those of the sample"
    );
    if beyond == 0 {
        return Check::ok(NAME, found);
    }
    Check::warn(
        NAME,
        format!("{found}; {beyond} in others, where only new connections are seen"),
        "start the sampler in their network namespace, or wait until they end",
    )
}

#[cfg(test)]
mod tests {
    use super::super::report::Level;
    use super::*;

    #[test]
    fn says_what_is_taken_in_and_what_is_not() {
        for (all, here, can, level, words) in [
            (0, 0, true, Level::Ok, "none"),
            (0, 3, false, Level::Ok, "none"),
            (5, 5, true, Level::Ok, "5 to these streams in this"),
            (5, 9, true, Level::Ok, "5 to these streams in this"),
            (7, 5, true, Level::Warn, "; 2 in others"),
            (
                7,
                7,
                false,
                Level::Warn,
                "7 to these streams; this kernel cannot",
            ),
        ] {
            let check = judge(all, here, can);
            assert_eq!(check.level, level, "{check:?}");
            assert!(check.found.contains(words), "{check:?}");
        }
    }
}
