//! What is around the machine: a network of its own, a real Kafka in it that asks everybody for certificate and password and gives
//! nobody more than is declared, and who reads what arrives there.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::clock;
use lab::kafka::apply::{self, Grants};
use lab::kafka::declaration::Declaration;
use lab::kafka::{self, Access, Cluster};
use lab::netns::Namespace;
use sampler_event::{Flag, NodeHeartbeat, StreamWindow};

use crate::consumer::{Consumer, Event};

/// Who comes to the broker, by the names of the services.
const USERS: [&str; 2] = ["flowvitals-sampler", "flowvitals-aggregator"];
const ADMIN: &str = "admin";
/// How long an event may take to arrive, on a loaded machine.
const ARRIVAL: Duration = Duration::from_secs(60);

/// Network, Kafka, reader. Dropped in this order: who reads, who is read, where both are.
pub struct Site {
    consumer: Consumer,
    // Passwords change.
    cluster: Mutex<Cluster>,
    namespace: Namespace,
}

impl Site {
    /// Starts it all.
    pub fn start() -> Result<Self> {
        let namespace = Namespace::new("machine")?;
        let options = kafka::Options {
            users: USERS.map(str::to_owned).into(),
            client_certificates: true,
            ..kafka::Options::default()
        };
        let cluster = Cluster::start(&options, Some(&namespace)).context("no Kafka")?;
        let admin = cluster.access(ADMIN);
        let declared = Declaration::read(&kafka::declared_topics())?;
        let lines = namespace.run_in(|| apply::apply(&admin, &declared, Grants::Give))??;
        let wrong: Vec<_> = lines.iter().filter(|line| !line.good).collect();
        ensure!(wrong.is_empty(), "not as declared: {wrong:?}");
        let consumer = Consumer::start(&namespace, &admin, "flowvitals-systemd-test")?;
        Ok(Self {
            consumer,
            cluster: Mutex::new(cluster),
            namespace,
        })
    }

    /// The network.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// How a service of that name comes to the broker.
    pub fn access(&self, user: &str) -> Access {
        let cluster = self.cluster.lock();
        cluster.unwrap_or_else(PoisonError::into_inner).access(user)
    }

    /// Gives it another password at the broker.
    pub fn set_password(&self, user: &str, password: &str) -> Result<()> {
        let mut cluster = self.cluster.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster: &mut Cluster = &mut cluster;
        self.namespace
            .run_in(|| cluster.set_password(user, password))??;
        Ok(())
    }

    /// The first window from now on, with acknowledged bytes in it, that `wanted` takes. What an earlier life left on the disk comes
    /// at any time, and is passed over.
    pub fn window(&self, wanted: impl Fn(&StreamWindow) -> bool) -> Result<StreamWindow> {
        let wanted = |window: &StreamWindow| {
            let replayed = window.flags & Flag::Replayed as u32 != 0;
            window.bytes_acked > 0 && !replayed && wanted(window)
        };
        self.first("window", |event| match event {
            Event::Window(window, _) => Some((wanted(&window), *window)),
            _ => None,
        })
    }

    /// The first heartbeat from now on that `wanted` takes.
    pub fn heartbeat(&self, wanted: impl Fn(&NodeHeartbeat) -> bool) -> Result<NodeHeartbeat> {
        self.first("heartbeat", |event| match event {
            Event::Node(node) => Some((wanted(&node), *node)),
            _ => None,
        })
    }

    /// The first event of a kind that is wanted.
    fn first<T: std::fmt::Debug>(
        &self,
        kind: &str,
        look: impl Fn(Event) -> Option<(bool, T)>,
    ) -> Result<T> {
        let end = clock::now() + ARRIVAL;
        // What came before was for an earlier question.
        self.consumer.drain(Duration::ZERO);
        let (mut others, mut last) = (0, None);
        while clock::now() < end {
            let events = self.consumer.drain(Duration::from_millis(200));
            for (wanted, event) in events.into_iter().filter_map(&look) {
                if wanted {
                    return Ok(event);
                }
                others += 1;
                last = Some(event);
            }
        }
        bail!("no such {kind} in {ARRIVAL:?}, but {others} others, the last {last:?}")
    }
}
