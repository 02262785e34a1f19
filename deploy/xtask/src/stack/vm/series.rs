//! Which kernels are tried: series of Debian's cloud kernels, since point releases vanish from the mirrors. Pure.

use anyhow::{Result, bail};
use lab::guest::Marks;

/// A series, and what its kernels must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Series {
    /// First numbers of the release, or [`NEWEST`].
    pub name: &'static str,
    /// What is expected of it.
    pub expected: Marks,
}

/// The highest release that there is.
const NEWEST: &str = "newest";

/// All of them, oldest first.
pub const ALL: [Series; 5] = [
    // Nor bpf_sk_storage_get in an iterator over sockets, nor bpf_sock_from_file (both 5.11).
    Series {
        name: "5.10",
        expected: Marks::NO_FOLD,
    },
    // No sample in the RTT callback, which came with 6.10, and no flags set by an iterator over sockets (6.12).
    Series {
        name: "6.1",
        expected: Marks::NO_PICKUP,
    },
    whole("6.12"),
    whole("6.18"),
    whole(NEWEST),
];

const fn whole(name: &'static str) -> Series {
    Series {
        name,
        expected: Marks::FULL,
    }
}

/// The series of these names; all if there are none.
pub fn chosen(names: &[String]) -> Result<Vec<Series>> {
    let known = |name: &str| ALL.into_iter().find(|series| series.name == name);
    if names.is_empty() {
        return Ok(ALL.to_vec());
    }
    let mut chosen = Vec::new();
    for name in names {
        match known(name) {
            Some(series) if chosen.contains(&series) => {}
            Some(series) => chosen.push(series),
            None => bail!("no kernel series {name} (there are: {})", all_names()),
        }
    }
    Ok(chosen)
}

fn all_names() -> String {
    ALL.map(|series| series.name).join(", ")
}

impl Series {
    /// The highest of these releases that belongs to it.
    pub fn pick<'a>(&self, releases: &'a [String]) -> Option<&'a str> {
        let ours = releases.iter().filter(|release| self.has(release));
        ours.max_by_key(|release| numbers(release))
            .map(String::as_str)
    }

    /// Meta-packages have the series' numbers alone.
    fn has(&self, release: &str) -> bool {
        let numbers = numbers(release);
        let wanted: Vec<u32> = numbers_of(self.name).collect();
        numbers.len() >= 3 && (self.name == NEWEST || numbers.starts_with(&wanted))
    }
}

/// All numbers in a release, in their order: `6.12.118+deb13` is after `6.12.117+deb13`.
fn numbers(release: &str) -> Vec<u32> {
    numbers_of(release).collect()
}

fn numbers_of(text: &str) -> impl Iterator<Item = u32> {
    text.split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, releases: &[&str], expected: Option<&str>) {
        let [series] = chosen(&[name.to_owned()]).expect("a series")[..] else {
            panic!("one series")
        };
        let releases: Vec<String> = releases.iter().map(|r| (*r).to_owned()).collect();
        assert_eq!(series.pick(&releases), expected, "{name}");
    }

    #[test]
    fn the_highest_release_of_a_series_is_picked() {
        let releases = [
            "5.10.0-9",
            "5.10.0-46",
            "6.1",
            "6.1.0-0.deb11.52",
            "6.1.0-56",
            "6.12",
            "6.12.118+deb13",
            "6.12.90+deb13.1",
            "7.2.13+deb14",
            "7.3.4+deb13",
        ];
        check("5.10", &releases, Some("5.10.0-46"));
        check("6.1", &releases, Some("6.1.0-56"));
        check("6.12", &releases, Some("6.12.118+deb13"));
        check("6.18", &releases, None);
        check(NEWEST, &releases, Some("7.3.4+deb13"));
    }

    #[test]
    fn an_unknown_series_is_said_with_those_that_there_are() {
        let names = ["6.1", "2.4"].map(str::to_owned);
        let said = chosen(&names).expect_err("no such series").to_string();
        assert_eq!(
            said,
            "no kernel series 2.4 (there are: 5.10, 6.1, 6.12, 6.18, newest)"
        );
        assert_eq!(chosen(&[]).expect("all").len(), ALL.len());
    }
}
