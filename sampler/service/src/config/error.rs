//! What is wrong with a configuration, and where.
//!
//! Every finding carries its place, so that an editor can jump to it: one line per finding,
//! `file:line:column: option: message (allowed: …)`.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

/// A place in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, as the operator named it.
    pub file: Arc<Path>,
    /// Line, from 1; 0 means the file as a whole.
    pub line: usize,
    /// Column in characters, from 1; 0 means the file as a whole.
    pub column: usize,
}

impl Place {
    /// A file as a whole: it could not be read, or the finding has no line.
    pub fn whole(file: &Path) -> Self {
        Self {
            file: Arc::from(file),
            line: 0,
            column: 0,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}", self.file.display()),
            _ => write!(f, "{}:{}:{}", self.file.display(), self.line, self.column),
        }
    }
}

/// One wrong value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// Where it is.
    pub place: Place,
    /// The option, with dots: `window.length_ms`; empty when there is none (syntax).
    pub option: String,
    /// What is wrong with it.
    pub message: String,
    /// What would be right; empty when the message says it.
    pub allowed: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_finding(f, &self.place, &self.option, &self.message)?;
        match self.allowed.as_str() {
            "" => Ok(()),
            allowed => write!(f, " (allowed: {allowed})"),
        }
    }
}

/// Something that works but is probably not meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigWarning {
    /// Where it is.
    pub place: Place,
    /// The option, with dots.
    pub option: String,
    /// What is odd about it.
    pub message: String,
}

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_finding(f, &self.place, &self.option, &self.message)
    }
}

fn write_finding(
    f: &mut fmt::Formatter<'_>,
    place: &Place,
    option: &str,
    message: &str,
) -> fmt::Result {
    write!(f, "{place}: ")?;
    if !option.is_empty() {
        write!(f, "{option}: ")?;
    }
    f.write_str(message)
}

/// Everything that is wrong with a configuration: never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl ConfigErrors {
    /// Writes them for a person, one a line, and how many they are.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn report(&self, file: &Path, out: &mut dyn Write) -> io::Result<()> {
        let count = self.0.len();
        let plural = if count == 1 { "" } else { "s" };
        writeln!(out, "{self}\n{}: {count} error{plural}", file.display())
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

/// Findings gathered while a configuration is read.
#[derive(Debug, Default)]
pub struct Findings {
    /// What is wrong.
    pub errors: Vec<ConfigError>,
    /// What is odd.
    pub warnings: Vec<ConfigWarning>,
}

impl Findings {
    /// Notes a wrong value.
    pub fn error(&mut self, place: Place, option: &str, wrong: Wrong) {
        self.errors.push(ConfigError {
            place,
            option: option.to_owned(),
            message: wrong.message,
            allowed: wrong.allowed,
        });
    }

    /// Notes an odd one.
    pub fn warn(&mut self, place: Place, option: &str, message: String) {
        self.warnings.push(ConfigWarning {
            place,
            option: option.to_owned(),
            message,
        });
    }
}

/// Why a value is refused, before its place is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (allowed: {allowed})")]
pub struct Wrong {
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub allowed: String,
}

impl Wrong {
    /// What is wrong, and what would be right.
    pub fn new(message: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            allowed: allowed.into(),
        }
    }
}

/// A finding about a file as a whole.
pub fn file_error(file: &Path, option: &str, message: String, allowed: &str) -> ConfigError {
    ConfigError {
        place: Place::whole(file),
        option: option.to_owned(),
        message,
        allowed: allowed.to_owned(),
    }
}
