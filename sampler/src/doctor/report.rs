//! What `doctor` found, as a list for a person or for a program.
//!
//! Input: checks. Output: plain text, JSON, and the exit status. Pure.

use std::fmt;

use serde::Serialize;

use service::exit;

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, with less than there could be.
    Warn,
    /// Does not work.
    No,
}

/// What a failed check keeps the daemon from doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Essential {
    /// This kernel cannot run the sampler.
    Kernel,
    /// This process lacks a privilege.
    Privilege,
    /// The configuration cannot be used.
    Configuration,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How it went.
    pub level: Level,
    /// What is there.
    pub found: String,
    /// What to do about it, where something can be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub todo: Option<String>,
    /// Set where a [`Level::No`] keeps the daemon from running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub essential: Option<Essential>,
}

impl Check {
    /// A check that is as it should be.
    pub fn ok(name: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            level: Level::Ok,
            found: found.into(),
            todo: None,
            essential: None,
        }
    }

    /// A check that leaves something to be wished.
    pub fn warn(
        name: impl Into<String>,
        found: impl Into<String>,
        todo: impl Into<String>,
    ) -> Self {
        Self {
            level: Level::Warn,
            todo: Some(todo.into()),
            ..Self::ok(name, found)
        }
    }

    /// A check that failed; `essential` says what the daemon cannot do for that.
    pub fn no(
        name: impl Into<String>,
        found: impl Into<String>,
        todo: impl Into<String>,
        essential: Option<Essential>,
    ) -> Self {
        Self {
            level: Level::No,
            todo: Some(todo.into()),
            essential,
            ..Self::ok(name, found)
        }
    }
}

/// All checks, in the order they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The checks.
    pub checks: Vec<Check>,
}

impl Report {
    /// 0 when the daemon can run; else 69, 77 or 78. A kernel that cannot do it comes first: no privilege would help.
    pub fn exit_code(&self) -> u8 {
        let lacks = |what| {
            self.checks
                .iter()
                .any(|check| check.level == Level::No && check.essential == Some(what))
        };
        if lacks(Essential::Kernel) {
            exit::UNSUPPORTED
        } else if lacks(Essential::Privilege) {
            exit::NO_PRIVILEGE
        } else if lacks(Essential::Configuration) {
            exit::CONFIG
        } else {
            exit::OK
        }
    }

    /// One JSON object: the checks, the exit status, and whether the daemon can run.
    pub fn to_json(&self) -> String {
        let exit_code = self.exit_code();
        serde_json::json!({ "can_run": exit_code == 0, "exit_code": exit_code, "checks": self.checks }).to_string()
    }

    fn verdict(&self) -> &'static str {
        match self.exit_code() {
            exit::OK => "the sampler can run here",
            exit::UNSUPPORTED => {
                "the sampler cannot run here: the kernel lacks something (exit status 69)"
            }
            exit::NO_PRIVILEGE => {
                "the sampler cannot run like this: a privilege is missing (exit status 77)"
            }
            _ => "the sampler cannot run with this configuration (exit status 78)",
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .checks
            .iter()
            .map(|check| check.name.chars().count())
            .max()
            .unwrap_or(0);
        for check in &self.checks {
            let mark = match check.level {
                Level::Ok => "ok  ",
                Level::Warn => "warn",
                Level::No => "NO  ",
            };
            let mut found = check.found.lines();
            writeln!(
                f,
                "{mark}  {:width$}  {}",
                check.name,
                found.next().unwrap_or("")
            )?;
            for line in found {
                writeln!(f, "      {:width$}  {line}", "")?;
            }
            if let Some(todo) = &check.todo {
                writeln!(f, "      {:width$}  -> {todo}", "")?;
            }
        }
        writeln!(f, "\n{}", self.verdict())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lacking: &[Essential]) -> Report {
        let mut checks = vec![
            Check::ok("kernel", "6.18"),
            Check::warn("quic", "3 sockets", "nothing"),
        ];
        checks.extend(
            lacking
                .iter()
                .map(|&what| Check::no("x", "no", "get it", Some(what))),
        );
        checks.push(Check::no("broker", "no answer", "start it", None));
        Report { checks }
    }

    #[test]
    fn the_exit_status_names_what_cannot_be_helped_first() {
        for (lacking, expected) in [
            (&[][..], 0),
            (&[Essential::Privilege], 77),
            (&[Essential::Configuration, Essential::Privilege], 77),
            (&[Essential::Privilege, Essential::Kernel], 69),
            (&[Essential::Configuration], 78),
        ] {
            assert_eq!(report(lacking).exit_code(), expected, "{lacking:?}");
        }
    }

    #[test]
    fn prints_every_check_with_what_to_do() {
        let text = report(&[Essential::Privilege]).to_string();
        assert!(
            text.contains("NO    x       no\n              -> get it\n"),
            "{text}"
        );
        assert!(text.ends_with("exit status 77)\n"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&report(&[]).to_json()).expect("JSON");
        assert_eq!(json["can_run"], true);
        assert_eq!(json["checks"][1]["level"], "warn");
        assert_eq!(json["checks"][0].get("todo"), None);
    }
}
