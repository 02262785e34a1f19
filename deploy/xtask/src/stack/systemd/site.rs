//! What is around the machine: a network of its own, a real Kafka in it, and who reads what arrives there.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use lab::clock;
use lab::kafka::{self, Cluster, topics};
use lab::netns::Namespace;
use sampler_event::{Flag, StreamWindow};

use crate::consumer::{Consumer, Event};

/// How long a window may take to arrive, on a loaded machine.
const ARRIVAL: Duration = Duration::from_secs(60);

/// Network, Kafka, reader. Dropped in this order: who reads, who is read, where both are.
pub struct Site {
    consumer: Consumer,
    cluster: Cluster,
    namespace: Namespace,
}

impl Site {
    /// Starts it all.
    pub fn start() -> Result<Self> {
        let namespace = Namespace::new("machine")?;
        let cluster =
            Cluster::start(&kafka::Options::default(), Some(&namespace)).context("no Kafka")?;
        let brokers = cluster.brokers();
        namespace.run_in(|| -> Result<()> {
            let declared = topics::read(&kafka::declared_topics())?;
            topics::apply(&brokers, &declared)?;
            Ok(())
        })??;
        let consumer = Consumer::start(&namespace, &brokers, "flowvitals-systemd-test")?;
        Ok(Self {
            consumer,
            cluster,
            namespace,
        })
    }

    /// The network.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// `host:port` of the broker.
    pub fn broker(&self) -> String {
        self.cluster.brokers()
    }

    /// The first window from now on, with acknowledged bytes in it, that `wanted` takes. What an earlier life left on the disk comes
    /// at any time, and is passed over.
    pub fn window(&self, wanted: impl Fn(&StreamWindow) -> bool) -> Result<StreamWindow> {
        let end = clock::now() + ARRIVAL;
        // What came before was for an earlier question.
        self.consumer.drain(Duration::ZERO);
        let (mut windows, mut last) = (0, None);
        while clock::now() < end {
            for event in self.consumer.drain(Duration::from_millis(200)) {
                let Event::Window(window, _) = event else {
                    continue;
                };
                windows += 1;
                let replayed = window.flags & Flag::Replayed as u32 != 0;
                if window.bytes_acked > 0 && !replayed && wanted(&window) {
                    return Ok(*window);
                }
                last = Some(window);
            }
        }
        bail!("no such window in {ARRIVAL:?}, but {windows} others, the last {last:?}")
    }
}
