//! Tables of names and short texts: labels, annotations.

use std::collections::BTreeMap;

use toml::de::DeValue;

use super::error::{Findings, Wrong};
use super::names::{self, MAX_ANNOTATIONS, MAX_LABELS};
use super::reader::{Parsed, Section, number, type_error, whole};

/// What may stand in a table of texts.
struct Kind {
    /// One entry, for messages.
    singular: &'static str,
    /// Most entries.
    most: usize,
    name: fn(&str) -> Parsed<String>,
    value: fn(&str) -> Parsed<String>,
}

const LABELS: Kind = Kind {
    singular: "label",
    most: MAX_LABELS,
    name: names::label_name,
    value: names::label_value,
};

const ANNOTATIONS: Kind = Kind {
    singular: "annotation",
    most: MAX_ANNOTATIONS,
    name: names::annotation_name,
    value: names::annotation_value,
};

/// Labels; `owner` is what has them, for messages.
pub fn labels(
    section: Section<'_>,
    owner: &str,
    findings: &mut Findings,
) -> BTreeMap<String, String> {
    read(section, &LABELS, owner, findings)
}

/// Annotations; `owner` is what has them, for messages.
pub fn annotations(
    section: Section<'_>,
    owner: &str,
    findings: &mut Findings,
) -> BTreeMap<String, String> {
    read(section, &ANNOTATIONS, owner, findings)
}

fn read(
    section: Section<'_>,
    kind: &Kind,
    owner: &str,
    findings: &mut Findings,
) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    let table = section.path();
    for (at, (key_place, key, value_place, value)) in section.entries().enumerate() {
        let option = format!("{table}.{key}");
        if at == kind.most {
            let wrong = Wrong::new(
                format!("is one {} too many", kind.singular),
                format!("at most {} a {owner}", kind.most),
            );
            findings.error(key_place, &option, wrong);
            break;
        }
        let name = (kind.name)(key);
        let value = as_text(value).and_then(|value| (kind.value)(&value));
        match (name, value) {
            (Ok(name), Ok(value)) => drop(texts.insert(name, value)),
            (name, value) => {
                for (place, wrong) in [(key_place, name.err()), (value_place, value.err())] {
                    if let Some(wrong) = wrong {
                        findings.error(place, &option, wrong);
                    }
                }
            }
        }
    }
    texts
}

/// Numbers are taken as they are written: `tier = 1` is the label `1`.
fn as_text(value: &DeValue<'_>) -> Parsed<String> {
    match value {
        DeValue::Integer(_) => whole(value, 0..=u64::MAX).map(|number| number.to_string()),
        DeValue::Float(_) => number(value, "a text").map(|number| number.to_string()),
        DeValue::Boolean(boolean) => Ok(boolean.to_string()),
        DeValue::String(text) => Ok(text.to_string()),
        other => Err(type_error(other, "a text in quotes")),
    }
}
