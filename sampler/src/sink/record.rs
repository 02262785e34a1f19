//! An event as it leaves: encoded, with what a sink must know of it.
//!
//! Input: an event. Output: protobuf bytes, key and kind. Events are encoded before they queue up: the bytes are a sixth
//! of the event's size in memory, and they are what a spool would hold.

use sampler_event::{DecodeError, Event, Message, NodeHeartbeat, StreamPulse, StreamWindow};

/// Kind of an event; each has a topic, and a lane of the queue, of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `NodeHeartbeat`.
    Node,
    /// `StreamWindow`.
    Window,
    /// `StreamPulse`.
    Pulse,
}

impl Kind {
    /// All of them, in the order in which waiting events are sent.
    pub const ALL: [Self; 3] = [Self::Node, Self::Window, Self::Pulse];

    /// Place in an array of one thing per kind.
    pub fn index(self) -> usize {
        match self {
            Self::Node => 0,
            Self::Window => 1,
            Self::Pulse => 2,
        }
    }

    /// Full name of the protobuf message: the record's `schema` header.
    pub fn schema(self) -> &'static str {
        match self {
            Self::Node => "flowvitals.v1.NodeHeartbeat",
            Self::Window => "flowvitals.v1.StreamWindow",
            Self::Pulse => "flowvitals.v1.StreamPulse",
        }
    }
}

/// One encoded event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Kind of the event.
    pub kind: Kind,
    /// Key of the record: the stream, or for a heartbeat the node.
    pub key: String,
    /// The protobuf message.
    pub payload: Vec<u8>,
}

impl Record {
    /// Encodes an event.
    pub fn of(event: &Event) -> Self {
        let (kind, key, payload) = match event {
            Event::Window(window) => (Kind::Window, &window.stream, window.encode_to_vec()),
            Event::Pulse(pulse) => (Kind::Pulse, &pulse.stream, pulse.encode_to_vec()),
            Event::Node(heartbeat) => (Kind::Node, &heartbeat.node, heartbeat.encode_to_vec()),
        };
        Self {
            kind,
            key: key.clone(),
            payload,
        }
    }

    /// Reads the event back.
    pub fn decode(&self) -> Result<Event, DecodeError> {
        let bytes = self.payload.as_slice();
        Ok(match self.kind {
            Kind::Window => Event::Window(Box::new(StreamWindow::decode(bytes)?)),
            Kind::Pulse => Event::Pulse(StreamPulse::decode(bytes)?),
            Kind::Node => Event::Node(Box::new(NodeHeartbeat::decode(bytes)?)),
        })
    }

    /// The stream whose event this is; a heartbeat belongs to none.
    pub fn stream(&self) -> Option<&str> {
        (self.kind != Kind::Node).then_some(self.key.as_str())
    }

    /// What it takes in a queue, bytes.
    pub fn size_bytes(&self) -> usize {
        size_of::<Self>()
            .saturating_add(self.key.len())
            .saturating_add(self.payload.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_bytes_are_the_events() {
        let window = StreamWindow {
            stream: "sport-1".into(),
            node: "n".into(),
            sequence: 4,
            ..Default::default()
        };
        let pulse = StreamPulse {
            stream: "sport-1".into(),
            ..Default::default()
        };
        let heartbeat = NodeHeartbeat {
            node: "edge-07".into(),
            ..Default::default()
        };
        for (event, key, stream) in [
            (Event::Window(Box::new(window)), "sport-1", Some("sport-1")),
            (Event::Pulse(pulse), "sport-1", Some("sport-1")),
            (Event::Node(Box::new(heartbeat)), "edge-07", None),
        ] {
            let record = Record::of(&event);
            assert_eq!((record.key.as_str(), record.stream()), (key, stream));
            assert_eq!(record.decode().expect("decodes"), event);
        }
        assert_eq!(Kind::ALL.map(Kind::index), [0, 1, 2]);
    }
}
