//! The notation of a series: what changes from window to window, written so that a person sees it.
//!
//! Input: `"8*60 80+10*5 8"`: 60 windows with 8, five that begin with 80 and rise by 10 each, then 8 for as long as the test lasts. Words have
//! no steps: `"data*60 gone*20 data"`. A plain number is a series of one. Limits: [`MAX_WINDOWS`].

use std::ops::RangeInclusive;

use service::config::Wrong;
use service::config::reader::{Parsed, shown, type_error};
use toml::de::DeValue;

/// Windows that a series can name: a day of seconds.
pub const MAX_WINDOWS: usize = 86_400;

const NUMBERS: &str = "a number, or numbers with blanks between them, each with * and for how many windows, and + or - and a step if it \
     changes: \"8*60 80+10*5 8\"; the last one goes on";
const WORDS: &str = "each with * and for how many windows; the last one goes on";

/// One value per window; the last one goes on.
#[derive(Clone, Debug, PartialEq)]
pub struct Series<T>(Vec<T>);

impl<T: Copy> Series<T> {
    /// The same for ever.
    pub fn constant(value: T) -> Self {
        Self(vec![value])
    }

    /// The value of a window.
    pub fn at(&self, window: usize) -> T {
        self.0[window.min(self.0.len() - 1)]
    }
}

/// Reads numbers.
///
/// # Errors
/// What is wrong with them.
pub fn numbers(value: &DeValue<'_>, range: RangeInclusive<f64>) -> Parsed<Series<f64>> {
    let text = match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(_) | DeValue::Float(_) => shown(value),
        _ => return Err(type_error(value, NUMBERS)),
    };
    let mut series = Vec::new();
    for item in text.split_whitespace() {
        let wrong = |why: &str| Wrong::new(format!("`{item}` {why}"), NUMBERS);
        let (value, count) = repeats(item).ok_or_else(|| wrong("has no number after *"))?;
        let (first, step) = steps(value).ok_or_else(|| wrong("is not a number"))?;
        room(&series, count)?;
        for number in 0..count {
            let value = first + step * number as f64;
            if !range.contains(&value) {
                let (least, most) = (range.start(), range.end());
                let message = format!("`{item}` comes to {value}");
                return Err(Wrong::new(
                    message,
                    format!("numbers from {least} to {most}"),
                ));
            }
            series.push(value);
        }
    }
    whole(series, NUMBERS)
}

/// Reads words, each with what it stands for.
///
/// # Errors
/// What is wrong with them.
pub fn words<T: Copy>(value: &DeValue<'_>, choices: &[(&str, T)]) -> Parsed<Series<T>> {
    let text = service::config::reader::text(value)?;
    let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
    let allowed = format!("{}: {WORDS}", names.join(", "));
    let mut series = Vec::new();
    for item in text.split_whitespace() {
        let found = repeats(item).and_then(|(word, count)| {
            let choice = choices.iter().find(|(name, _)| *name == word)?;
            Some((choice.1, count))
        });
        let (meaning, count) =
            found.ok_or_else(|| Wrong::new(format!("`{item}` is not a choice"), &*allowed))?;
        room(&series, count)?;
        series.extend(std::iter::repeat_n(meaning, count));
    }
    whole(series, &allowed)
}

fn room<T>(series: &[T], count: usize) -> Result<(), Wrong> {
    match series.len().saturating_add(count) <= MAX_WINDOWS {
        true => Ok(()),
        false => Err(Wrong::new(
            "names too many windows",
            format!("at most {MAX_WINDOWS}"),
        )),
    }
}

fn whole<T>(series: Vec<T>, allowed: &str) -> Parsed<Series<T>> {
    match series.is_empty() {
        true => Err(Wrong::new("names no window", allowed)),
        false => Ok(Series(series)),
    }
}

/// "8*60": what, and how often.
fn repeats(item: &str) -> Option<(&str, usize)> {
    let Some((value, count)) = item.split_once('*') else {
        return Some((item, 1));
    };
    let count = count.parse().ok().filter(|count| *count > 0)?;
    Some((value, count))
}

/// "80+10": where it begins, and by how much it changes.
fn steps(value: &str) -> Option<(f64, f64)> {
    let number = |text: &str| {
        let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        plain.then(|| text.parse::<f64>().ok())?
    };
    match value.find(['+', '-']) {
        None => Some((number(value)?, 0.0)),
        Some(at) => {
            let step = number(&value[at + 1..])?;
            let falls = value.as_bytes()[at] == b'-';
            Some((number(&value[..at])?, if falls { -step } else { step }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<f64>, String> {
        let series = numbers(&DeValue::String(text.into()), 0.0..=1_000.0);
        series.map(|series| series.0).map_err(|wrong| wrong.message)
    }

    #[test]
    fn numbers_repeat_and_change() {
        assert_eq!(read("7"), Ok(vec![7.0]));
        assert_eq!(
            read("8*2 80+10*3 0.5"),
            Ok(vec![8.0, 8.0, 80.0, 90.0, 100.0, 0.5])
        );
        assert_eq!(read(" 4-2*3 "), Ok(vec![4.0, 2.0, 0.0]));
        let series = Series(vec![1, 2]);
        assert_eq!([0, 1, 2, 99].map(|window| series.at(window)), [1, 2, 2, 2]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, message) in [
            ("", "names no window"),
            ("x", "`x` is not a number"),
            ("8*", "`8*` has no number after *"),
            ("8*0", "`8*0` has no number after *"),
            ("8*x", "`8*x` has no number after *"),
            ("1e3", "`1e3` is not a number"),
            ("-1", "`-1` is not a number"),
            ("1-1*3", "`1-1*3` comes to -1"),
            ("9999", "`9999` comes to 9999"),
            ("1*86400 1", "names too many windows"),
            (
                "1*99999999999999999999",
                "`1*99999999999999999999` has no number after *",
            ),
        ] {
            assert_eq!(read(text), Err(message.to_owned()), "{text}");
        }
    }

    #[test]
    fn words_repeat() {
        let read = |text: &str| {
            let text = DeValue::String(text.to_owned().into());
            words(&text, &[("up", 1), ("gone", 2)]).map(|series| series.0)
        };
        assert_eq!(read("up*2 gone"), Ok(vec![1, 1, 2]));
        let wrong = read("up down*3").expect_err("no such word");
        assert_eq!(wrong.message, "`down*3` is not a choice");
        assert!(wrong.allowed.starts_with("up, gone: "), "{}", wrong.allowed);
        assert!(read("").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[0-9x*+. -]{0,24}") {
            let _ = read(&text);
        }
    }
}
