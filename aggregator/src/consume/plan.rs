//! What a role reads, with whom it shares it, and where it begins.

use std::fmt;
use std::time::Duration;

use super::Partition;
use super::settings::Kafka;
use crate::input::Topic;

/// How a role consumes. Heartbeats are read whole by every member besides.
pub struct Plan {
    /// Name of its consumer group.
    pub group: String,
    /// Topics that the members of the group share; partitions of one number go to one member.
    pub topics: &'static [Topic],
    /// How they share them.
    pub share: Share,
    /// Where reading begins.
    pub begin: Begin,
    /// Whether what is no event goes to the topic of dead letters; it is counted anyway. One role of a process does it.
    pub buries: bool,
}

/// How the members of a group share partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Each has some.
    Split,
    /// The member that has been there the longest has all; the others stand by.
    Whole,
}

/// Where reading begins.
pub enum Begin {
    /// At the first record that was appended so long before now.
    Ago(Duration),
    /// Where the owner says.
    Asked(Box<dyn Places>),
}

/// An owner that knows where to begin.
pub trait Places: Send {
    /// The offset to begin with for each partition, in their order. Called on the reader's thread whenever partitions are assigned,
    /// before their [`Input::Assigned`](super::Input::Assigned); may block for some seconds.
    ///
    /// # Errors
    /// Why it cannot be said now; it is asked again within a second or two.
    fn places(&mut self, of: &[Extent]) -> Result<Vec<i64>, String>;
}

/// What there is of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The partition.
    pub partition: Partition,
    /// The first offset that is still there.
    pub low: i64,
    /// The offset after the last record.
    pub high: i64,
    /// What the group has committed.
    pub committed: Option<i64>,
}

impl fmt::Debug for Begin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ago(horizon) => f.debug_tuple("Ago").field(horizon).finish(),
            Self::Asked(_) => f.write_str("Asked"),
        }
    }
}

impl Plan {
    /// Of the role that alerts: whatever was committed, reading begins a horizon ago, since the owner's memory is gone with it.
    #[must_use]
    pub fn alert(settings: &Kafka, horizon: Duration) -> Self {
        Self {
            group: settings.alert_group(),
            topics: &[Topic::Window, Topic::Pulse],
            share: Share::Split,
            begin: Begin::Ago(horizon),
            buries: true,
        }
    }

    /// Of the role that stores.
    #[must_use]
    pub fn store(settings: &Kafka, share: Share, places: Box<dyn Places>, buries: bool) -> Self {
        Self {
            group: settings.store_group(),
            topics: &[Topic::Window],
            share,
            begin: Begin::Asked(places),
            buries,
        }
    }
}
