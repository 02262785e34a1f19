//! When a rule is in force: a beginning and a length, as `2026-11-22T19:45:00Z/PT3H`.
//!
//! Times are those of RFC 3339, lengths those of ISO 8601 up to weeks: months and years have no fixed length.

use jiff::{SpanRelativeTo, Timestamp};
use service::config::Wrong;

use crate::alert::Active;

const ALLOWED: &str = "a time with its zone, a slash and a length of at most 366 days, for example \
     2026-11-22T19:45:00Z/PT3H or 2026-11-22T20:45:00+01:00/P1DT12H";
/// Longest interval: an event, not a rule for good.
const MAX_MS: u64 = 366 * 24 * 3_600_000;

/// Reads one.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse(text: &str) -> Result<Active, Wrong> {
    let wrong = |message: String| Wrong::new(message, ALLOWED);
    let (begin, length) = text.split_once('/').ok_or_else(|| {
        wrong(format!(
            "`{text}` has no slash between beginning and length"
        ))
    })?;
    let begin_ms = time_ms(begin)
        .ok_or_else(|| wrong(format!("`{begin}` is not a time of RFC 3339 after 1970")))?;
    let length_ms = length_ms(length)
        .ok_or_else(|| wrong(format!("`{length}` is not a length of ISO 8601")))?;
    if !(1..=MAX_MS).contains(&length_ms) {
        return Err(wrong(format!("`{length}` is out of range")));
    }
    Ok(Active {
        begin_ms,
        end_ms: begin_ms.saturating_add(length_ms),
    })
}

/// A time of RFC 3339 with its zone, Unix ms. jiff also takes a blank for the T, hours without minutes and a zone in brackets: more
/// than the options promise.
pub(crate) fn time_ms(text: &str) -> Option<u64> {
    let is_rfc3339 = text.len() >= "2026-11-22T19:45:00Z".len()
        && text.get(10..11) == Some("T")
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || b"-:.+TZ".contains(&b));
    let at = is_rfc3339.then(|| text.parse::<Timestamp>().ok())??;
    u64::try_from(at.as_millisecond()).ok()
}

/// jiff also takes `3h` and signs.
fn length_ms(text: &str) -> Option<u64> {
    let is_iso8601 = text.starts_with('P')
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || b"PTWDHMS.".contains(&b));
    let span = is_iso8601.then(|| text.parse::<jiff::Span>().ok())??;
    if span.get_years() != 0 || span.get_months() != 0 {
        return None;
    }
    let days = SpanRelativeTo::days_are_24_hours();
    let length = span.to_duration(days).ok()?;
    u64::try_from(length.as_millis()).ok()
}

/// Both ends in UTC.
pub fn in_words(active: Active) -> String {
    format!("from {} to {}", utc(active.begin_ms), utc(active.end_ms))
}

fn utc(at_ms: u64) -> String {
    let at = i64::try_from(at_ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok());
    at.map_or_else(|| format!("{at_ms} ms"), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn spans(text: &str, begin_ms: u64, length_ms: u64) {
        let expected = Active {
            begin_ms,
            end_ms: begin_ms + length_ms,
        };
        assert_eq!(parse(text), Ok(expected), "{text}");
    }

    /// `date -ud 2026-11-22T19:45:00Z +%s`
    const BEGIN_MS: u64 = 1_795_376_700_000;
    const HOUR_MS: u64 = 3_600_000;

    #[test]
    fn beginnings_and_lengths() {
        spans("2026-11-22T19:45:00Z/PT3H", BEGIN_MS, 3 * HOUR_MS);
        spans("2026-11-22T20:45:00+01:00/PT3H", BEGIN_MS, 3 * HOUR_MS);
        spans("2026-11-22T14:15:00-05:30/PT90M", BEGIN_MS, HOUR_MS * 3 / 2);
        spans("2026-11-22T19:45:00.250Z/PT1.5S", BEGIN_MS + 250, 1_500);
        spans("2026-11-22T19:45:00Z/P1DT12H", BEGIN_MS, 36 * HOUR_MS);
        spans("2026-11-22T19:45:00Z/P2W", BEGIN_MS, 14 * 24 * HOUR_MS);
        spans("2028-02-29T00:00:00Z/PT1S", 1_835_395_200_000, 1_000);
        spans("1970-01-01T00:00:00Z/P366D", 0, MAX_MS);
    }

    #[test]
    fn what_is_none() {
        let check = |text: &str, expected: &str| {
            let wrong = parse(text).expect_err(text);
            assert!(
                wrong.message.contains(expected),
                "{text}: {}",
                wrong.message
            );
        };
        check("", "has no slash");
        check("2026-11-22T19:45:00Z", "has no slash");
        for begin in [
            "",
            "2026-11-22",
            "2026-11-22T19:45:00",
            "2026-11-22T19Z",
            "2026-11-22 19:45:00Z",
            "2026-11-31T19:45:00Z",
            "2027-02-29T19:45:00Z",
            "2026-11-22T25:45:00Z",
            "1969-12-31T23:59:59Z",
            "2026-11-22T19:45:00+01:00[Europe/Amsterdam]",
            "19:45:00Z",
            "éééééééééééééééééééé",
        ] {
            check(&format!("{begin}/PT3H"), "is not a time of RFC 3339");
        }
        for length in [
            "",
            "P",
            "PT",
            "3h",
            "-PT3H",
            "P1M",
            "P1Y",
            "PT3",
            "P3H",
            "PT3H/PT1H",
        ] {
            check(
                &format!("2026-11-22T19:45:00Z/{length}"),
                "is not a length of ISO 8601",
            );
        }
        for length in ["PT0S", "P367D", "PT0.0001S"] {
            check(&format!("2026-11-22T19:45:00Z/{length}"), "is out of range");
        }
    }

    #[test]
    fn both_ends_are_said() {
        let active = parse("2026-11-22T19:45:00Z/PT1S").expect("right");
        assert_eq!(
            in_words(active),
            "from 2026-11-22T19:45:00Z to 2026-11-22T19:45:01Z"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[-0-9TZPDHMSWY:+./é \\[\\]]{0,48}|2026-1[0-9]-[0-9]{2}T[0-9:.]{2,9}[Z+-]/P[0-9TDHMSW.]{0,40}") {
            if let Ok(active) = parse(&text) {
                proptest::prop_assert!(active.begin_ms < active.end_ms);
            }
        }
    }
}
