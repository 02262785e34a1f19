//! An event as it leaves: encoded, with what a sink must know of it.
//!
//! Input: an event. Output: protobuf bytes, key and kind. Events are encoded before they queue up: the bytes are a sixth
//! of the event's size in memory, and they are what the spool holds.

use sampler_event::{DecodeError, Event, Flag, Message, NodeHeartbeat, StreamPulse, StreamWindow};

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

/// Whose event it is, and of when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Life of the daemon that made it.
    pub instance: u64,
    /// Its sequence.
    pub sequence: u64,
    /// End of its window, Unix time.
    pub end_ms: u64,
}

/// One encoded event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Kind of the event.
    pub kind: Kind,
    /// Key of the record: the stream, or for a heartbeat the node.
    pub key: String,
    /// Its identity.
    pub stamp: Stamp,
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
        let stamp = |instance, sequence, start_ms: u64, length_ms: u32| Stamp {
            instance,
            sequence,
            end_ms: start_ms.saturating_add(length_ms.into()),
        };
        let stamp = match event {
            Event::Window(w) => stamp(w.instance, w.sequence, w.window_start_ms, w.window_ms),
            Event::Pulse(p) => stamp(p.instance, p.sequence, p.pulse_start_ms, p.pulse_ms),
            Event::Node(h) => stamp(h.instance, h.sequence, h.window_start_ms, h.window_ms),
        };
        Self {
            kind,
            key: key.clone(),
            stamp,
            payload,
        }
    }

    /// The same event, marked as one from a backlog: other bytes, the same identity. What cannot be read stays as it is.
    #[must_use]
    pub fn replayed(self) -> Self {
        let Ok(mut event) = self.decode() else {
            return self;
        };
        let flags = match &mut event {
            Event::Window(window) => &mut window.flags,
            Event::Pulse(pulse) => &mut pulse.flags,
            Event::Node(heartbeat) => &mut heartbeat.flags,
        };
        *flags |= Flag::Replayed as u32;
        Self::of(&event)
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

    #[test]
    fn a_replayed_event_is_the_same_but_for_its_flag() {
        let window = StreamWindow {
            stream: "sport-1".into(),
            instance: 9,
            sequence: 4,
            window_start_ms: 5000,
            window_ms: 1000,
            flags: Flag::Biased as u32,
            ..Default::default()
        };
        let record = Record::of(&Event::Window(Box::new(window.clone())));
        let stamp = Stamp {
            instance: 9,
            sequence: 4,
            end_ms: 6000,
        };
        assert_eq!(record.stamp, stamp);
        let replayed = record.replayed();
        assert_eq!(replayed.stamp, stamp);
        let flags = Flag::Biased as u32 | Flag::Replayed as u32;
        let expected = StreamWindow { flags, ..window };
        assert_eq!(
            replayed.decode().expect("decodes"),
            Event::Window(Box::new(expected))
        );
    }
}
