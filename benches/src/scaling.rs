//! Windows through a real Kafka into the merge, with one, two and four members; and whether a backlog makes live data late: one that
//! another group reads, and one that nodes replay into the same partitions. 20 nodes with 50 streams of 100 sampled flows each: 1,000 windows a second. The broker shares the processors.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use aggregator::consume::{Arrival, Consume, Input, Kafka, Partition};
use aggregator::input::{Key, Sequences, Taken, Topic};
use aggregator::merge::{Live, LiveOptions};
use anyhow::{Result, anyhow, ensure};
use lab::clock::unix_ms;
use nix::sys::resource::{UsageWho, getrusage};
use sampler_event::Event;
use tokio::sync::mpsc::Receiver;

use crate::site::{NODES, STREAMS, Site, broker};
use crate::statistics::Samples;

/// Seconds of the site that lie in the topic before anybody reads.
const BACKLOG_S: u64 = 600;
/// Partitions of the windows.
const PARTITIONS: usize = 12;
/// Members that are compared.
const MEMBERS: [usize; 3] = [1, 2, 4];
/// How far back who reads a backlog begins: all that was written.
const EVERYTHING: Duration = Duration::from_secs(3_600);
/// How far back who reads live data begins, as the aggregator does.
const HORIZON: Duration = Duration::from_secs(120);
/// How long live data is watched without a backlog beside it.
const QUIET: Duration = Duration::from_secs(20);
/// Nodes replay so many windows for each live one: `replay_events_per_s` of the sampler is 1,000, and a node has 50 streams.
const REPLAYED: u64 = 20;
const PATIENCE: Duration = Duration::from_secs(600);

/// What the members of one group did, together.
#[derive(Default)]
struct Done {
    /// Windows that the members hold: what one loses to another is read again, and counts once.
    held: AtomicU64,
    again: AtomicU64,
    /// Members that have their share of the partitions.
    settled: AtomicUsize,
    /// Largest age of a record when it was merged, since it was last asked for, ms; of records that came after the start.
    latest_ms: AtomicU64,
    stop: AtomicBool,
}

/// A group at work.
struct Group {
    done: Arc<Done>,
    members: Vec<JoinHandle<()>>,
}

impl Group {
    fn start(brokers: &str, name: &str, members: usize, horizon: Duration) -> Result<Self> {
        let done = Arc::new(Done::default());
        let settings = Kafka {
            brokers: vec![brokers.to_owned()],
            group_prefix: format!("bench-{name}"),
            properties: BTreeMap::new(),
        };
        let member = |_| {
            let (consume, inputs) = Consume::start(&settings, horizon)?;
            let (done, share) = (Arc::clone(&done), PARTITIONS / members);
            Ok(thread::spawn(move || work(consume, inputs, share, &done)))
        };
        let members = (0..members).map(member).collect::<Result<_>>()?;
        Ok(Self { done, members })
    }

    fn read(&self) -> u64 {
        self.done.held.load(Ordering::Relaxed)
    }

