//! What these rules say against what the running ones said.
//!
//! Input: episodes of both. Output: which are the same, new, gone. A rule is known by its name: two episodes of one rule and stream are
//! the same if they were on at the same time, and how far apart they began is said.

use serde::Serialize;

use super::said::Ran;
use crate::replay::Found;

/// An episode of these rules.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Compared {
    /// The episode.
    #[serde(flatten)]
    pub found: Found,
    /// How the running rules had it.
    pub running: Running,
}

/// What the running rules made of an episode.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Running {
    /// It is not known: their topic was not read.
    Unknown,
    /// Nothing.
    New,
    /// The same.
    Same {
        /// So much later than theirs it begins, ms.
        later_ms: i64,
        /// So much longer than theirs it lasts, ms; none: one of both is not over.
        longer_ms: Option<i64>,
    },
}

/// Holds them against each other; those of the running rules that these do not raise.
pub(super) fn compare(found: Vec<Found>, ran: Option<Vec<Ran>>) -> (Vec<Compared>, Vec<Ran>) {
    let Some(mut ran) = ran else {
        let unknown = found.into_iter().map(|found| Compared {
            found,
            running: Running::Unknown,
        });
        return (unknown.collect(), Vec::new());
    };
    ran.sort_by_key(|ran| ran.starts_at_ms);
    let mut free: Vec<Option<Ran>> = ran.into_iter().map(Some).collect();
    let compared = found.into_iter().map(|found| {
        let fits = |ran: &&mut Option<Ran>| ran.as_ref().is_some_and(|ran| overlap(&found, ran));
        let running = match free.iter_mut().find(fits).and_then(Option::take) {
            None => Running::New,
            Some(ran) => Running::Same {
                later_ms: found.starts_at_ms.cast_signed() - ran.starts_at_ms.cast_signed(),
                longer_ms: found
                    .duration_ms
                    .zip(ran.duration_ms)
                    .map(|(mine, theirs)| mine.cast_signed() - theirs.cast_signed()),
            },
        };
        Compared { found, running }
    });
    let compared = compared.collect();
    (compared, free.into_iter().flatten().collect())
}

fn overlap(found: &Found, ran: &Ran) -> bool {
    let end = |ends_at_ms: Option<u64>| ends_at_ms.unwrap_or(u64::MAX);
    found.key == ran.key
        && found.starts_at_ms <= end(ran.ends_at_ms)
        && ran.starts_at_ms <= end(found.ends_at_ms)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::alert::Key;

    pub fn found(stream: &str, starts_at_ms: u64, ends_at_ms: Option<u64>) -> Found {
        Found {
            key: Key {
                rule: "loss".to_owned(),
                site: "ams1".to_owned(),
                stream: stream.to_owned(),
            },
            episode_id: "id".to_owned(),
            severity: "page".to_owned(),
            fired_by: None,
            starts_at_ms,
            said_ms: starts_at_ms + 60,
            onset_ms: starts_at_ms,
            ends_at_ms,
            duration_ms: ends_at_ms.map(|end| end - starts_at_ms),
            ended: None,
            peak: None,
            estimate: None,
            nodes_with_data: 0,
            nodes_touched: 0,
            nodes_expected: 0,
            nodes_reported: 0,
            worst_nodes: Vec::new(),
        }
    }

    pub fn ran(stream: &str, starts_at_ms: u64, ends_at_ms: Option<u64>) -> Ran {
        let found = found(stream, starts_at_ms, ends_at_ms);
        Ran {
            key: found.key,
            episode_id: found.episode_id,
            starts_at_ms,
            ends_at_ms,
            duration_ms: found.duration_ms,
            ended: None,
            peak: None,
        }
    }

    #[test]
    fn the_same_new_and_gone() {
        let found = vec![
            found("a", 10, Some(20)),
            found("a", 30, Some(40)),
            found("b", 10, None),
            found("c", 10, Some(20)),
        ];
        let ran = vec![
            ran("a", 12, Some(25)),
            ran("a", 100, Some(110)),
            ran("b", 10, Some(20)),
            ran("d", 10, None),
        ];
        let (compared, gone) = compare(found.clone(), Some(ran.clone()));
        let running: Vec<_> = compared.into_iter().map(|one| one.running).collect();
        let same = |later_ms, longer_ms| Running::Same {
            later_ms,
            longer_ms,
        };
        assert_eq!(
            running,
            [
                same(-2, Some(-3)),
                Running::New,
                same(0, None),
                Running::New
            ]
        );
        assert_eq!(gone, [ran[3].clone(), ran[1].clone()]);
        let (compared, gone) = compare(found, None);
        assert!(compared.iter().all(|one| one.running == Running::Unknown));
        assert!(gone.is_empty());
    }
}
