//! Nodes that do what a test says.
//!
//! Input: [`Input`]s, each a stream on some nodes, as series per node and window of sampled flows. Output: the windows, pulses and heartbeats of these nodes, in the order
//! in which brokers would take them. Counts are spread over the 16 random groups by a fixed pattern: no chance, the same file gives the
//! same events. Limits: [`MAX_EVENTS`].

use std::collections::BTreeMap;

use sampler_event::{
    Event, GROUPS, LifeCycle, NodeHeartbeat, RttSource, StreamPulse, StreamState, StreamWindow,
};

use super::recorded::{MAX_EVENTS, Recorded};
use super::series::Series;

/// What a node says in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// It has a window of the stream.
    Data,
    /// It lives, and has nothing to say of the stream.
    Silent,
    /// Nothing at all.
    Gone,
    /// A window, and that it stops.
    Stopping,
}

/// In a file.
pub const SAYS: [(&str, Says); 4] = [
    ("data", Says::Data),
    ("silent", Says::Silent),
    ("gone", Says::Gone),
    ("stopping", Says::Stopping),
];

/// A stream on nodes that all do the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Name of the stream.
    pub stream: String,
    /// Names of the nodes.
    pub nodes: Vec<String>,
    /// Length of their windows.
    pub window_ms: u32,
    /// Length of their pulses; 0: none.
    pub pulse_ms: u32,
    /// Whether they say anything.
    pub says: Series<Says>,
    /// Their events are that long on their way.
    pub delay_ms: Series<f64>,
    /// Probability with which flows are sampled.
    pub sampling_rate: Series<f64>,
    /// Sampled flows, all of them active.
    pub flows: Series<f64>,
    /// Segments sent.
    pub data_segs_out: Series<f64>,
    /// Segments retransmitted.
    pub retrans_segs: Series<f64>,
    /// Stalled time.
    pub stall_ms: Series<f64>,
    /// Busy time; none: all flows all the time.
    pub busy_ms: Option<Series<f64>>,
    /// Round-trip samples.
    pub rtt_count: Series<f64>,
    /// Of them, slow ones.
    pub rtt_slow: Series<f64>,
    /// Flows without progress.
    pub flows_silent: Series<f64>,
    /// Relative standard deviation between groups, of what goes wrong.
    pub spread: f64,
    /// Labels of the stream.
    pub labels: BTreeMap<String, String>,
}

/// Any number: these nodes have one life.
const INSTANCE: u64 = 1;
/// The normal distribution at 16 even shares, mean 0 and variance 1, in no order.
const PATTERN: [f64; GROUPS] = [
    0.081, -1.051, 0.602, -0.418, 1.938, -0.247, -0.807, 1.371, -0.081, 1.051, -1.938, 0.418,
    0.247, -1.371, 0.807, -0.602,
];
/// A fraction whose multiples fall everywhere: rounding favours no group.
const GOLDEN: f64 = 0.618_033_988_749_895;

/// All events of a site between two moments, Unix ms.
///
/// # Errors
/// What is wrong, in words: with the inputs as a whole.
pub fn events(
    site: &str,
    inputs: &[Input],
    begin_ms: u64,
    until_ms: u64,
) -> Result<Vec<Recorded>, String> {
    let length_ms = until_ms.saturating_sub(begin_ms);
    let each = |input: &Input| {
        let windows = length_ms / u64::from(input.window_ms);
        let pulses = length_ms.checked_div(input.pulse_ms.into()).unwrap_or(0);
        input.nodes.len() as u64 * (2 * windows + pulses)
    };
    let count = inputs.iter().map(each).fold(0, u64::saturating_add);
    if count > MAX_EVENTS as u64 {
        return Err(format!("makes {count} events; allowed are {MAX_EVENTS}"));
    }
    let mut nodes: BTreeMap<&str, Vec<&Input>> = BTreeMap::new();
    for input in inputs {
        for node in &input.nodes {
            nodes.entry(node).or_default().push(input);
        }
    }
    let mut events = Vec::new();
    for (node, inputs) in nodes {
        let first = inputs[0];
        if let Some(other) = inputs.iter().find(|i| i.window_ms != first.window_ms) {
            let (a, b) = (&first.stream, &other.stream);
            return Err(format!(
                "{node} has windows of two lengths, for {a} and {b}"
            ));
        }
        if inputs.windows(2).any(|two| two[0].stream == two[1].stream) {
            return Err(format!("{node} has {} twice", first.stream));
        }
        Node::new(site, node, &inputs).play(begin_ms, until_ms, &mut events);
    }
    events.sort_by_key(|recorded| recorded.append_ms);
    Ok(events)
}

