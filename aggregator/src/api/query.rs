//! Parameters of requests, each with the words for what is wrong with it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::ApiError;

/// Points of a series at most.
pub const MAX_POINTS: u64 = 1_000;

/// The parameters of a request; those that nobody asks for are errors.
pub struct Parameters(BTreeMap<String, String>);

impl Parameters {
    /// From name and value pairs.
    ///
    /// # Errors
    /// If a name comes twice or is none of `known`.
    pub fn new(pairs: Vec<(String, String)>, known: &[&str]) -> Result<Self, ApiError> {
        let mut parameters = BTreeMap::new();
        for (name, value) in pairs {
            if !known.contains(&name.as_str()) {
                let known = known.join(", ");
                let message = format!("unknown parameter {name:?} (allowed: {known})");
                return Err(ApiError::BadRequest(message));
            }
            if parameters.insert(name.clone(), value).is_some() {
                return Err(ApiError::BadRequest(format!("{name} is given twice")));
            }
        }
        Ok(Self(parameters))
    }

    /// A text.
    ///
    /// # Errors
    /// If it is absent.
    pub fn text(&self, name: &str) -> Result<&str, ApiError> {
        let missing = || ApiError::BadRequest(format!("{name} is missing"));
        self.0.get(name).map(String::as_str).ok_or_else(missing)
    }

    /// A whole number in a range, if it is there.
    ///
    /// # Errors
    /// If it is no number, or out of range.
    pub fn number(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.0.get(name) else {
            return Ok(None);
        };
        let number = text.parse().ok().filter(|number| range.contains(number));
        let wrong = || {
            ApiError::BadRequest(format!(
                "{name}: {text:?} is not a whole number from {} to {}",
                range.start(),
                range.end()
            ))
        };
        number.map(Some).ok_or_else(wrong)
    }
}
