//! What a new configuration changes, and what that means for flows that live.
//!
//! Pure: used by `check --diff` and by the daemon when it reloads.

use std::collections::BTreeMap;
use std::fmt;

use super::{Config, StreamConfig};

type Properties = BTreeMap<String, String>;

/// One difference between two configurations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A stream is new.
    StreamAdded {
        /// Its name.
        stream: String,
    },
    /// A stream is gone.
    StreamRemoved {
        /// Its name.
        stream: String,
    },
    /// A stream says something else.
    StreamChanged {
        /// Its name.
        stream: String,
        /// The option.
        option: &'static str,
        /// Its old value.
        old: String,
        /// Its new value.
        new: String,
        /// When it counts.
        effect: Effect,
    },
    /// The streams of both are tried in another order.
    OrderChanged,
    /// An option of the node has another value.
    OptionChanged {
        /// The option, with dots.
        option: &'static str,
        /// Its old value.
        old: String,
        /// Its new value.
        new: String,
        /// When it counts.
        effect: Effect,
    },
}

/// When a change counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// For the next window or event.
    AtOnce,
    /// For new flows; open ones stay where they were counted.
    NewFlows,
    /// For new flows, in a new rate epoch; open ones keep the rate they were admitted under.
    NewEpoch,
    /// Only after a restart of the daemon; until then the old value holds.
    Restart,
}

impl Change {
    /// Whether the daemon has to restart for it.
    pub fn needs_restart(&self) -> bool {
        matches!(
            self,
            Self::OptionChanged {
                effect: Effect::Restart,
                ..
            }
        )
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtOnce => "from the next window on",
            Self::NewFlows => "for new flows; open flows stay where they were counted",
            Self::NewEpoch => "new rate epoch; open flows keep the rate they were admitted under",
            Self::Restart => "only after a restart; a reload keeps the old value",
        })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StreamAdded { stream } => write!(
                f,
                "+ stream {stream}: takes new flows; open flows stay where they were counted"
            ),
            Self::StreamRemoved { stream } => write!(
                f,
                "- stream {stream}: its open flows are folded and closed out, then no longer seen"
            ),
            Self::StreamChanged {
                stream,
                option,
                old,
                new,
                effect,
            } => {
                write!(f, "~ stream {stream}: {option}: {old} -> {new}: {effect}")
            }
            Self::OrderChanged => {
                write!(f, "~ order of the streams: {}", Effect::NewFlows)
            }
            Self::OptionChanged {
                option,
                old,
                new,
                effect,
            } => {
                write!(f, "~ {option}: {old} -> {new}: {effect}")
            }
        }
    }
}

/// Everything that `new` changes against `old`; empty if both mean the same.
pub fn diff(old: &Config, new: &Config) -> Vec<Change> {
    let mut changes = options(old, new);
    let find = |config: &'_ Config, name: &str| {
        config.streams.iter().position(|stream| stream.name == name)
    };
    for stream in &old.streams {
        if find(new, &stream.name).is_none() {
            changes.push(Change::StreamRemoved {
                stream: stream.name.clone(),
            });
        }
    }
    let mut kept = Vec::new();
    for stream in &new.streams {
        match find(old, &stream.name) {
            None => changes.push(Change::StreamAdded {
                stream: stream.name.clone(),
            }),
            Some(at) => {
                kept.push(at);
                changes.extend(stream_changes(&old.streams[at], stream));
            }
        }
    }
    if !kept.is_sorted() {
        changes.push(Change::OrderChanged);
    }
    changes
}

fn stream_changes(old: &StreamConfig, new: &StreamConfig) -> Vec<Change> {
    use Effect::{AtOnce, NewEpoch, NewFlows};
    let values = |s: &StreamConfig| {
        [
            ("local", list(&s.local), NewFlows),
            ("remote", list(&s.remote), NewFlows),
            ("cgroup", option(&s.cgroup), NewFlows),
            ("mark", option(&s.mark), NewFlows),
            ("rate", s.rate.to_string(), NewEpoch),
            ("pulse_ms", s.pulse_ms.to_string(), AtOnce),
            ("bitrate_bps", option(&s.bitrate_bps), AtOnce),
            ("rtt_slow_us", s.rtt_slow_us.to_string(), AtOnce),
            ("labels", format!("{:?}", s.labels), AtOnce),
        ]
    };
    let changed = values(old)
        .into_iter()
        .zip(values(new))
        .filter(|(old, new)| old.1 != new.1);
    changed
        .map(
            |((option, was, effect), (_, is, _))| Change::StreamChanged {
                stream: new.name.clone(),
                option,
                old: was,
                new: is,
                effect,
            },
        )
        .collect()
}