    /// Waits until every member has its share.
    fn settle(&self) -> Result<()> {
        let begin = Instant::now();
        while self.done.settled.load(Ordering::Relaxed) < self.members.len() {
            ensure!(begin.elapsed() < PATIENCE, "the members do not settle");
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn until(&self, count: u64) -> Result<()> {
        let begin = Instant::now();
        while self.read() < count {
            ensure!(
                begin.elapsed() < PATIENCE,
                "{} of {count} came",
                self.read()
            );
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Largest age since it was last asked for.
    fn latest_ms(&self) -> u64 {
        self.done.latest_ms.swap(0, Ordering::Relaxed)
    }

    fn stop(self) -> Result<()> {
        self.done.stop.store(true, Ordering::Relaxed);
        for member in self.members {
            member.join().map_err(|_| anyhow!("a member broke"))?;
        }
        Ok(())
    }
}

/// What the daemon does with what its readers give it.
fn work(consume: Consume, mut inputs: Receiver<Input>, share: usize, done: &Done) {
    let (began_ms, begin) = (unix_ms(), Instant::now());
    // What was seen of each partition, and how many windows are held of it.
    let mut known: HashMap<Partition, (Sequences, u64)> = HashMap::new();
    let mut settled = false;
    let mut live = Live::new(LiveOptions::default());
    let committer = consume.committer();
    while !done.stop.load(Ordering::Relaxed) {
        let batch = match inputs.try_recv() {
            Ok(Input::Batch(batch)) => batch,
            Ok(Input::Assigned(partitions)) => {
                let fresh = partitions.into_iter();
                known.extend(fresh.map(|one| (one, Default::default())));
                let windows = known.keys().filter(|(topic, _)| *topic == Topic::Window);
                if windows.count() == share && !settled {
                    settled = true;
                    done.settled.fetch_add(1, Ordering::Relaxed);
                }
                continue;
            }
            Ok(Input::Revoked(partitions)) => {
                for one in partitions {
                    let (_, held) = known.remove(&one).unwrap_or_default();
                    done.held.fetch_sub(held, Ordering::Relaxed);
                }
                if settled {
                    settled = false;
                    done.settled.fetch_sub(1, Ordering::Relaxed);
                }
                continue;
            }
            Ok(Input::CaughtUp(_)) => continue,
            Err(_) => {
                thread::sleep(Duration::from_millis(1));
                continue;
            }
        };
        let since_ms = begin.elapsed().as_millis() as u64;
        for arrival in &batch {
            let partition = (arrival.topic, arrival.partition);
            let (sequences, held) = known.entry(partition).or_default();
            if take(arrival, sequences, &mut live, since_ms) {
                *held += 1;
                done.held.fetch_add(1, Ordering::Relaxed);
            } else {
                done.again.fetch_add(1, Ordering::Relaxed);
            }
            if arrival.append_ms > began_ms {
                let age_ms = unix_ms().saturating_sub(arrival.append_ms);
                done.latest_ms.fetch_max(age_ms, Ordering::Relaxed);
            }
            committer.commit(arrival.topic, arrival.partition, arrival.offset + 1);
        }
        live.expire();
    }
    consume.stop();
}

/// Whether it was new.
fn take(arrival: &Arrival, known: &mut Sequences, live: &mut Live, now_ms: u64) -> bool {
    let Event::Window(window) = &arrival.event else {
        return false;
    };
    let key = Key::from(&arrival.event);
    let new = known.take(key, window.sequence, now_ms) == Taken::New;
    if new {
        live.add(window, arrival.append_ms);
    }
    new
}

/// Processor time of this process: members, and where there is one the producer.
fn cpu() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
    let micros = micros(usage.user_time()) + micros(usage.system_time());
    Ok(Duration::from_micros(u64::try_from(micros)?))
}

/// Prints the tables.
pub fn run() -> Result<()> {
    let cluster = broker()?;
    let brokers = cluster.brokers();
    let mut site = Site::new(&brokers)?;
    let end_ms = unix_ms() / 1_000 * 1_000;
    let begin = Instant::now();
    for second in (1..=BACKLOG_S).rev() {
        site.second(end_ms - second * 1_000)?;
    }
    site.flush()?;
    println!(
        "{NODES} nodes, {STREAMS} streams each: {} windows ({BACKLOG_S} s of the site) written in {:.1} s",
        site.written(),
        begin.elapsed().as_secs_f64()
    );
    println!(
        "{:<10} {:>12} {:>12} {:>24} {:>8}",
        "members", "windows", "windows/s", "windows/s of own CPU", "again"
    );
    for members in MEMBERS {
        compare(&brokers, members, site.written())?;
    }
    beside_a_backlog(&brokers, site, end_ms)?;
    cluster.stop();
    Ok(())
}

/// All that lies in the topic, by so many members of a new group.
fn compare(brokers: &str, members: usize, count: u64) -> Result<()> {
    let group = Group::start(brokers, &members.to_string(), members, EVERYTHING)?;
    // Joining is not reading.
    group.settle()?;
    let (begin, used, first) = (Instant::now(), cpu()?, group.read());
    group.until(count)?;
    let (took, used) = (begin.elapsed(), cpu()? - used);
    let read = (group.read() - first) as f64;
    println!(
        "{members:<10} {read:>12.0} {:>12.0} {:>24.0} {:>8}",
        read / took.as_secs_f64(),
        read / used.as_secs_f64(),
        group.done.again.load(Ordering::Relaxed)
    );
    group.stop()
}

/// One group reads what is live; then another one reads all that there is beside it; then nodes replay as much.
fn beside_a_backlog(brokers: &str, site: Site, end_ms: u64) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicU64::new(site.written()));
    let writer = {
        let (stop, written) = (Arc::clone(&stop), Arc::clone(&written));
        thread::spawn(move || write_live(site, &stop, &written))
    };
    let live = Group::start(brokers, "live", 1, HORIZON)?;
    // Until it has what was written before it came, and a moment more.
    thread::sleep(Duration::from_secs(15));
    live.latest_ms();
    println!(
        "live data, oldest when merged in each second, ms:\n{:<24} {:>8} {:>8} {:>8} {:>14}",
        "", "p50", "p99", "max", "windows/s"
    );
    let begin = Instant::now();
    let mut ages = Samples::default();
    while begin.elapsed() < QUIET {
        thread::sleep(Duration::from_secs(1));
        ages.push(live.latest_ms() as f64);
    }
    print_ages("alone", &ages, "");
    let backlog = Group::start(brokers, "backlog", 1, EVERYTHING)?;
    let (begin, mut ages) = (Instant::now(), Samples::default());
    let wanted = written.load(Ordering::Relaxed);
    while backlog.read() < wanted {
        ensure!(begin.elapsed() < PATIENCE, "the backlog does not end");
        // Shorter than a second: the backlog may be read in a few.
        thread::sleep(Duration::from_millis(250));
        ages.push(live.latest_ms() as f64);
    }
    let speed = wanted as f64 / begin.elapsed().as_secs_f64();
    print_ages("beside a backlog", &ages, &format!("{speed:.0}"));
    let rate = (NODES * STREAMS) as f64;
    println!(
        "{wanted} windows of backlog read in {:.1} s, {:.0} times the live rate",
        begin.elapsed().as_secs_f64(),
        speed / rate
    );
    backlog.stop()?;
    among_replayed(brokers, &live, end_ms)?;
    stop.store(true, Ordering::Relaxed);
    writer.join().map_err(|_| anyhow!("the writer broke"))??;
    live.stop()
}

/// As many nodes again come back and replay the same backlog, so much faster than live, into the same partitions.
fn among_replayed(brokers: &str, live: &Group, end_ms: u64) -> Result<()> {
    let mut site = Site::returning(brokers)?;
    let seconds = (1..=BACKLOG_S)
        .rev()
        .map(move |second| end_ms - second * 1_000);
    let writer = thread::spawn(move || -> Result<u64> {
        let begin = Instant::now();
        for (number, start_ms) in seconds.enumerate() {
            site.second(start_ms)?;
            let due = Duration::from_secs(1) * (number as u32 + 1) / REPLAYED as u32;
            thread::sleep(due.saturating_sub(begin.elapsed()));
        }
        site.flush()?;
        Ok(site.written())
    });
    let (begin, mut ages) = (Instant::now(), Samples::default());
    live.latest_ms();
    while !writer.is_finished() {
        thread::sleep(Duration::from_millis(250));
        ages.push(live.latest_ms() as f64);
    }
    let written = writer.join().map_err(|_| anyhow!("the writer broke"))??;
    let speed = written as f64 / begin.elapsed().as_secs_f64();
    print_ages("among replayed ones", &ages, &format!("{speed:.0}"));
    Ok(())
}

fn print_ages(name: &str, ages: &Samples, speed: &str) {
    println!(
        "{name:<24} {:>8.0} {:>8.0} {:>8.0} {speed:>14}",
        ages.median(),
        ages.quantile(0.99),
        ages.quantile(1.0)
    );
}

/// Each node writes its windows once a second, at its own moment.
fn write_live(mut site: Site, stop: &AtomicBool, written: &AtomicU64) -> Result<()> {
    let begin = Instant::now();
    let step = Duration::from_secs(1) / u32::try_from(NODES)?;
    for turn in 0_u32.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let due = step * turn;
        thread::sleep(due.saturating_sub(begin.elapsed()));
        let node = u64::from(turn) % NODES;
        site.node_second(node, unix_ms() / 1_000 * 1_000 - 1_000)?;
        if node == NODES - 1 {
            site.second_over();
            written.store(site.written(), Ordering::Relaxed);
        }
    }
    site.flush()
}