struct Node<'a> {
    site: &'a str,
    name: &'a str,
    streams: Vec<Stream<'a>>,
    sequence: u64,
}

struct Stream<'a> {
    input: &'a Input,
    /// Sequence of the next window.
    window: u64,
    /// Sequence of the next pulse.
    pulse: u64,
    rate_epoch: u32,
    rate: f64,
}

impl<'a> Node<'a> {
    fn new(site: &'a str, name: &'a str, inputs: &[&'a Input]) -> Self {
        let stream = |&input: &&'a Input| Stream {
            input,
            window: 0,
            pulse: 0,
            rate_epoch: 1,
            rate: input.sampling_rate.at(0),
        };
        Self {
            site,
            name,
            streams: inputs.iter().map(stream).collect(),
            sequence: 0,
        }
    }

    fn play(&mut self, begin_ms: u64, until_ms: u64, events: &mut Vec<Recorded>) {
        let length_ms = u64::from(self.streams[0].input.window_ms);
        let starts = (begin_ms..).step_by(length_ms as usize);
        for (number, start_ms) in starts.enumerate() {
            if start_ms + length_ms > until_ms {
                return;
            }
            let says = |says| move |stream: &Stream<'_>| stream.input.says.at(number) == says;
            if self.streams.iter().any(says(Says::Gone)) {
                continue;
            }
            let life_cycle = match self.streams.iter().any(says(Says::Stopping)) {
                true => LifeCycle::Stopping,
                false => LifeCycle::Run,
            };
            let (site, name) = (self.site, self.name);
            let mut delay_ms = 0;
            for stream in &mut self.streams {
                stream.play(site, name, number, start_ms, events);
                delay_ms = delay_ms.max(stream.delay_ms(number));
            }
            let streams = self.streams.iter().map(|stream| stream.state(number));
            let heartbeat = NodeHeartbeat {
                node: name.to_owned(),
                site: site.to_owned(),
                instance: INSTANCE,
                sequence: self.sequence,
                window_start_ms: start_ms,
                window_ms: length_ms as u32,
                emitted_ms: start_ms + length_ms,
                life_cycle: life_cycle.into(),
                kernel_mode: "full".to_owned(),
                streams: streams.collect(),
                ..NodeHeartbeat::default()
            };
            self.sequence += 1;
            events.push(Recorded {
                event: Event::Node(Box::new(heartbeat)),
                append_ms: start_ms + length_ms + delay_ms,
            });
        }
    }
}

