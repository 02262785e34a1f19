//! Times, states and values as a report has them.

use crate::alert::State;

pub(crate) use crate::alert::content::number;

/// "28 s", "28.35 s".
pub fn seconds(ms: u64) -> String {
    match ms % 1_000 {
        0 => format!("{} s", ms / 1_000),
        _ => format!("{:.2} s", ms as f64 / 1_000.0),
    }
}

/// Where something stands.
pub const fn state(state: State) -> &'static str {
    match state {
        State::Ok => "ok",
        State::Pending => "pending",
        State::Firing => "firing",
        State::Resolving => "resolving",
        State::Suspect => "suspect",
    }
}

/// From one to another.
pub fn range(least: String, most: String) -> String {
    match least == most {
        true => least,
        false => format!("{least} to {most}"),
    }
}
