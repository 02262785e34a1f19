//! What an owner saves, so that the next one goes on.
//!
//! Input and output: keys and JSON values of the compacted state topic. The key `rule|site|stream` has an episode, `|site|stream` what was
//! learned of a stream, `|site|` the number of the partition's owner. Every value names the owner that wrote it. What cannot be read is
//! nobody's loss but its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::alert::episode::Episode;
use crate::alert::nodata::NoData;
use crate::alert::rule::{Key, Rule, RuleMetric};
use crate::alert::suspect::StreamDetector;
use crate::alert::suspected::Suspect;

/// Whose partition it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Number of the owner.
    pub owner_epoch: u64,
}

/// An episode, and what is needed to end it when its rule is gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedEpisode {
    /// Number of the owner.
    pub owner_epoch: u64,
    /// Where it stands.
    pub episode: Episode,
    /// What is suspected beside it.
    pub suspect: Option<Suspect>,
    /// When a record of it was last put into the alert topic, Unix ms: it is taken out some time after the last one.
    pub published_ms: Option<u64>,
    /// What the rule watched.
    pub metric: RuleMetric,
    /// Label of the alert.
    pub severity: String,
    /// Further labels of the alert.
    pub labels: BTreeMap<String, String>,
}

/// What was learned of a stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SavedStream {
    /// Number of the owner.
    pub owner_epoch: u64,
    /// The detector's level and dispersion.
    pub detector: Option<StreamDetector>,
    /// End of the newest pulse that it has learned from, Unix ms.
    pub learned_ms: u64,
    /// The nodes that are expected.
    pub no_data: Option<NoData>,
}

/// One record, read.
#[derive(Clone, Debug, PartialEq)]
pub enum Saved {
    /// `|site|`
    Claim(Claim),
    /// `rule|site|stream`
    Episode(Box<SavedEpisode>),
    /// `|site|stream`
    Stream(String, Box<SavedStream>),
}

impl Saved {
    /// Reads a record of a site; none if it is another site's, or unreadable (`Err`).
    ///
    /// # Errors
    /// If it is no state of ours.
    pub fn read(site: &str, key: &str, value: &[u8]) -> Result<Option<Self>, Unreadable> {
        let parts: Vec<&str> = key.split('|').collect();
        let [rule, of, stream] = parts.as_slice() else {
            return Err(Unreadable);
        };
        if *of != site {
            return Ok(None);
        }
        let unreadable = |_| Unreadable;
        let saved = match (rule.is_empty(), stream.is_empty()) {
            (true, true) => Self::Claim(serde_json::from_slice(value).map_err(unreadable)?),
            (true, false) => {
                let saved = serde_json::from_slice(value).map_err(unreadable)?;
                Self::Stream((*stream).to_owned(), Box::new(saved))
            }
            (false, _) => {
                let saved: SavedEpisode = serde_json::from_slice(value).map_err(unreadable)?;
                if saved.episode.key().to_string() != key {
                    return Err(Unreadable);
                }
                Self::Episode(Box::new(saved))
            }
        };
        Ok(Some(saved))
    }

    /// Number of the owner that wrote it.
    #[must_use]
    pub fn owner_epoch(&self) -> u64 {
        match self {
            Self::Claim(claim) => claim.owner_epoch,
            Self::Episode(saved) => saved.owner_epoch,
            Self::Stream(_, saved) => saved.owner_epoch,
        }
    }
}

/// A record that is no state of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no state that can be read")]
pub struct Unreadable;

/// Key of what was learned of a stream; of an empty stream, of the claim.
pub fn stream_key(site: &str, stream: &str) -> String {
    format!("|{site}|{stream}")
}

/// The rule of an episode whose rule is gone: as much of it as its labels need.
pub fn ghost(key: &Key, saved: &SavedEpisode) -> Arc<Rule> {
    Arc::new(Rule {
        name: key.rule.clone(),
        streams: Vec::new(),
        metric: saved.metric,
        over_s: 10,
        above: 0.0,
        hold_ms: 0,
        clear_below: 0.0,
        clear_for_ms: 0,
        min_flows: 0,
        fast: false,
        active: None,
        severity: saved.severity.clone(),
        labels: saved.labels.clone(),
        annotations: BTreeMap::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_say_what_a_record_is() {
        let claim = br#"{"owner_epoch":3}"#;
        let read = |key, value: &[u8]| Saved::read("ams1", key, value);
        let saved = Saved::Claim(Claim { owner_epoch: 3 });
        assert_eq!(read("|ams1|", claim), Ok(Some(saved)));
        assert_eq!(read("|fra2|", claim), Ok(None), "another site's");
        let stream = read(
            "|ams1|sport",
            br#"{"owner_epoch":4,"detector":null,"learned_ms":0,"no_data":null}"#,
        );
        assert!(
            matches!(stream, Ok(Some(Saved::Stream(name, saved))) if name == "sport" && saved.owner_epoch == 4)
        );
        for (key, value) in [
            ("ams1", &claim[..]),
            ("a|ams1|b|c", claim),
            ("|ams1|", b"{}"),
            ("|ams1|", b"\xff"),
            ("rule|ams1|sport", claim),
        ] {
            assert_eq!(read(key, value), Err(Unreadable), "{key}");
        }
        let episode = Episode::new(
            Key {
                rule: "r".to_owned(),
                site: "ams1".to_owned(),
                stream: "s".to_owned(),
            },
            7,
        );
        let saved = SavedEpisode {
            owner_epoch: 7,
            episode,
            suspect: None,
            published_ms: None,
            metric: RuleMetric::NoData,
            severity: "page".to_owned(),
            labels: BTreeMap::new(),
        };
        let json = serde_json::to_vec(&saved).expect("JSON");
        let found = read("r|ams1|s", &json).expect("readable").expect("ours");
        assert_eq!(found.owner_epoch(), 7);
        assert_eq!(read("other|ams1|s", &json), Err(Unreadable));
    }
}
