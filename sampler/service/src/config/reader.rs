//! Reads a TOML table option by option.
//!
//! In: a parsed table that remembers the place of every key and value. Out: typed values;
//! whatever is wrong goes to [`Findings`] and the default takes its place, so that one pass
//! reports everything. serde would stop at the first wrong value, hence this reader. Options
//! that nobody asked for are errors when the section ends.

use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Findings, Place, Wrong};
use super::source::Source;

/// Entries of one list; prefixes and port ranges say more in fewer.
pub const MAX_ITEMS: usize = 1024;

/// Result of parsing one value.
pub type Parsed<T> = Result<T, Wrong>;

/// A table that is being read.
pub struct Section<'a> {
    source: &'a Source,
    table: &'a DeTable<'a>,
    path: &'static str,
    place: Range<usize>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// The table `path` (empty: the whole file) that lies at `place`.
    pub fn new(
        source: &'a Source,
        table: &'a DeTable<'a>,
        path: &'static str,
        place: Range<usize>,
    ) -> Self {
        Self {
            source,
            table,
            path,
            place,
            known: Vec::new(),
        }
    }

    /// Its name in the file, with dots; empty: the whole file.
    pub fn path(&self) -> &'static str {
        self.path
    }

    /// Where the table begins.
    pub fn place(&self) -> Place {
        self.source.place(self.place.start)
    }

    /// Where a value of this section is.
    pub fn place_of<T>(&self, value: &Spanned<T>) -> Place {
        self.source.place(value.span().start)
    }

    /// The full name of an option.
    pub fn name(&self, key: &str) -> String {
        match self.path {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }

    /// Where the value of an option is, if it is set.
    pub fn place_if_set(&mut self, key: &'static str) -> Option<Place> {
        self.value(key).map(|value| self.place_of(value))
    }

    /// The raw value of an option, if it is set.
    pub fn value(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.table.get(key)
    }

    /// An option that may be absent.
    pub fn optional<T>(
        &mut self,
        findings: &mut Findings,
        key: &'static str,
        parse: impl FnOnce(&DeValue<'a>) -> Parsed<T>,
    ) -> Option<T> {
        let value = self.value(key)?;
        match parse(value.get_ref()) {
            Ok(parsed) => Some(parsed),
            Err(wrong) => {
                findings.error(self.place_of(value), &self.name(key), wrong);
                None
            }
        }
    }

    /// An option with a default.
    pub fn or<T>(
        &mut self,
        findings: &mut Findings,
        key: &'static str,
        default: T,
        parse: impl FnOnce(&DeValue<'a>) -> Parsed<T>,
    ) -> T {
        self.optional(findings, key, parse).unwrap_or(default)
    }

    /// A list; every item has its place. Absent: empty.
    pub fn list<T>(
        &mut self,
        findings: &mut Findings,
        key: &'static str,
        mut parse: impl FnMut(&DeValue<'a>) -> Parsed<T>,
    ) -> Vec<(Place, T)> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let Some(items) = value.get_ref().as_array() else {
            findings.error(
                self.place_of(value),
                &self.name(key),
                wrong_type(value, "a list"),
            );
            return Vec::new();
        };
        if items.len() > MAX_ITEMS {
            let message = format!("has {} entries", items.len());
            let wrong = Wrong::new(message, format!("at most {MAX_ITEMS} entries"));
            findings.error(self.place_of(value), &self.name(key), wrong);
            return Vec::new();
        }
        let mut parsed = Vec::new();
        for item in items.iter() {
            let place = self.place_of(item);
            match parse(item.get_ref()) {
                Ok(good) => parsed.push((place, good)),
                Err(wrong) => findings.error(place, &self.name(key), wrong),
            }
        }
        parsed
    }

    /// A table inside this one; absent or of another type: none.
    pub fn table(
        &mut self,
        findings: &mut Findings,
        key: &'static str,
        path: &'static str,
    ) -> Option<Section<'a>> {
        let value = self.value(key)?;
        match value.get_ref().as_table() {
            Some(table) => Some(Section::new(self.source, table, path, value.span())),
            None => {
                let wrong = wrong_type(value, &format!("a table: [{path}]"));
                findings.error(self.place_of(value), &self.name(key), wrong);
                None
            }
        }
    }

    /// A list of tables, as `[[key]]` writes it.
    pub fn tables(&mut self, findings: &mut Findings, key: &'static str) -> Vec<Section<'a>> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let allowed = format!("tables, each under [[{key}]]");
        let Some(items) = value.get_ref().as_array() else {
            findings.error(
                self.place_of(value),
                &self.name(key),
                wrong_type(value, &allowed),
            );
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in items.iter() {
            match item.get_ref().as_table() {
                Some(table) => tables.push(Section::new(self.source, table, key, item.span())),
                None => findings.error(
                    self.place_of(item),
                    &self.name(key),
                    wrong_type(item, &allowed),
                ),
            }
        }
        tables
    }

    /// Free-form entries of this section: nothing in it is unknown.
    pub fn entries(self) -> impl Iterator<Item = (Place, &'a str, Place, &'a DeValue<'a>)> {
        self.table.iter().map(move |(key, value)| {
            let (key_at, value_at) = (key.span().start, value.span().start);
            let name: &'a str = key.get_ref();
            (
                self.source.place(key_at),
                name,
                self.source.place(value_at),
                value.get_ref(),
            )
        })
    }

    /// An option whose presence alone is an error; [`Self::end`] must know of it as well.
    pub fn refuse(&self, findings: &mut Findings, key: &str, message: &str) {
        if let Some((found, _)) = self.table.get_key_value(key) {
            let place = self.source.place(found.span().start);
            findings.error(place, &self.name(key), Wrong::new(message, ""));
        }
    }

    /// Ends the section: what was not asked for is an error. `refused` were reported already.
    pub fn end(self, findings: &mut Findings, refused: &[&str]) {
        for (key, _) in self.table.iter() {
            let name: &str = key.get_ref();
            if self.known.contains(&name) || refused.contains(&name) {
                continue;
            }
            let message = match nearest(name, self.known.iter().copied()) {
                Some(near) => format!("unknown option, did you mean `{near}`?"),
                None => "unknown option".to_owned(),
            };
            let place = self.source.place(key.span().start);
            findings.error(
                place,
                &self.name(name),
                Wrong::new(message, self.known.join(", ")),
            );
        }
    }
}

/// "this is a number, not …".
fn wrong_type(value: &Spanned<DeValue<'_>>, allowed: &str) -> Wrong {
    type_error(value.get_ref(), allowed)
}

/// A value of another type than `allowed` says.
pub fn type_error(value: &DeValue<'_>, allowed: &str) -> Wrong {
    Wrong::new(format!("is of type {}", value.type_str()), allowed)
}

/// A text.
pub fn text<'v>(value: &'v DeValue<'_>) -> Parsed<&'v str> {
    value
        .as_str()
        .ok_or_else(|| type_error(value, "a text in quotes"))
}

/// A whole number in a range.
pub fn whole(value: &DeValue<'_>, range: RangeInclusive<u64>) -> Parsed<u64> {
    let allowed = || format!("a whole number from {} to {}", range.start(), range.end());
    let Some(integer) = value.as_integer() else {
        return Err(type_error(value, &allowed()));
    };
    match i128::from_str_radix(integer.as_str(), integer.radix()).map(u64::try_from) {
        Ok(Ok(number)) if range.contains(&number) => Ok(number),
        _ => Err(Wrong::new(format!("{integer} is out of range"), allowed())),
    }
}

/// Yes or no.
pub fn boolean(value: &DeValue<'_>) -> Parsed<bool> {
    let boolean = value.as_bool();
    boolean.ok_or_else(|| type_error(value, "true or false"))
}

/// One of a few whole numbers.
pub fn one_of(value: &DeValue<'_>, choices: &[u64]) -> Parsed<u64> {
    let allowed = choices
        .iter()
        .map(u64::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    whole(value, 0..=u64::MAX)
        .ok()
        .filter(|number| choices.contains(number))
        .ok_or_else(|| Wrong::new(format!("{} is not a choice", shown(value)), allowed))
}

/// One of a few words, each with what it stands for.
pub fn choice<T: Copy>(value: &DeValue<'_>, choices: &[(&str, T)]) -> Parsed<T> {
    let text = text(value)?;
    let chosen = choices.iter().find(|(word, _)| *word == text);
    chosen.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let words: Vec<_> = choices
            .iter()
            .map(|(word, _)| format!("{word:?}"))
            .collect();
        Wrong::new(format!("`{text}` is not a choice"), words.join(", "))
    })
}

/// An absolute path.
pub fn absolute_path(value: &DeValue<'_>) -> Parsed<PathBuf> {
    let text = text(value)?;
    match Path::new(text).is_absolute() {
        true => Ok(PathBuf::from(text)),
        false => Err(Wrong::new(
            format!("`{text}` is not absolute"),
            "a path that begins with /",
        )),
    }
}

/// A number that may have a fraction.
pub fn number(value: &DeValue<'_>, allowed: &str) -> Parsed<f64> {
    let parsed = match value {
        DeValue::Float(float) => float.as_str().parse().ok(),
        DeValue::Integer(_) => whole(value, 0..=u64::MAX).ok().map(|whole| whole as f64),
        _ => return Err(type_error(value, allowed)),
    };
    parsed
        .filter(|number: &f64| number.is_finite())
        .ok_or_else(|| Wrong::new(format!("{} is out of range", shown(value)), allowed))
}

/// A value as it stands in a message.
pub fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("`{text}`"),
        DeValue::Integer(integer) => integer.to_string(),
        DeValue::Float(float) => float.to_string(),
        DeValue::Boolean(boolean) => boolean.to_string(),
        other => format!("this {}", other.type_str()),
    }
}

/// The known name closest to a wrong one, if close enough to be meant.
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = known.into_iter().map(|name| (edits(wrong, name), name));
    let (distance, name) = near.min()?;
    (distance <= 2.max(name.len() / 3)).then_some(name)
}

/// Levenshtein distance in bytes; wrong names are short.
fn edits(a: &str, b: &str) -> usize {
    let (a, b) = (&a.as_bytes()[..a.len().min(64)], b.as_bytes());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distances() {
        let check = |a, b, expected| assert_eq!(edits(a, b), expected, "{a} {b}");
        check("", "abc", 3);
        check("abc", "abc", 0);
        check("abc", "acb", 2);
        check("lenght_ms", "length_ms", 2);
        check("brokres", "brokers", 2);
    }

    #[test]
    fn suggestions_are_near_or_absent() {
        assert_eq!(nearest("rat", ["rate", "name"]), Some("rate"));
        assert_eq!(
            nearest("walk_interval", ["walk_interval_ms", "length_ms"]),
            Some("walk_interval_ms")
        );
        assert_eq!(nearest("zebra", ["rate", "name"]), None);
        assert_eq!(nearest("x", []), None);
    }
}
