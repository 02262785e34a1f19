//! Nodes of a site as the brokers see them: the sampler's own producers, fed with windows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lab::clock::unix_ms;
use sampler::sink::{
    Capacity, Drained, Event, KafkaSettings, KafkaSink, Ledger, QueueSender, Record, Topics, queue,
};
use sampler_event::StreamWindow;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::member::PATIENCE;

/// Node and stream of a sequence.
pub type Source = (String, String);

struct Node {
    name: String,
    ledger: Arc<Ledger>,
    sender: QueueSender,
    sink: JoinHandle<Drained>,
}

pub struct Nodes {
    runtime: Runtime,
    nodes: Vec<Node>,
    streams: usize,
    /// Rounds written, which is the next sequence of every source.
    pub rounds: u64,
    /// When the next one is due; none: they are silent.
    next: Option<Instant>,
}

/// Between two windows of a stream.
const ROUND: Duration = Duration::from_millis(50);

impl Nodes {
    pub fn start(
        brokers: &str,
        properties: &BTreeMap<String, String>,
        nodes: usize,
        streams: usize,
    ) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let node = |number: usize| {
            let name = format!("edge-{number}");
            let ledger = Arc::new(Ledger::default());
            let (sender, receiver) = queue(Capacity::DEFAULT, Arc::clone(&ledger));
            let settings = KafkaSettings {
                brokers: brokers.split(',').map(str::to_owned).collect(),
                topics: Topics::with_window(service::topics::WINDOW),
                node: name.clone(),
                properties: properties.clone(),
                password_file: None,
                flush_timeout: PATIENCE,
            };
            let _inside = runtime.enter();
            let sink = KafkaSink::new(settings, Arc::clone(&ledger)).expect("a sink");
            Node {
                name,
                ledger,
                sender,
                sink: runtime.spawn(sink.run(receiver)),
            }
        };
        let nodes = (0..nodes).map(node).collect();
        Self {
            runtime,
            nodes,
            streams,
            rounds: 0,
            next: Some(Instant::now()),
        }
    }

    /// Writes a round if it is due.
    pub fn turn(&mut self) {
        if self.next.is_some_and(|next| Instant::now() >= next) {
            self.next = Some(Instant::now() + ROUND);
            self.round();
        }
    }

    /// Writes no more by itself.
    pub fn silence(&mut self) {
        self.next = None;
    }

    /// A window of every stream from every node.
    pub fn round(&mut self) {
        for node in &self.nodes {
            for stream in 0..self.streams {
                let window = StreamWindow {
                    node: node.name.clone(),
                    site: "ams1".to_owned(),
                    stream: format!("stream-{stream}"),
                    instance: 7,
                    sequence: self.rounds,
                    window_start_ms: unix_ms() / 1000 * 1000,
                    window_ms: 1000,
                    sampling_rate: 0.1,
                    ..StreamWindow::default()
                };
                let record = Record::of(&Event::Window(Box::new(window)));
                node.sender.push(record);
            }
        }
        self.rounds += 1;
    }

    /// All sources.
    pub fn sources(&self) -> Vec<Source> {
        let of = |node: &Node| {
            let name = node.name.clone();
            (0..self.streams).map(move |stream| (name.clone(), format!("stream-{stream}")))
        };
        self.nodes.iter().flat_map(of).collect()
    }

    /// Windows that were handed to the producers.
    pub fn written(&self) -> u64 {
        self.rounds * self.nodes.len() as u64 * self.streams as u64
    }

    /// Windows that the brokers confirmed.
    pub fn confirmed(&self) -> u64 {
        let totals = self.nodes.iter().map(|node| node.ledger.totals());
        totals.map(|totals| totals.delivered).sum()
    }

    /// Windows that were given up.
    pub fn lost(&self) -> u64 {
        let totals = self.nodes.iter().map(|node| node.ledger.totals());
        totals
            .map(|totals| totals.dropped + totals.dead_letter)
            .sum()
    }

    /// How the producers say they are.
    pub fn states(&self) -> Vec<String> {
        let states = self.nodes.iter().map(|node| node.ledger.state());
        states.map(|state| state.to_string()).collect()
    }

    /// Ends them; nothing may be left behind.
    pub fn stop(self) {
        for node in self.nodes {
            drop(node.sender);
            let drained = self.runtime.block_on(node.sink).expect("a sink");
            assert_eq!(drained, Drained::default());
        }
    }
}
