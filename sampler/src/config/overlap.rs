//! Rules that get in each other's way.
//!
//! A `local` entry all of whose flows an earlier stream takes is an error: its stream would stay
//! silent for a reason that nobody sees. Two streams that share some flows, neither holding all
//! of the other's, are a warning. A special rule before a general one is how streams are meant
//! to be written and says nothing.

use super::pattern::{LocalPattern, net_covers};
use super::stream::StreamConfig;
use service::config::error::{Findings, Wrong};

/// Compares every stream with the ones before it.
pub(super) fn check(streams: &[StreamConfig], findings: &mut Findings) {
    for (at, later) in streams.iter().enumerate() {
        check_own(later, findings);
        for earlier in &streams[..at] {
            check_pair(earlier, later, findings);
        }
    }
}

/// Entries of one stream that say the same.
fn check_own(stream: &StreamConfig, findings: &mut Findings) {
    for (at, entry) in stream.local.iter().enumerate() {
        let also = stream.local.iter().enumerate().find(|(other_at, other)| {
            *other_at != at && other.covers(entry) && (*other != entry || *other_at < at)
        });
        if let Some((_, other)) = also {
            let message = format!("`{entry}` adds nothing to `{other}` of the same stream");
            findings.warn(stream.places.local[at].clone(), "stream.local", message);
        }
    }
}

fn check_pair(earlier: &StreamConfig, later: &StreamConfig, findings: &mut Findings) {
    if !conditions_overlap(earlier, later) {
        return;
    }
    let hides = conditions_cover(earlier, later);
    let mut shared = None;
    for (at, entry) in later.local.iter().enumerate() {
        let hidden_by = earlier
            .local
            .iter()
            .position(|other| hides && other.covers(entry));
        if let Some(by) = hidden_by {
            findings.error(
                later.places.local[at].clone(),
                "stream.local",
                shadowed(earlier, by, later, entry),
            );
        } else if let Some(other) = earlier.local.iter().position(|other| {
            let nested = conditions_cover(later, earlier) && entry.covers(other);
            other.overlaps(entry) && !nested
        }) {
            shared.get_or_insert((at, other));
        }
    }
    if let Some((at, other)) = shared {
        let message = format!(
            "`{}` of stream `{}` shares flows with `{}` of stream `{}` at {}, which comes first \
             and takes them",
            later.local[at],
            later.name,
            earlier.local[other],
            earlier.name,
            earlier.places.local[other]
        );
        findings.warn(later.places.local[at].clone(), "stream.local", message);
    }
}

fn shadowed(
    earlier: &StreamConfig,
    by: usize,
    later: &StreamConfig,
    entry: &LocalPattern,
) -> Wrong {
    let same = earlier.local[by] == *entry && conditions_cover(later, earlier);
    let message = format!(
        "`{entry}` of stream `{}` {} `{}` of stream `{}` at {}",
        later.name,
        if same {
            "is the same rule as"
        } else {
            "is never reached: all its flows belong to"
        },
        earlier.local[by],
        earlier.name,
        earlier.places.local[by]
    );
    Wrong::new(
        message,
        "the special rule before the general one, or no overlap",
    )
}

/// Whether every flow that meets the other conditions of `inner` meets those of `outer`.
fn conditions_cover(outer: &StreamConfig, inner: &StreamConfig) -> bool {
    let remote = match (outer.remote.as_slice(), inner.remote.as_slice()) {
        ([], _) => true,
        (_, []) => false,
        (outer, inner) => inner.iter().all(|net| {
            outer
                .iter()
                .any(|other| net_covers(Some(*other), Some(*net)))
        }),
    };
    let cgroup = match (&outer.cgroup, &inner.cgroup) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(outer), Some(inner)) => cgroup_covers(outer, inner),
    };
    remote && cgroup && (outer.mark.is_none() || outer.mark == inner.mark)
}

/// Whether some flow can meet the other conditions of both.
fn conditions_overlap(a: &StreamConfig, b: &StreamConfig) -> bool {
    let remote = a.remote.is_empty()
        || b.remote.is_empty()
        || a.remote.iter().any(|x| {
            b.remote
                .iter()
                .any(|y| net_covers(Some(*x), Some(*y)) || net_covers(Some(*y), Some(*x)))
        });
    let cgroup = match (&a.cgroup, &b.cgroup) {
        (Some(a), Some(b)) => cgroup_covers(a, b) || cgroup_covers(b, a),
        _ => true,
    };
    let mark = a.mark.is_none() || b.mark.is_none() || a.mark == b.mark;
    remote && cgroup && mark
}

/// Whether a cgroup is another one or holds it.
pub(crate) fn cgroup_covers(outer: &str, inner: &str) -> bool {
    let below = |rest: &str| rest.is_empty() || rest.starts_with('/');
    outer == "/" || inner.strip_prefix(outer).is_some_and(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_hold_their_children() {
        let check = |outer, inner, expected| {
            assert_eq!(cgroup_covers(outer, inner), expected, "{outer} {inner}")
        };
        check("/", "/a", true);
        check("/a", "/a", true);
        check("/a", "/a/b", true);
        check("/a", "/ab", false);
        check("/a/b", "/a", false);
    }
}
