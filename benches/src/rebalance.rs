//! What a join, a leave and a death of a member cost the others, for each protocol of a consumer group: for how long records
//! stay unread, and in how many partitions. Bare consumers, so that nothing but the protocol is measured.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use lab::clock::unix_ms;
use lab::kafka::{self, Cluster, topics};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, ThreadedProducer};

const TOPICS: [&str; 2] = ["flowvitals.window.v1", "flowvitals.pulse.v1"];
const PARTITIONS: usize = 12;
/// A record in every partition so often.
const STEP: Duration = Duration::from_millis(20);
/// A record that was read later than this waited for the group.
const WAITED_MS: u64 = 300;
/// How long each event is watched: longer than a session.
const WATCH: Duration = Duration::from_secs(14);
const PATIENCE: Duration = Duration::from_secs(60);
/// Where the process of a member that is killed finds brokers and protocol.
const MEMBER: &str = "FLOWVITALS_BENCH_MEMBER";

/// Name, and what the members set for it.
const PROTOCOLS: [(&str, &[(&str, &str)]); 3] = [
    (
        "classic, range",
        &[
            ("group.protocol", "classic"),
            ("partition.assignment.strategy", "range"),
            ("session.timeout.ms", "6000"),
            ("heartbeat.interval.ms", "2000"),
        ],
    ),
    (
        "classic, cooperative",
        &[
            ("group.protocol", "classic"),
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("session.timeout.ms", "6000"),
            ("heartbeat.interval.ms", "2000"),
        ],
    ),
    (
        "consumer (KIP-848)",
        &[
            ("group.protocol", "consumer"),
            ("group.remote.assignor", "range"),
        ],
    ),
];

/// What the brokers are set to, so that KIP-848 has the same session.
const BROKER: [(&str, &str); 4] = [
    ("group.consumer.min.session.timeout.ms", "6000"),
    ("group.consumer.session.timeout.ms", "6000"),
    ("group.consumer.min.heartbeat.interval.ms", "1000"),
    ("group.consumer.heartbeat.interval.ms", "2000"),
];

/// By topic and partition.
type PerPartition<T> = [[T; PARTITIONS]; 2];

/// What all members of this process read.
#[derive(Default)]
struct Seen {
    /// When the newest record was written that was read, ms.
    newest_ms: PerPartition<AtomicU64>,
    /// Longest time that a record waited since it was last asked for, ms.
    waited_ms: PerPartition<AtomicU64>,
    /// Records that had been read before.
    again: AtomicU64,
}

impl Seen {
    fn take(&self, topic: &str, partition: i32, written_ms: u64) {
        let Some(topic) = TOPICS.iter().position(|known| *known == topic) else {
            return;
        };
        let at = partition as usize;
        let newest = self.newest_ms[topic][at].fetch_max(written_ms, Ordering::Relaxed);
        if newest >= written_ms {
            self.again.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let waited = unix_ms().saturating_sub(written_ms);
        self.waited_ms[topic][at].fetch_max(waited, Ordering::Relaxed);
    }

    fn begin(&self) {
        let all = self.waited_ms.iter().flatten();
        all.for_each(|waited| waited.store(0, Ordering::Relaxed));
        self.again.store(0, Ordering::Relaxed);
    }

    /// Longest wait of each partition.
    fn waits(&self) -> Vec<u64> {
        let all = self.waited_ms.iter().flatten();
        all.map(|waited| waited.load(Ordering::Relaxed)).collect()
    }
}

struct Member {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
    assigned: Arc<Mutex<Vec<(String, i32)>>>,
}

impl Member {
    fn start(brokers: &str, group: &str, protocol: usize, seen: &Arc<Seen>) -> Result<Self> {
        let consumer = consumer(brokers, group, protocol)?;
        let (stop, assigned) = (Arc::<AtomicBool>::default(), Arc::<Mutex<_>>::default());
        let thread = {
            let (stop, assigned, seen) =
                (Arc::clone(&stop), Arc::clone(&assigned), Arc::clone(seen));
            thread::spawn(move || -> Result<()> {
                while !stop.load(Ordering::Relaxed) {
                    read(&consumer, &seen);
                    let list = consumer.assignment()?;
                    let list = list.elements();
                    let list = list
                        .iter()
                        .map(|one| (one.topic().to_owned(), one.partition()));
                    *assigned.lock().unwrap_or_else(PoisonError::into_inner) = list.collect();
                }
                Ok(())
            })
        };
        Ok(Self {
            stop,
            thread,
            assigned,
        })
    }

    /// Numbers of the partitions that it has of a topic.
    fn numbers(&self, topic: &str) -> Vec<i32> {
        let assigned = self.assigned.lock().unwrap_or_else(PoisonError::into_inner);
        let ours = assigned.iter().filter(|(of, _)| of == topic);
        let mut numbers: Vec<_> = ours.map(|(_, number)| *number).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Leaves the group in order.
    fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("a member broke"))?
    }
}

