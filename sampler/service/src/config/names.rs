//! Names that leave the node: of streams, nodes, sites, labels.
//!
//! They become Kafka keys, Prometheus labels and parts of store keys, so they are short and of
//! few characters.

use super::error::Wrong;

/// Longest stream or site name, bytes.
pub const MAX_NAME_BYTES: usize = 64;
/// Longest node name, bytes: a host name in full.
pub const MAX_NODE_BYTES: usize = 253;
/// Longest label name, bytes.
pub const MAX_LABEL_NAME_BYTES: usize = 64;
/// Longest label value, bytes.
pub const MAX_LABEL_VALUE_BYTES: usize = 128;
/// Labels of one stream or alert.
pub const MAX_LABELS: usize = 16;
/// Longest annotation value, bytes.
pub const MAX_ANNOTATION_VALUE_BYTES: usize = 4096;
/// Annotations of one alert.
pub const MAX_ANNOTATIONS: usize = 16;

/// Labels that the product sets itself.
const OWN_LABELS: [&str; 12] = [
    "alertname",
    "cause",
    "instance",
    "job",
    "le",
    "node",
    "quantile",
    "reason",
    "rule",
    "severity",
    "site",
    "stream",
];

/// A name of at most `max_bytes` from `[A-Za-z0-9._-]`.
pub fn name(text: &str, max_bytes: usize) -> Result<String, Wrong> {
    let wrong = |message: String| {
        Wrong::new(
            message,
            format!("1 to {max_bytes} characters of A-Z a-z 0-9 . _ -"),
        )
    };
    if text.is_empty() {
        return Err(wrong("the name is empty".to_owned()));
    }
    if text.len() > max_bytes {
        return Err(wrong(format!("the name is {} bytes long", text.len())));
    }
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match text.chars().find(|c| !good(*c)) {
        Some(bad) => Err(wrong(format!("{text:?} has the character {bad:?}"))),
        None => Ok(text.to_owned()),
    }
}

/// A label name as Prometheus takes it, and none of our own.
pub fn label_name(text: &str) -> Result<String, Wrong> {
    let wrong = |message: String| {
        let allowed = format!(
            "a letter or _, then letters, digits, _; at most {MAX_LABEL_NAME_BYTES} bytes; \
             not beginning with __; none of {}",
            OWN_LABELS.join(", ")
        );
        Wrong::new(message, allowed)
    };
    if !has_label_form(text) {
        return Err(wrong(format!("{text:?} is not a label name")));
    }
    if text.starts_with("__") || OWN_LABELS.contains(&text) {
        return Err(wrong(format!("the label name `{text}` is taken")));
    }
    Ok(text.to_owned())
}

/// An annotation's name: it has the form of a label's.
pub fn annotation_name(text: &str) -> Result<String, Wrong> {
    match has_label_form(text) {
        true => Ok(text.to_owned()),
        false => Err(Wrong::new(
            format!("{text:?} is not an annotation name"),
            format!("a letter or _, then letters, digits, _; at most {MAX_LABEL_NAME_BYTES} bytes"),
        )),
    }
}

fn has_label_form(text: &str) -> bool {
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let ends_well = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    starts_well && ends_well && text.len() <= MAX_LABEL_NAME_BYTES
}

/// An annotation's value: a text for a person, also of several lines.
pub fn annotation_value(text: &str) -> Result<String, Wrong> {
    let is_odd = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if text.len() > MAX_ANNOTATION_VALUE_BYTES || text.chars().any(is_odd) {
        return Err(Wrong::new(
            "is not an annotation value",
            format!(
                "at most {MAX_ANNOTATION_VALUE_BYTES} bytes without control characters but line ends and tabs"
            ),
        ));
    }
    Ok(text.to_owned())
}

/// A label value: short, printable.
pub fn label_value(text: &str) -> Result<String, Wrong> {
    if text.len() > MAX_LABEL_VALUE_BYTES || text.chars().any(char::is_control) {
        return Err(Wrong::new(
            format!("{text:?} is not a label value"),
            format!("at most {MAX_LABEL_VALUE_BYTES} bytes without control characters"),
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let check = |text: &str, good: bool| assert_eq!(name(text, 64).is_ok(), good, "{text}");
        check("sport-1", true);
        check("a.b_C-9", true);
        check("", false);
        check("sport 1", false);
        check("sport|1", false);
        check("é", false);
        check(&"x".repeat(64), true);
        check(&"x".repeat(65), false);
    }

    #[test]
    fn labels() {
        let check = |text: &str, good: bool| assert_eq!(label_name(text).is_ok(), good, "{text}");
        check("customer", true);
        check("_tier2", true);
        check("2tier", false);
        check("tier-2", false);
        check("__name__", false);
        check("stream", false);
        check("", false);
        check(&"x".repeat(65), false);
        assert!(label_value("acme ü").is_ok());
        assert!(label_value("a\nb").is_err());
        assert!(label_value(&"x".repeat(129)).is_err());
    }

    #[test]
    fn annotations() {
        let check =
            |text: &str, good: bool| assert_eq!(annotation_name(text).is_ok(), good, "{text}");
        check("runbook_url", true);
        check("stream", true);
        check("run-book", false);
        check("", false);
        assert!(annotation_value("a\n\tb").is_ok());
        assert!(annotation_value("a\u{7}b").is_err());
        assert!(annotation_value(&"x".repeat(4096)).is_ok());
        assert!(annotation_value(&"x".repeat(4097)).is_err());
    }
}