impl Stream<'_> {
    fn delay_ms(&self, number: usize) -> u64 {
        self.input.delay_ms.at(number) as u64
    }

    fn play(
        &mut self,
        site: &str,
        node: &str,
        number: usize,
        start_ms: u64,
        events: &mut Vec<Recorded>,
    ) {
        let rate = self.input.sampling_rate.at(number);
        if rate != self.rate {
            (self.rate, self.rate_epoch) = (rate, self.rate_epoch + 1);
        }
        if self.input.says.at(number) == Says::Silent {
            return;
        }
        let window = self.of_window(site, node, number, start_ms);
        self.play_pulses(&window, number, events);
        self.window += 1;
        events.push(Recorded {
            append_ms: window.emitted_ms + self.delay_ms(number),
            event: Event::Window(Box::new(window)),
        });
    }

    fn of_window(&self, site: &str, node: &str, number: usize, start_ms: u64) -> StreamWindow {
        let (input, length_ms) = (self.input, self.input.window_ms);
        let count = |series: &Series<f64>| series.at(number).round() as u64;
        let phase = (number as f64 * GOLDEN).fract();
        let groups = |total: u64, spread: f64| match total {
            0 => Vec::new(),
            _ => shares(total, spread, phase),
        };
        let flows = count(&input.flows);
        let all_ms = flows.saturating_mul(length_ms.into());
        let busy_ms = input.busy_ms.as_ref().map_or(all_ms, count);
        let (retrans_segs, data_segs_out) =
            (count(&input.retrans_segs), count(&input.data_segs_out));
        let (stall_ms, rtt_count) = (count(&input.stall_ms), count(&input.rtt_count));
        let source = match rtt_count {
            0 => RttSource::Unspecified,
            _ => RttSource::Callback,
        };
        StreamWindow {
            node: node.to_owned(),
            site: site.to_owned(),
            stream: input.stream.clone(),
            instance: INSTANCE,
            sequence: self.window,
            window_start_ms: start_ms,
            window_ms: length_ms,
            observed_ms: length_ms,
            emitted_ms: start_ms + u64::from(length_ms),
            sampling_rate: self.rate,
            rate_epoch: self.rate_epoch,
            flows_active: flows,
            flows_active_10s: flows,
            flows_open: flows,
            flows_retransmitting: flows.min(retrans_segs),
            flows_stalled: flows.min(stall_ms),
            flows_silent: count(&input.flows_silent),
            data_segs_out,
            retrans_segs,
            stall_network_us: stall_ms.saturating_mul(1_000),
            busy_us: busy_ms.saturating_mul(1_000),
            rtt_source: source.into(),
            rtt_count,
            g_retrans_segs: groups(retrans_segs, input.spread),
            g_data_segs_out: groups(data_segs_out, 0.0),
            g_stall_ms: groups(stall_ms, input.spread),
            g_busy_ms: groups(busy_ms, 0.0),
            g_rtt_count: groups(rtt_count, 0.0),
            g_rtt_slow: groups(count(&input.rtt_slow), input.spread),
            ..StreamWindow::default()
        }
    }

    /// The window's traffic in parts.
    fn play_pulses(&mut self, window: &StreamWindow, number: usize, events: &mut Vec<Recorded>) {
        let length_ms = self.input.pulse_ms;
        let parts = u64::from(window.window_ms.checked_div(length_ms).unwrap_or(0));
        let mut before = (0, 0);
        for part in 1..=parts {
            let upto = |total: u64| total.saturating_mul(part) / parts;
            let so_far = (upto(window.retrans_segs), upto(window.data_segs_out));
            let (retrans_segs, data_segs_out) = (so_far.0 - before.0, so_far.1 - before.1);
            before = so_far;
            let start_ms = window.window_start_ms + (part - 1) * u64::from(length_ms);
            let phase = (self.pulse as f64 * GOLDEN).fract();
            let pulse = StreamPulse {
                node: window.node.clone(),
                site: window.site.clone(),
                stream: window.stream.clone(),
                instance: INSTANCE,
                sequence: self.pulse,
                pulse_start_ms: start_ms,
                pulse_ms: length_ms,
                observed_ms: length_ms,
                sampling_rate: window.sampling_rate,
                rate_epoch: window.rate_epoch,
                retrans_segs,
                data_segs_out,
                flows_active: window.flows_active,
                g_retrans_segs: match retrans_segs {
                    0 => Vec::new(),
                    _ => shares(retrans_segs, self.input.spread, phase),
                },
                ..StreamPulse::default()
            };
            self.pulse += 1;
            events.push(Recorded {
                event: Event::Pulse(pulse),
                append_ms: start_ms + u64::from(length_ms) + self.delay_ms(number),
            });
        }
    }

    fn state(&self, number: usize) -> StreamState {
        StreamState {
            stream: self.input.stream.clone(),
            silent: self.input.says.at(number) == Says::Silent,
            next_sequence: self.window,
            next_pulse_sequence: self.pulse,
            sampling_rate: self.rate,
            rate_epoch: self.rate_epoch,
            labels: self.input.labels.clone(),
            flows_open: self.input.flows.at(number).round() as u64,
            ..StreamState::default()
        }
    }
}