fn consumer(brokers: &str, group: &str, protocol: usize) -> Result<BaseConsumer> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("group.id", group)
        .set("auto.offset.reset", "latest")
        // So that little is read again: what is measured is the waiting.
        .set("auto.commit.interval.ms", "100");
    for (property, value) in PROTOCOLS[protocol].1 {
        config.set(*property, *value);
    }
    let consumer: BaseConsumer = config.create()?;
    consumer.subscribe(&TOPICS)?;
    Ok(consumer)
}

fn read(consumer: &BaseConsumer, seen: &Seen) {
    // Errors are those of a group in motion; what matters is what is read.
    if let Some(Ok(message)) = consumer.poll(Duration::from_millis(10)) {
        let written_ms = message.payload().and_then(|bytes| bytes.try_into().ok());
        if let Some(written_ms) = written_ms.map(u64::from_le_bytes) {
            seen.take(message.topic(), message.partition(), written_ms);
        }
    }
}

/// If this process is a member that is to be killed: what became of it.
pub fn member_to_kill() -> Option<Result<()>> {
    let told = std::env::var(MEMBER).ok()?;
    let mut parts = told.split(' ');
    let (brokers, group, protocol) = (parts.next()?, parts.next()?, parts.next()?.parse().ok()?);
    let live = || -> Result<()> {
        let (consumer, seen) = (consumer(brokers, group, protocol)?, Seen::default());
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            read(&consumer, &seen);
        }
        Ok(())
    };
    Some(live())
}

/// A process that ends with us.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Prints the table.
pub fn run() -> Result<()> {
    let options = kafka::Options {
        settings: BROKER
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        ..kafka::Options::default()
    };
    let cluster = Cluster::start(&options, None)?;
    let brokers = cluster.brokers();
    topics::apply(&brokers, &topics::read(&kafka::declared_topics())?)?;
    let (stop, writer) = write(&brokers)?;
    println!(
        "{PARTITIONS} partitions of windows and of pulses, a record in each every {} ms; session 6 s, heartbeat 2 s\n\
         {:<22} {:<24} {:>12} {:>22} {:>7} {:>22}",
        STEP.as_millis(),
        "protocol",
        "event",
        "longest, ms",
        format!("waited > {WAITED_MS} ms"),
        "again",
        "numbers alike"
    );
    for protocol in 0..PROTOCOLS.len() {
        measure(&brokers, protocol)?;
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().map_err(|_| anyhow!("the writer broke"))?;
    cluster.stop();
    Ok(())
}

/// A record with its time in every partition, again and again.
fn write(brokers: &str) -> Result<(Arc<AtomicBool>, JoinHandle<()>)> {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("linger.ms", "0")
        .create()?;
    let stop = Arc::<AtomicBool>::default();
    let stopped = Arc::clone(&stop);
    let thread = thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            for topic in TOPICS {
                for partition in 0..PARTITIONS as i32 {
                    let payload = unix_ms().to_le_bytes();
                    let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic)
                        .partition(partition)
                        .payload(payload.as_slice());
                    // A full queue shows as a record that was not written: nobody waits for it.
                    let _ = producer.send(record);
                }
            }
            thread::sleep(STEP);
        }
    });
    Ok((stop, thread))
}

/// Three members; a fourth joins, leaves in order, comes again as a process, and is killed.
fn measure(brokers: &str, protocol: usize) -> Result<()> {
    let seen = Arc::new(Seen::default());
    let group = format!("bench-{protocol}");
    let start = || Member::start(brokers, &group, protocol, &seen);
    let three = [start()?, start()?, start()?];
    let shared = |share: usize| {
        let begin = Instant::now();
        loop {
            let has = |member: &Member| TOPICS.map(|topic| member.numbers(topic).len());
            if three
                .iter()
                .all(|member| has(member).iter().sum::<usize>() == 2 * share)
            {
                return Ok(());
            }
            ensure!(begin.elapsed() < PATIENCE, "no share of {share}");
            thread::sleep(Duration::from_millis(20));
        }
    };
    shared(4)?;
    thread::sleep(WATCH / 4);
    let watch = |event: &str| {
        thread::sleep(WATCH);
        let waits = seen.waits();
        let waited = waits.iter().filter(|waited| **waited > WAITED_MS).count();
        let alike = three
            .iter()
            .all(|member| member.numbers(TOPICS[0]) == member.numbers(TOPICS[1]));
        println!(
            "{:<22} {event:<24} {:>12} {:>15} of {:>3} {:>7} {alike:>22}",
            PROTOCOLS[protocol].0,
            waits.iter().max().unwrap_or(&0),
            waited,
            waits.len(),
            seen.again.load(Ordering::Relaxed)
        );
        seen.begin();
    };
    seen.begin();
    watch("nothing");
    let fourth = start()?;
    watch("a fourth member joins");
    fourth.stop()?;
    watch("it leaves");
    let child = Command::new(std::env::current_exe()?)
        .env(MEMBER, format!("{brokers} {group} {protocol}"))
        .stdout(Stdio::null())
        .spawn()?;
    let child = Killed(child);
    shared(3)?;
    thread::sleep(WATCH / 4);
    seen.begin();
    drop(child);
    watch("it is killed");
    for member in three {
        member.stop()?;
    }
    Ok(())
}
