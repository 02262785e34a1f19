//! What client and daemon say to each other: one line of JSON each way.

use serde::{Deserialize, Serialize};

/// The shortest time for which a rate can be set.
pub const MIN_FOR_MS: u64 = 1_000;
/// The longest: what is to hold for more than a day belongs in the configuration.
pub const MAX_FOR_MS: u64 = 24 * 3_600_000;

/// Who is at the other end, as the kernel says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// User.
    pub uid: u32,
    /// Process; 0: not known.
    pub pid: i32,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// A rate for new flows of a stream, for a while.
    Set {
        /// Its name.
        stream: String,
        /// 0 to 1.
        rate: f64,
        /// [`MIN_FOR_MS`] to [`MAX_FOR_MS`].
        for_ms: u64,
    },
    /// The configured rate again, now.
    Unset {
        /// Its name.
        stream: String,
    },
    /// What is set.
    List,
}

/// A rate that is set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Overridden {
    /// Name of the stream.
    pub stream: String,
    /// What was asked for.
    pub rate: f64,
    /// What the configuration says.
    pub configured_rate: f64,
    /// At which new flows are selected: less than `rate` while rates are halved.
    pub new_flows_rate: f64,
    /// Time left.
    pub left_ms: u64,
    /// When it ends, Unix time.
    pub until_ms: u64,
    /// Who asked.
    pub by: Peer,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// It is done; all that is set now.
    Overrides(Vec<Overridden>),
    /// It is not done.
    Refused(Refusal),
}

/// Why something is not done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// For a person.
    pub message: String,
    /// One of [`service::exit`], for the client.
    pub code: u8,
}

impl Answer {
    /// It is not done.
    pub fn refused(code: u8, message: impl Into<String>) -> Self {
        Self::Refused(Refusal {
            message: message.into(),
            code,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_what_scripts_may_hold_on_to() {
        let request = Request::Set {
            stream: "sport-1".into(),
            rate: 0.5,
            for_ms: 900_000,
        };
        let line = r#"{"do":"set","stream":"sport-1","rate":0.5,"for_ms":900000}"#;
        assert_eq!(serde_json::to_string(&request).expect("writes"), line);
        assert_eq!(
            serde_json::from_str::<Request>(line).expect("reads"),
            request
        );
        assert_eq!(
            serde_json::to_string(&Answer::refused(2, "no")).expect("writes"),
            r#"{"refused":{"message":"no","code":2}}"#
        );
        for wrong in [
            "",
            "{}",
            r#"{"do":"set","stream":"a"}"#,
            r#"{"do":"reboot"}"#,
        ] {
            assert!(serde_json::from_str::<Request>(wrong).is_err(), "{wrong}");
        }
    }
}
