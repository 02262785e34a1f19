//! A file's text and its table.

use std::fs;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};
use toml::de::{DeTable, DeValue};

use super::error::{Findings, Wrong};
use super::reader::Section;
use super::source::Source;

/// Largest configuration file.
pub const MAX_FILE_BYTES: u64 = 8 << 20;
/// The text of a file, or why there is none.
pub fn read_text(file: &Path) -> Result<String, String> {
    let open = fs::File::open(file).map_err(|error| format!("cannot be read: {error}"))?;
    let mut text = Vec::new();
    open.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("is larger than {MAX_FILE_BYTES} bytes"));
    }
    String::from_utf8(text)
        .map_err(|error| format!("is not UTF-8 (byte {})", error.utf8_error().valid_up_to()))
}

/// A hash as 64 hex digits.
pub fn hex(sha256: &[u8; 32]) -> String {
    sha256.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads the table of a whole file; syntax errors are findings. `hash` takes what the file says, not how it is written: comments,
/// spaces and the order of options make no difference.
pub fn with_table(
    source: &Source,
    hash: &mut Sha256,
    findings: &mut Findings,
    read: impl FnOnce(Section<'_>, &mut Findings),
) {
    let (document, errors) = DeTable::parse_recoverable(source.text());
    for error in &errors {
        let at = error.span().map_or(0, |span| span.start);
        findings.error(source.place(at), "", Wrong::new(error.message(), ""));
    }
    // What follows a syntax error is a guess; only whole files are looked at further.
    if errors.is_empty() {
        hash.update(canonical_table(document.get_ref()));
        hash.update([0]);
        read(Section::new(source, document.get_ref(), "", 0..0), findings);
    }
}

/// A table without comments, spaces and order of options.
fn canonical_table(table: &DeTable<'_>) -> String {
    let mut entries: Vec<_> = table
        .iter()
        .map(|(key, value)| format!("{:?}={}", key.get_ref(), canonical(value.get_ref())))
        .collect();
    entries.sort();
    format!("{{{}}}", entries.join(","))
}

fn canonical(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(integer) => i128::from_str_radix(integer.as_str(), integer.radix())
            .map_or_else(|_| integer.to_string(), |number| number.to_string()),
        DeValue::Float(float) => float
            .as_str()
            .parse::<f64>()
            .map_or_else(|_| float.to_string(), |number| format!("{number:?}")),
        DeValue::Boolean(boolean) => boolean.to_string(),
        DeValue::Datetime(datetime) => datetime.to_string(),
        DeValue::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| canonical(item.get_ref())).collect();
            format!("[{}]", items.join(","))
        }
        DeValue::Table(table) => canonical_table(table),
    }
}
