//! Owners of alerts that are none any more, and owners without memory.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use lab::kafka::topics;
use nix::sys::signal::Signal;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use service::topics::{ALERT, STATE};

use crate::alerts::{Feed, HIGH, KEY, RULE, alerts, has, is_up, owner, said, words};
use crate::daemon::Daemon;
use crate::member::PATIENCE;
use crate::{broker, broker_with_topics, declared};

/// Longer than what is on is left unsaid.
const REPEATED: Duration = Duration::from_secs(18);

fn start(brokers: &str) -> Daemon {
    Daemon::start_as(brokers, "roles = [\"alert\"]\n", RULE)
}

fn reads(daemon: &Daemon) -> usize {
    daemon.log().matches("reads flowvitals.window.v1").count()
}

#[test]
fn an_owner_that_was_stopped_says_nothing_when_it_wakes() {
    let Some((_broker, brokers)) = broker_with_topics() else {
        return;
    };
    let feed = Feed::start(&brokers);
    let (first, second) = (start(&brokers), start(&brokers));
    for daemon in [&first, &second] {
        daemon.wait_for("it reads", || is_up(daemon) && reads(daemon) > 0);
    }
    let (stopped, other) = owner(first, second, "ok");
    feed.lose(HIGH);
    stopped.wait_for("it fires", || has(&stopped, "firing"));
    stopped.signal(Signal::SIGSTOP);
    let begin = Instant::now();
    other.wait_for("the other owns it", || has(&other, "firing"));
    println!(
        "stopped in an incident, owned by the other after {:.1} s",
        begin.elapsed().as_secs_f64()
    );
    // The one that sleeps would have had to say it again long ago.
    thread::sleep(REPEATED.saturating_sub(begin.elapsed()));
    let before = reads(&stopped);
    stopped.signal(Signal::SIGCONT);
    stopped.wait_for("it is a member again", || reads(&stopped) > before);
    thread::sleep(REPEATED);
    feed.lose(0);
    other.wait_for("it is over", || !said(&brokers, "resolved").is_empty());
    let words = words(&brokers, KEY);
    let epochs: Vec<_> = words
        .iter()
        .map(|word| word["owner_epoch"].as_u64())
        .collect();
    assert!(epochs.is_sorted(), "{words:#?}");
    for kind in ["fired", "resolved"] {
        assert_eq!(said(&brokers, kind).len(), 1, "{kind}: {words:#?}");
    }
    let episodes: BTreeSet<_> = words
        .iter()
        .filter_map(|word| word["episode_id"].as_str())
        .collect();
    assert_eq!(episodes.len(), 1, "{words:#?}");
    println!("{} words, owners {epochs:?}", words.len());
    stopped.stop();
    other.stop();
}

#[test]
fn without_a_topic_for_states_alerts_are_raised_all_the_same() {
    let Some(broker) = broker() else { return };
    let brokers = broker.cluster.brokers();
    let without: Vec<_> = declared()
        .into_iter()
        .filter(|topic| topic.name != STATE)
        .collect();
    topics::apply(&brokers, &without).expect("topics");
    let feed = Feed::start(&brokers);
    let daemon = start(&brokers);
    daemon.wait_for("it says what is missing", || {
        let log = daemon.log();
        log.contains("alerts begin without what was known of them") && log.contains(STATE)
    });
    daemon.wait_for("it judges", || {
        is_up(&daemon) && daemon.metric("flowvitals_aggregator_evaluations_total") >= 5.0
    });
    feed.lose(HIGH);
    daemon.wait_for("it fires", || !alerts(&daemon, "state=on").is_empty());
    daemon.kill();
    let next = start(&brokers);
    next.wait_for("the next one fires by itself", || {
        is_up(&next) && has(&next, "firing")
    });
    // Somebody takes it out of the topic: it is not there any more, until it is said again.
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &brokers)
        .set("partitioner", "murmur2_random")
        .create()
        .expect("a producer");
    let tombstone: BaseRecord<'_, str, str> = BaseRecord::to(ALERT).key(KEY);
    producer
        .send(tombstone)
        .map_err(|(error, _)| error)
        .expect("room");
    producer.flush(PATIENCE).expect("written");
    next.wait_for("it is gone", || alerts(&next, "state=on").is_empty());
    next.wait_for("it is said again", || !alerts(&next, "state=on").is_empty());
    feed.lose(0);
    next.wait_for("it resolves", || has(&next, "ok"));
    next.stop();
}
