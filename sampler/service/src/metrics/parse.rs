//! Reads the text exposition back, strictly. Pure.
//!
//! Input: text of version 0.0.4. Output: types by family, samples with labels. What does not follow the format is an
//! error with its line: a sample before its TYPE, a name or label that is none, a family in two places.

use std::collections::BTreeMap;

/// Why a text is no exposition.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ParseError {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: &'static str,
}

/// A text that was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    /// Type by family name.
    pub kinds: BTreeMap<String, String>,
    /// Help by family name.
    pub helps: BTreeMap<String, String>,
    /// Samples in order.
    pub samples: Vec<ParsedSample>,
}

/// A sample that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct ParsedSample {
    /// Name, with `_bucket`, `_sum` or `_count`.
    pub name: String,
    /// Family that it belongs to.
    pub family: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: f64,
}

impl Parsed {
    /// Samples of one name.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a ParsedSample> {
        self.samples
            .iter()
            .filter(move |sample| sample.name == name)
    }

    /// The value of the first sample with that name.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.named(name).next().map(|sample| sample.value)
    }
}

/// Reads a text.
pub fn parse(text: &str) -> Result<Parsed, ParseError> {
    let mut parsed = Parsed::default();
    let mut open = String::new();
    if !text.is_empty() && !text.ends_with('\n') {
        return Err(ParseError {
            line: text.lines().count(),
            message: "the last line does not end",
        });
    }
    for (index, line) in text.lines().enumerate() {
        let fail = |message| ParseError {
            line: index + 1,
            message,
        };
        let outcome = match line.strip_prefix('#') {
            Some(comment) => comment_line(comment, &mut parsed, &mut open),
            None if line.is_empty() => Ok(()),
            None => {
                sample_line(line, &open, &parsed.kinds).map(|sample| parsed.samples.push(sample))
            }
        };
        outcome.map_err(fail)?;
    }
    Ok(parsed)
}

fn comment_line(comment: &str, parsed: &mut Parsed, open: &mut String) -> Result<(), &'static str> {
    let mut words = comment.trim_start().splitn(3, ' ');
    let (word, name, rest) = (
        words.next(),
        words.next().unwrap_or(""),
        words.next().unwrap_or(""),
    );
    match word {
        Some("HELP") => {
            let new = parsed
                .helps
                .insert(name.to_owned(), rest.to_owned())
                .is_none();
            if new {
                Ok(())
            } else {
                Err("a second HELP of one family")
            }
        }
        Some("TYPE") => {
            if !matches!(
                rest,
                "counter" | "gauge" | "summary" | "histogram" | "untyped"
            ) {
                return Err("no such type");
            }
            if !is_name(name) {
                return Err("no metric name");
            }
            name.clone_into(open);
            let new = parsed
                .kinds
                .insert(name.to_owned(), rest.to_owned())
                .is_none();
            if new {
                Ok(())
            } else {
                Err("a second TYPE of one family")
            }
        }
        _ => Ok(()),
    }
}

fn sample_line(
    line: &str,
    open: &str,
    kinds: &BTreeMap<String, String>,
) -> Result<ParsedSample, &'static str> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, rest) = line.split_at(end);
    if !is_name(name) {
        return Err("no metric name");
    }
    let suffix = name
        .strip_prefix(open)
        .ok_or("a sample outside its family")?;
    let fits = match kinds.get(open).map(String::as_str) {
        Some("histogram") => matches!(suffix, "_bucket" | "_sum" | "_count"),
        Some("summary") => matches!(suffix, "" | "_sum" | "_count"),
        Some(_) => suffix.is_empty(),
        None => false,
    };
    if !fits {
        return Err("a sample outside its family");
    }
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = value.strip_prefix(' ').ok_or("no space before the value")?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        "NaN" => f64::NAN,
        number if number.starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
            number.parse().map_err(|_| "no number")?
        }
        _ => return Err("no number"),
    };
    Ok(ParsedSample {
        name: name.to_owned(),
        family: open.to_owned(),
        labels,
        value,
    })
}

/// Labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Result<(BTreeMap<String, String>, &str), &'static str> {
    let mut labels = BTreeMap::new();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        let (name, after) = rest.split_once("=\"").ok_or("no label value")?;
        if !is_name(name) || name.contains(':') {
            return Err("no label name");
        }
        let (value, after) = quoted(after)?;
        if labels.insert(name.to_owned(), value).is_some() {
            return Err("a label twice");
        }
        rest = after;
        if let Some(after) = rest.strip_prefix(',') {
            rest = after;
        } else if !rest.starts_with('}') {
            return Err("no comma between labels");
        }
    }
}

/// A label value up to its closing quote, and what follows it.
fn quoted(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => value.push(match characters.next() {
                Some((_, 'n')) => '\n',
                Some((_, escaped @ ('"' | '\\'))) => escaped,
                _ => return Err("no such escape"),
            }),
            other => value.push(other),
        }
    }
    Err("a label value does not end")
}

fn is_name(name: &str) -> bool {
    let first = name
        .chars()
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_' || c == ':');
    first
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_right() {
        let text = "# HELP a_total Help \\n text.\n# TYPE a_total counter\na_total{x=\"1,}\\\"\\\\\\n\",y=\"\"} 5\na_total 1e3\n\
                    # a remark\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_sum -0.5\nh_count 1\n";
        let parsed = parse(text).expect("reads");
        assert_eq!(parsed.samples[0].labels["x"], "1,}\"\\\n");
        assert_eq!(parsed.samples[1].value, 1000.0);
        assert_eq!(
            (parsed.value("h_sum"), parsed.samples[2].family.as_str()),
            (Some(-0.5), "h")
        );
    }

    #[test]
    fn refuses_what_is_wrong() {
        for (text, message) in [
            ("a 1\n", "a sample outside its family"),
            ("# TYPE a gauge\nb 1\n", "a sample outside its family"),
            ("# TYPE a gauge\na_sum 1\n", "a sample outside its family"),
            ("# TYPE a gauge\na 1", "the last line does not end"),
            ("# TYPE a gauge\na one\n", "no number"),
            ("# TYPE a gauge\na inf\n", "no number"),
            ("# TYPE a gauge\na{x=\"1\",x=\"2\"} 1\n", "a label twice"),
            (
                "# TYPE a gauge\na{x=\"1\"y=\"2\"} 1\n",
                "no comma between labels",
            ),
            ("# TYPE a gauge\na{x=\"1} 1\n", "a label value does not end"),
            ("# TYPE a gauge\na{x=\"\\t\"} 1\n", "no such escape"),
            ("# TYPE a gauge\na{9=\"1\"} 1\n", "no label name"),
            ("# TYPE a thing\n", "no such type"),
            (
                "# TYPE a gauge\n# TYPE a gauge\n",
                "a second TYPE of one family",
            ),
        ] {
            assert_eq!(parse(text).expect_err(text).message, message, "{text}");
        }
    }
}
