//! What the environment says to a test.

/// A number that makes a short run long, or one run like another.
///
/// # Panics
/// When something else is there: a wish is not to be passed over.
#[must_use]
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| match text.parse() {
        Ok(number) => number,
        Err(_) => panic!("{name} is {text:?}, and not a whole number"),
    })
}
