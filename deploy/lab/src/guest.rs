//! What the host and its guests say to each other: words on the guest's command line, and a line per check on its second serial
//! port. Pure. Limits: a line holds no tab and no line break but its own.

use std::fmt;
use std::time::Duration;

/// How events mark what a kernel must allow, in their own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Where RTT samples come from: `callback` or `rack`.
    pub rtt_source: &'static str,
    /// `full`; `no_pickup` where connections that were open before are not followed; `no_fold` where open flows are not folded beside
    /// their callbacks either.
    pub kernel_mode: &'static str,
}

impl Marks {
    /// Nothing is lacking (6.12 and later).
    pub const FULL: Self = Self {
        rtt_source: "callback",
        kernel_mode: "full",
    };
    /// No sample in the RTT callback, no pick-up (6.1).
    pub const NO_PICKUP: Self = Self {
        rtt_source: "rack",
        kernel_mode: "no_pickup",
    };
    /// Nor storage in iterators over sockets (5.10).
    pub const NO_FOLD: Self = Self {
        rtt_source: "rack",
        kernel_mode: "no_fold",
    };
}

const KEY: &str = "flowvitals.expected=";
const ALL: [Marks; 3] = [Marks::FULL, Marks::NO_PICKUP, Marks::NO_FOLD];

impl Marks {
    fn word(self) -> String {
        format!("{},{}", self.rtt_source, self.kernel_mode)
    }

    /// From a kernel's command line.
    pub fn from_command_line(line: &str) -> Option<Self> {
        let word = line.split_whitespace().find_map(|w| w.strip_prefix(KEY))?;
        ALL.into_iter().find(|marks| marks.word() == word)
    }
}

/// As it stands on the command line.
impl fmt::Display for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{KEY}{}", self.word())
    }
}

/// What a guest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A check begins.
    Begins(String),
    /// A check is over.
    Over(Outcome),
    /// All checks that could be made are over.
    End,
}

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Which check.
    pub check: String,
    /// Whether it was right.
    pub passed: bool,
    /// How long it took.
    pub time: Duration,
    /// What was seen, or what is wrong.
    pub seen: String,
}

impl Line {
    /// From a line without its break; `None`: it is none of ours.
    pub fn parse(line: &str) -> Option<Self> {
        let mut parts = line.trim_end_matches('\r').splitn(4, '\t');
        let (word, check) = (parts.next()?, parts.next().unwrap_or_default().to_owned());
        match word {
            "begins" => Some(Self::Begins(check)),
            "end" => Some(Self::End),
            "ok" | "failed" => Some(Self::Over(Outcome {
                check,
                passed: word == "ok",
                time: Duration::from_millis(parts.next()?.parse().ok()?),
                seen: parts.next()?.to_owned(),
            })),
            _ => None,
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begins(check) => write!(f, "begins\t{check}"),
            Self::End => write!(f, "end"),
            Self::Over(outcome) => {
                let word = if outcome.passed { "ok" } else { "failed" };
                let seen = outcome.seen.replace(['\t', '\n', '\r'], " ");
                let ms = outcome.time.as_millis();
                write!(f, "{word}\t{}\t{ms}\t{seen}", outcome.check)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_survives_a_command_line() {
        for marks in ALL {
            let line = format!("console=ttyS0 quiet {marks} panic=-1\n");
            assert_eq!(Marks::from_command_line(&line), Some(marks));
        }
        assert_eq!(Marks::from_command_line("quiet"), None);
        let unknown = format!("{KEY}soon");
        assert_eq!(Marks::from_command_line(&unknown), None);
    }

    #[test]
    fn lines_survive_a_serial_port() {
        let outcome = Outcome {
            check: "exact".to_owned(),
            passed: false,
            time: Duration::from_millis(1_250),
            seen: "3 segments, not 4".to_owned(),
        };
        for line in [
            Line::Begins("exact".to_owned()),
            Line::Over(outcome.clone()),
            Line::End,
        ] {
            assert_eq!(Line::parse(&format!("{line}\r")), Some(line));
        }
        let broken = Outcome {
            seen: "two\nlines\tand a tab".to_owned(),
            ..outcome
        };
        let text = Line::Over(broken).to_string();
        assert_eq!(text, "failed\texact\t1250\ttwo lines and a tab");
        assert_eq!(Line::parse("ok\texact\tsoon\t"), None);
        assert_eq!(Line::parse("[    0.1] a word of the kernel"), None);
    }
}
