//! What a parameter may be: one description, by which requests are checked and which the OpenAPI document shows.
//!
//! Input: the constants of an endpoint. Output: the value of one parameter or the words for what is wrong with it; its part of the
//! document. Limits: names of [`MAX_NAME_BYTES`]; numbers in the range that the parameter has.

use std::ops::RangeInclusive;

use service::config::names::{self, MAX_NAME_BYTES};
use utoipa::Number;
use utoipa::openapi::path::{Parameter as Documented, ParameterBuilder, ParameterIn};
use utoipa::openapi::{ObjectBuilder, Required, Type};

use super::ApiError;

/// A parameter of the path or of the query.
#[derive(Debug)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// What it means, one sentence.
    pub about: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// Whether it must be there; those of a path always are.
    pub required: bool,
}

/// What a parameter may be.
#[derive(Debug)]
pub enum Kind {
    /// A whole number.
    Whole {
        /// From, to.
        range: RangeInclusive<u64>,
        /// It must be a multiple of this.
        step: u64,
        /// Its value when it is absent, where that is a constant.
        default: Option<u64>,
    },
    /// One of these words.
    Word(&'static [&'static str]),
    /// A name as streams and sites have it.
    Name,
    /// The key of an alert: names of rule, site and stream with bars between.
    AlertKey,
    /// The id of an episode.
    EpisodeId,
}

/// Names are made of these; the contract's pattern.
const NAME_PATTERN: &str = "^[A-Za-z0-9._-]+$";
const ALERT_KEY_PATTERN: &str =
    r"^[A-Za-z0-9._-]{1,64}\|[A-Za-z0-9._-]{1,64}\|[A-Za-z0-9._-]{1,64}$";
const EPISODE_ID_PATTERN: &str = "^[0-9a-f]{16}$";

impl Parameter {
    /// Checks a value.
    ///
    /// # Errors
    /// In words, if it is not what it may be.
    pub(super) fn check(&self, text: &str) -> Result<(), ApiError> {
        let name = self.name;
        let wrong = |message: String| Err(ApiError::BadRequest(message));
        match &self.kind {
            Kind::Whole { range, step, .. } => {
                let Some(number) = whole(text).filter(|number| range.contains(number)) else {
                    let (least, most) = (range.start(), range.end());
                    return wrong(format!(
                        "{name}: {text:?} is not a whole number from {least} to {most}"
                    ));
                };
                match number % step {
                    0 => Ok(()),
                    _ => wrong(format!("{name}: {number} is not a multiple of {step}")),
                }
            }
            Kind::Word(words) if words.contains(&text) => Ok(()),
            Kind::Word(words) => wrong(format!("{name}: {text:?} is none of {}", words.join(", "))),
            Kind::Name => match names::name(text, MAX_NAME_BYTES) {
                Ok(_) => Ok(()),
                Err(error) => wrong(format!("{name}: {error}")),
            },
            Kind::AlertKey if is_alert_key(text) => Ok(()),
            Kind::AlertKey => wrong(format!("{name}: {text:?} is no rule|site|stream")),
            Kind::EpisodeId if is_episode_id(text) => Ok(()),
            Kind::EpisodeId => wrong(format!("{name}: {text:?} is no id of 16 hex digits")),
        }
    }

    /// Its part of the OpenAPI document.
    pub(super) fn documented(&self, place: ParameterIn) -> Documented {
        let in_path = place == ParameterIn::Path;
        let schema = match &self.kind {
            Kind::Whole {
                range,
                step,
                default,
            } => ObjectBuilder::new()
                .schema_type(Type::Integer)
                .minimum(Some(number(*range.start())))
                .maximum(Some(number(*range.end())))
                .multiple_of((*step > 1).then(|| number(*step)))
                .default(default.map(Into::into)),
            Kind::Word(words) => ObjectBuilder::new()
                .schema_type(Type::String)
                .enum_values(Some(words.iter().copied())),
            Kind::Name => ObjectBuilder::new()
                .schema_type(Type::String)
                .min_length(Some(1))
                .max_length(Some(MAX_NAME_BYTES))
                .pattern(Some(NAME_PATTERN)),
            Kind::AlertKey => ObjectBuilder::new()
                .schema_type(Type::String)
                .pattern(Some(ALERT_KEY_PATTERN)),
            Kind::EpisodeId => ObjectBuilder::new()
                .schema_type(Type::String)
                .pattern(Some(EPISODE_ID_PATTERN)),
        };
        ParameterBuilder::new()
            .name(self.name)
            .parameter_in(place)
            .description(Some(self.about))
            .required(match self.required || in_path {
                true => Required::True,
                false => Required::False,
            })
            .schema(Some(schema))
            .build()
    }
}

fn is_alert_key(text: &str) -> bool {
    let parts: Vec<_> = text.split('|').collect();
    let names = parts.iter();
    parts.len() == 3
        && names
            .map(|part| names::name(part, MAX_NAME_BYTES))
            .all(|name| name.is_ok())
}

fn is_episode_id(text: &str) -> bool {
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.len() == 16 && text.bytes().all(hex)
}

fn number(value: u64) -> Number {
    Number::UInt(usize::try_from(value).unwrap_or(usize::MAX))
}

/// Digits only: what Rust takes besides, such as a plus sign, is no number to others.
pub(super) fn whole(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: Parameter = Parameter {
        name: "step_ms",
        about: "",
        kind: Kind::Whole {
            range: 1_000..=9_000,
            step: 1_000,
            default: None,
        },
        required: false,
    };

    fn check(parameter: &Parameter, text: &str, expected: &str) {
        let said = match parameter.check(text) {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        };
        assert_eq!(said, expected);
    }

    #[test]
    fn numbers() {
        check(&STEPS, "1000", "");
        check(&STEPS, "9000", "");
        check(&STEPS, "1500", "step_ms: 1500 is not a multiple of 1000");
        for text in [
            "0",
            "9001",
            "-1",
            "+1000",
            "1e3",
            "1000.0",
            "",
            " 1000",
            "1\0",
            "18446744073709551616",
        ] {
            let expected = format!("step_ms: {text:?} is not a whole number from 1000 to 9000");
            check(&STEPS, text, &expected);
        }
    }

    #[test]
    fn words_and_names() {
        let word = Parameter {
            kind: Kind::Word(&["a", "b"]),
            ..STEPS
        };
        check(&word, "b", "");
        check(&word, "c", "step_ms: \"c\" is none of a, b");
        let name = Parameter {
            kind: Kind::Name,
            ..STEPS
        };
        check(&name, "sport-1", "");
        for text in ["", "a/b", "\0", "ä", &"a".repeat(65)] {
            assert!(name.check(text).is_err(), "{text}");
        }
        for (text, good) in [
            ("r|ams1|sport-1", true),
            ("r|ams1", false),
            ("r||s", false),
            ("r|a|b|c", false),
        ] {
            assert_eq!(is_alert_key(text), good, "{text}");
        }
        for (text, good) in [
            ("00ff00ff00ff00ff", true),
            ("00FF00ff00ff00ff", false),
            ("00ff", false),
        ] {
            assert_eq!(is_episode_id(text), good, "{text}");
        }
    }
}
