//! The daemon killed without a warning while no broker is there: its next life sends what it left on the disk.
//!
//! Needs Java and Maven, as `kafka`.

use std::{net::SocketAddr, slice, time::Duration};

use lab::{
    kafka::{declared_topics, topics},
    netns::Namespace,
    network::Options,
    traffic::{
        client::Client,
        plan::Plan,
        server::{Listen, Server},
    },
};
use sampler_event::{Flag, NodeHeartbeat, StreamWindow};
use service::metrics::parse;

use crate::harness::{Sampler, http_get, lives, network, turn};
use crate::kafka::{HEARTBEATS, WINDOWS, decoded, free_port, start_broker, wait_log};

const PORT: u16 = 8131;
/// Events on the disk when it is killed: some windows of one stream, and their heartbeats.
const LEFT: f64 = 12.0;

/// A metric without labels; 0 where it is not there.
pub fn metric(namespace: &Namespace, name: &str) -> f64 {
    let answer = http_get(namespace, "/metrics");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
    let parsed = parse(body).expect("exposition");
    parsed.value(name).unwrap_or_default()
}

#[test]
fn a_killed_daemon_leaves_its_windows_to_the_next_one() {
    let Some(_turn) = turn() else { return };
    let network = network(Options::default());
    let namespace = network.server();
    let address = SocketAddr::new(network.server_v4(), PORT);
    let broker_port = free_port(namespace);
    let config = format!(
        "[kafka]\nbrokers = [\"127.0.0.1:{broker_port}\"]\n[[stream]]\nname = \"sport\"\nrate = 1.0\nlocal = [\"{address}\"]\n"
    );
    let first = Sampler::start(namespace, &config);
    let server = Server::start(namespace, &[Listen::new(address)]).expect("a server");
    let plan =
        Plan::new("steady", 5, vec![address]).asking(100_000, 5_000, Duration::from_millis(50));
    let players = || Client::start(network.client(), slice::from_ref(&plan)).expect("clients");
    let first_players = players();
    first.wait_for("windows are on the disk", |_| {
        metric(namespace, "flowvitals_spool_events") >= LEFT
    });
    assert!(metric(namespace, "flowvitals_spool_age_seconds") > 0.0);
    assert!(metric(namespace, "flowvitals_spool_room_seconds") > 60.0);
    let state = first.kill();

    let Some(cluster) = start_broker(namespace, broker_port) else {
        return;
    };
    let brokers = cluster.brokers();
    let declared = topics::read(&declared_topics()).expect("declared topics");
    namespace
        .run_in(|| topics::apply(&brokers, &declared))
        .expect("the namespace")
        .expect("topics");
    let second = Sampler::start_in(namespace, state);
    wait_log(&second, "it found what was left", |log| {
        log.contains("the spool holds events of an earlier life")
    });
    let second_players = players();
    second.wait_for("all is sent", |_| {
        metric(namespace, "flowvitals_stream_sent_bytes_total") > 0.0
            && metric(namespace, "flowvitals_events_delivered_total") > LEFT
            && metric(namespace, "flowvitals_spool_backlog_events") == 0.0
    });
    for players in [first_players, second_players] {
        players.stop().expect("clients");
    }
    server.stop().expect("a server");
    let log = second.stop_with_log();
    assert!(log.contains("every event is confirmed"), "{log}");

    let windows = decoded(
        namespace,
        &brokers,
        &declared,
        WINDOWS,
        |w: &StreamWindow| &w.stream,
    );
    let heartbeats = decoded(
        namespace,
        &brokers,
        &declared,
        HEARTBEATS,
        |h: &NodeHeartbeat| &h.node,
    );
    let last = heartbeats.iter().max_by_key(|h| h.window_start_ms);
    let last = last.expect("a heartbeat");
    let (second, first) = (last.instance, last.previous_instance);
    let windows_of = lives(windows.iter().map(|w| (w.instance, w.sequence)));
    let heartbeats_of = lives(heartbeats.iter().map(|h| (h.instance, h.sequence)));
    for (kind, of) in [("windows", &windows_of), ("heartbeats", &heartbeats_of)] {
        assert_eq!(of.len(), 2, "{kind} of two lives");
        for life in [first, second] {
            let expected: Vec<u64> = (0..of[&life].len() as u64).collect();
            assert_eq!(of[&life], expected, "{kind}: each once, no gap");
        }
    }
    let left = (windows_of[&first].len() + heartbeats_of[&first].len()) as u64;
    println!("{left} events of the killed life arrived");
    assert!(left >= LEFT as u64);
    assert_eq!((last.earlier_found, last.earlier_delivered), (left, left));
    assert_eq!((last.earlier_dropped, last.earlier_at_risk), (0, 0));
    let replayed = |flags: u32| flags & Flag::Replayed as u32 != 0;
    assert!(
        windows
            .iter()
            .all(|w| replayed(w.flags) == (w.instance == first))
    );
    assert!(
        heartbeats
            .iter()
            .all(|h| replayed(h.flags) == (h.instance == first))
    );
    assert!(last.broken_laws.is_empty(), "{:?}", last.broken_laws);
}
