//! `doctor`: what this kernel and these privileges allow, what would be sampled, what is not seen.
//!
//! Input: the machine's own files, a [`Subject`] from the configuration, the result of a load trial. Output: a
//! [`Report`]. Limits: changes nothing; brokers get five seconds to answer.

mod brokers;
mod clock;
mod kernel;
mod machine;
mod open;
mod report;
mod sockets;
mod spool;

use nix::sys::resource::{Resource, getrlimit};

pub use clock::{ClockQuality, clock_quality};
pub use machine::Machine;
pub use report::{Check, Essential, Level, Report};
pub use sockets::{Listener, LocalRule};
pub use spool::SpoolSubject;

use crate::config::Config;
use crate::daemon::kafka_settings;
use crate::kernel::{
    load::{KernelError, NO_FOLD},
    probe::Probe,
};
use crate::node_stats;
use crate::sink::KafkaSettings;

/// What the configuration says, as far as it can be looked into from outside.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// Local sides of the streams' rules, in file order.
    pub rules: Vec<LocalRule>,
    /// The Kafka sink, if there is one.
    pub kafka: Option<KafkaSettings>,
    /// The spool before it.
    pub spool: Option<SpoolSubject>,
}

impl Subject {
    /// From a whole configuration.
    pub fn of(config: &Config) -> Self {
        let rules = config.streams.iter().flat_map(|stream| {
            stream.local.iter().map(|pattern| LocalRule {
                stream: stream.name.clone(),
                prefix: pattern.net,
                ports: pattern.ports.first..=pattern.ports.last,
            })
        });
        Self {
            rules: rules.collect(),
            kafka: kafka_settings(config),
            spool: SpoolSubject::of(config),
        }
    }
}

/// The check for a kernel side that does not load.
fn trial_failed(error: &KernelError) -> Check {
    let (essential, todo) = match error {
        KernelError::Privilege(_) => (
            Essential::Privilege,
            "run as root, or with these capabilities",
        ),
        KernelError::Memlock(_) => (Essential::Privilege, "raise the limit"),
        _ => (Essential::Kernel, "use a kernel that allows it"),
    };
    Check::no("kernel side", error.to_string(), todo, Some(essential))
}

/// The checks of a kernel side that was loaded for a trial.
pub fn trial(loaded: Result<&Probe, &KernelError>, config: Option<&Config>) -> Vec<Check> {
    match (loaded, config) {
        (Err(error), _) => vec![trial_failed(error)],
        (Ok(probe), config) => {
            let loads = match probe.lack() {
                None => Check::ok("kernel side", "loads: every program passes the verifier"),
                Some(lack) => Check::warn(
                    "kernel side",
                    format!("loads, kernel_mode {}: {lack}", probe.mode()),
                    format!("5.11 or newer can; here {NO_FOLD}"),
                ),
            };
            let open = config.map(|config| {
                let rules = Subject::of(config).rules;
                open::check(&Machine::this(), probe, config, &rules)
            });
            std::iter::once(loads).chain(open).collect()
        }
    }
}

/// Makes all checks. `subject` is absent without a configuration; `kernel_trial` is what came of loading the kernel side
/// for a trial, where that was tried. Blocks for as long as the brokers take.
pub fn examine(machine: &Machine, subject: Option<&Subject>, kernel_trial: Vec<Check>) -> Report {
    let memlock = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(Some(0), |(soft, _)| {
        (soft != libc::RLIM_INFINITY).then_some(soft)
    });
    let mut checks = vec![
        kernel::release(machine),
        kernel::cgroup2(machine),
        kernel::btf(machine),
    ];
    checks.extend(kernel::capabilities(machine));
    checks.extend([
        kernel::unprivileged_bpf(machine),
        kernel::lockdown(machine),
        kernel::jit(machine),
        kernel::bpf_stats(machine),
        kernel::memlock(machine, memlock),
    ]);
    checks.extend(kernel_trial);
    checks.push(kernel::congestion_control(machine));
    checks.push(clock::check(clock_quality()));
    checks.push(sockets::quic(
        machine,
        node_stats::net_counters_under(&machine.path("proc/self/net")).ok(),
    ));
    if let Some(subject) = subject {
        checks.extend(sockets::would_be_sampled(
            &sockets::listeners(machine),
            &subject.rules,
        ));
        checks.extend(subject.spool.as_ref().map(spool::check));
        checks.extend(
            subject
                .kafka
                .as_ref()
                .map(brokers::check)
                .unwrap_or_default(),
        );
    }
    Report { checks }
}