/// A total over the groups: adds up to it exactly.
fn shares(total: u64, spread: f64, phase: f64) -> Vec<u32> {
    let weights = PATTERN.map(|z| (1.0 + spread * z).max(0.0));
    let whole: f64 = weights.iter().sum();
    let (mut sum, mut before) = (0.0, 0);
    let last = GROUPS - 1;
    let one = |(group, weight): (usize, f64)| {
        sum += weight;
        let upto = match group == last {
            true => total,
            false => (total as f64 * sum / whole + phase).floor() as u64,
        };
        let upto = upto.clamp(before, total);
        let share = upto - before;
        before = upto;
        u32::try_from(share).unwrap_or(u32::MAX)
    };
    weights.into_iter().enumerate().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule_test::recorded::{check, start_ms};

    pub fn input() -> Input {
        let zero = || Series::constant(0.0);
        Input {
            stream: "sport-1".to_owned(),
            nodes: vec!["edge-1".to_owned(), "edge-2".to_owned()],
            window_ms: 1_000,
            pulse_ms: 200,
            says: Series::constant(Says::Data),
            delay_ms: Series::constant(50.0),
            sampling_rate: Series::constant(0.1),
            flows: Series::constant(100.0),
            data_segs_out: Series::constant(4_000.0),
            retrans_segs: Series::constant(21.0),
            stall_ms: Series::constant(700.0),
            busy_ms: None,
            rtt_count: Series::constant(900.0),
            rtt_slow: Series::constant(9.0),
            flows_silent: zero(),
            spread: 0.25,
            labels: BTreeMap::new(),
        }
    }

    #[test]
    fn events_hold_to_the_contract_and_add_up() {
        let events = events("ams1", &[input()], 10_000, 13_500).expect("events");
        // Three whole windows: two nodes, a window, five pulses and a heartbeat each.
        assert_eq!(events.len(), 3 * 2 * 7);
        let (mut pulses, mut windows) = (0, 0);
        for recorded in &events {
            check(&recorded.event, recorded.append_ms).expect("an event");
            match &recorded.event {
                Event::Pulse(pulse) => pulses += pulse.retrans_segs,
                Event::Window(window) => {
                    windows += window.retrans_segs;
                    let groups: u32 = window.g_retrans_segs.iter().sum();
                    assert_eq!(u64::from(groups), window.retrans_segs);
                }
                Event::Node(_) => {}
            }
            assert!((10_000..13_000).contains(&start_ms(&recorded.event)));
        }
        assert_eq!((pulses, windows), (126, 126));
        assert!(events.is_sorted_by_key(|recorded| recorded.append_ms));
    }

    #[test]
    fn a_node_can_be_silent_gone_and_stop() {
        let says = [Says::Data, Says::Silent, Says::Gone, Says::Stopping];
        let mut one = input();
        one.nodes.truncate(1);
        one.pulse_ms = 0;
        let of = |says: Says| {
            let input = Input {
                says: Series::constant(says),
                ..one.clone()
            };
            let events = events("ams1", &[input], 0, 1_000).expect("events");
            let heartbeats = events.iter().filter_map(|one| match &one.event {
                Event::Node(node) => Some((node.life_cycle() as i32, node.streams[0].silent)),
                _ => None,
            });
            (events.len(), heartbeats.max())
        };
        let found = says.map(of);
        assert_eq!(found[0], (2, Some((LifeCycle::Run as i32, false))));
        assert_eq!(found[1], (1, Some((LifeCycle::Run as i32, true))));
        assert_eq!(found[2], (0, None));
        assert_eq!(found[3], (2, Some((LifeCycle::Stopping as i32, false))));
    }

    #[test]
    fn contradictions_and_floods_are_refused() {
        let mut other = input();
        other.stream = "news".to_owned();
        assert!(events("ams1", &[input(), other.clone()], 0, 1_000).is_ok());
        other.window_ms = 2_000;
        let refused = events("ams1", &[input(), other], 0, 1_000).expect_err("two lengths");
        assert!(refused.contains("windows of two lengths"), "{refused}");
        let twice = events("ams1", &[input(), input()], 0, 1_000).expect_err("twice");
        assert!(twice.contains("sport-1 twice"), "{twice}");
        assert!(events("ams1", &[input()], 0, 1_000_000_000).is_err());
    }

    proptest::proptest! {
        #[test]
        fn shares_add_up(total in 0_u64..10_000_000, spread in 0.0_f64..2.0, phase in 0.0_f64..1.0) {
            let shares = shares(total, spread, phase);
            let sum: u64 = shares.iter().map(|share| u64::from(*share)).sum();
            proptest::prop_assert_eq!(sum, total);
        }
    }
}