fn options(old: &Config, new: &Config) -> Vec<Change> {
    use Effect::{AtOnce, NewFlows, Restart};
    let values = |c: &Config| {
        [
            ("node", option(&c.node), Restart),
            ("site", c.site.clone(), Restart),
            ("sampling.key_file", path(&c.sampling.key_file), Restart),
            (
                "sampling.max_sampled_flows",
                c.sampling.max_sampled_flows.to_string(),
                NewFlows,
            ),
            ("sampling.alone", c.sampling.alone.to_string(), Restart),
            ("window.length_ms", c.window.length_ms.to_string(), AtOnce),
            (
                "window.walk_interval_ms",
                c.window.walk_interval_ms.to_string(),
                AtOnce,
            ),
            ("kafka.brokers", list(&c.kafka.brokers), Restart),
            ("kafka.topic", c.kafka.topic.clone(), Restart),
            ("kafka.password_file", path(&c.kafka.password_file), Restart),
            (
                "state.directory",
                c.state.directory.display().to_string(),
                Restart,
            ),
            ("spool", format!("{:?}", c.spool), Restart),
            ("metrics.listen", c.metrics.listen.to_string(), Restart),
            (
                "metrics.streams",
                format!("{:?}", c.metrics.streams),
                AtOnce,
            ),
            (
                "control.socket",
                c.control.socket.display().to_string(),
                Restart,
            ),
            ("limits", format!("{:?}", c.limits), AtOnce),
            (
                "shutdown.timeout_s",
                c.shutdown.timeout_s.to_string(),
                AtOnce,
            ),
        ]
    };
    let changed = values(old)
        .into_iter()
        .zip(values(new))
        .filter(|(old, new)| old.1 != new.1);
    changed
        .map(
            |((option, old, effect), (_, new, _))| Change::OptionChanged {
                option,
                old,
                new,
                effect,
            },
        )
        .chain(properties(&old.kafka.properties, &new.kafka.properties))
        .collect()
}

/// Properties without their values: some are passwords.
fn properties(old: &Properties, new: &Properties) -> Option<Change> {
    let names = |from: &Properties, other: &Properties| {
        let differ = from
            .iter()
            .filter(|(name, value)| other.get(*name) != Some(value));
        list(
            &differ
                .map(|(name, _)| format!("{name} = (value not shown)"))
                .collect::<Vec<_>>(),
        )
    };
    (old != new).then(|| Change::OptionChanged {
        option: "kafka.properties",
        old: names(old, new),
        new: names(new, old),
        effect: Effect::Restart,
    })
}

fn option<T: fmt::Display>(value: &Option<T>) -> String {
    value
        .as_ref()
        .map_or_else(|| "not set".to_owned(), T::to_string)
}

fn path(value: &Option<std::path::PathBuf>) -> String {
    option(&value.as_ref().map(|path| path.display()))
}

fn list<T: fmt::Display>(values: &[T]) -> String {
    format!(
        "[{}]",
        values
            .iter()
            .map(T::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Source, load};

    #[track_caller]
    fn check(old: &str, new: &str, expected: &[&str]) {
        let config = |text| load::read(Source::new("a.toml", text), |_| Ok(Vec::new())).unwrap();
        let shown: Vec<_> = diff(&config(old), &config(new))
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(shown.len(), expected.len(), "{shown:#?}");
        for (shown, expected) in shown.iter().zip(expected) {
            assert!(shown.starts_with(expected), "{shown}\nis not\n{expected}");
        }
    }

    const A: &str = "[[stream]]\nname = 'a'\nlocal = ['*:1']\n";
    const B: &str = "[[stream]]\nname = 'b'\nlocal = ['*:2']\n";

    #[test]
    fn places_and_comments_do_not_matter() {
        check(&(A.to_owned() + B), &format!("# moved\n{A}\n\n{B}"), &[]);
    }

    #[test]
    fn streams_come_go_and_move() {
        check(A, &(A.to_owned() + B), &["+ stream b: takes new flows"]);
        check(
            &(A.to_owned() + B),
            B,
            &["- stream a: its open flows are folded and closed out"],
        );
        check(
            &(A.to_owned() + B),
            &(B.to_owned() + A),
            &["~ order of the streams: for new flows"],
        );
    }

    #[test]
    fn streams_change() {
        check(
            A,
            &A.replace("'*:1'", "'*:1', '10.0.0.1:443'")
                .replace("name", "rate = 0.5\nname"),
            &[
                "~ stream a: local: [*:1] -> [*:1, 10.0.0.1:443]: for new flows; open flows stay",
                "~ stream a: rate: 0.1 -> 0.5: new rate epoch; open flows keep the rate",
            ],
        );
        check(
            A,
            &(A.to_owned() + "pulse_ms = 100\nmark = 7\nlabels = { a = 'b' }"),
            &[
                "~ stream a: mark: not set -> 7: for new flows",
                "~ stream a: pulse_ms: 0 -> 100: from the next window on",
                "~ stream a: labels: {} -> {\"a\": \"b\"}: from the next window on",
            ],
        );
    }

    #[test]
    fn options_of_the_node_change() {
        check(
            "[window]\nlength_ms = 2000",
            "node = 'x'\n[metrics]\nstreams = 'all'",
            &[
                "~ node: not set -> x: only after a restart",
                "~ window.length_ms: 2000 -> 1000: from the next window on",
                "~ metrics.streams: ",
            ],
        );
        // The default rate is seen where it counts: in the streams.
        check(
            A,
            &format!("[sampling]\nrate = 0.2\n{A}"),
            &["~ stream a: rate: 0.1 -> 0.2"],
        );
    }

    #[test]
    fn passwords_are_not_shown() {
        let with =
            |value: &str| format!("[kafka.properties]\n'sasl.password' = '{value}'\nx = '1'");
        check(
            &with("old"),
            &with("new"),
            &["~ kafka.properties: [sasl.password = (value not shown)] -> [sasl.password = (value"],
        );
    }
}
