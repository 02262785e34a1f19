//! Stalls by cause: what the path, the reader and the application do.

use std::{net::SocketAddr, time::Duration};

use lab::{
    filter::Selector,
    network::{Link, Options},
    traffic::{
        client::Client,
        plan::{Plan, Reading, Request},
        server::{Listen, Server},
    },
};

use crate::{
    harness::{Events, Sampler, network, number, turn},
    trace::Readers,
};

const FLOWS: usize = 20;

/// A sampler and a server; `pacing_bytes_per_s`: the server sends no faster.
fn start(
    network: &lab::network::Network,
    port: u16,
    pacing_bytes_per_s: Option<u32>,
) -> (Sampler, SocketAddr, Server) {
    let address = SocketAddr::new(network.server_v4(), port);
    let sampler = Sampler::start(
        network.server(),
        &format!(
            "[[stream]]\nname = \"all\"\nrate = 1.0\npulse_ms = 100\nlocal = [\"{address}\"]\n"
        ),
    );
    let mut listen = Listen::new(address);
    listen.pacing_bytes_per_s = pacing_bytes_per_s;
    let server = Server::start(network.server(), &[listen]).expect("a server");
    (sampler, address, server)
}

fn causes_ms(events: &Events) -> [u64; 4] {
    ["network", "receiver", "sender", "other"]
        .map(|cause| events.sum("all", &format!("stall_{cause}_us")) / 1000)
}

#[test]
fn a_blackout_is_one_network_stall_a_flow() {
    let Some(_turn) = turn() else { return };
    let mut network = network(Options::default());
    let (sampler, address, server) = start(&network, 8101, Some(200_000));
    // One response that never ends, paced: at any time there is more to send.
    let readers = Readers::start(network.client(), address, FLOWS, 20_000_000);
    sampler.wait_for("flows run", |s| {
        s.events().sum("all", "flows_sampled") == FLOWS as u64
    });
    sampler.wait_windows(1);
    network
        .blackout(&Selector::default(), true)
        .expect("a blackout");
    std::thread::sleep(Duration::from_secs(3));
    let during = sampler.events();
    network
        .blackout(&Selector::default(), false)
        .expect("its end");
    std::thread::sleep(Duration::from_secs(4));
    let longest: Vec<Duration> = readers
        .stop()
        .iter()
        .map(|gaps| gaps.iter().copied().max().expect("reads"))
        .collect();
    drop(server);
    let events = sampler.stop();
    let open =
        |kind: &'static str, e: &Events| e.of_type(kind).map(|w| number(w, "stalls_open")).max();
    let stalled = open("window", &during).unwrap_or(0);
    assert_eq!(stalled, FLOWS as u64, "open during the blackout");
    assert!(open("pulse", &during).unwrap_or(0) > 0);
    let stalls = events.sum("all", "stalls");
    let [network_ms, receiver, sender, other] = causes_ms(&events);
    assert_eq!((receiver, sender), (0, 0));
    assert_eq!(stalls, FLOWS as u64);
    let mean_ms = network_ms / stalls;
    // What the readers' own clocks say: the last read before it to the first one after it.
    let read_ms = longest.iter().sum::<Duration>().as_millis() as u64 / FLOWS as u64;
    println!(
        "blackout: {stalls} stalls of {mean_ms} ms, by the readers {read_ms} ms, other {other} ms"
    );
    // The round trip is far below a millisecond; some reads wait for a turn on the CPU.
    assert!(mean_ms.abs_diff(read_ms) <= 100);
    let longest_ms = longest.iter().max().map_or(0, Duration::as_millis) as u64;
    let noted_ms = events
        .windows("all")
        .map(|w| number(w, "stall_longest_us") / 1000)
        .max();
    assert!(noted_ms.is_some_and(|ms| ms.abs_diff(longest_ms) <= 100));
    assert!((3000..=4100).contains(&mean_ms), "{mean_ms} ms");
    assert_eq!(other, 0);
    assert_eq!(
        number(
            events.windows("all").last().expect("a window"),
            "stalls_open"
        ),
        0
    );
}

#[test]
fn a_reader_that_stops_is_a_receiver_stall() {
    let Some(_turn) = turn() else { return };
    let network = network(Options::default());
    let (sampler, address, server) = start(&network, 8102, None);
    let mut plan = Plan::new("reader", 5, vec![address]);
    plan.request = Request::Bytes(2_000_000);
    plan.receive_buffer_bytes = Some(16_384);
    plan.reading = Reading::Stop {
        after_bytes: 100_000,
        pause: Duration::from_secs(4),
    };
    let client = Client::start(network.client(), &[plan]).expect("clients");
    client.wait().expect("clients");
    drop(server);
    sampler.wait_windows(2);
    let events = sampler.stop();
    let [network_ms, receiver, sender, other] = causes_ms(&events);
    println!(
        "reader: {} stalls, receiver {receiver} ms",
        events.sum("all", "stalls")
    );
    assert_eq!((network_ms, sender, other), (0, 0, 0));
    assert_eq!(events.sum("all", "stalls"), 5);
    assert!((5 * 3000..=5 * 5100).contains(&receiver), "{receiver} ms");
}

#[test]
fn an_idle_connection_is_none() {
    let Some(_turn) = turn() else { return };
    let network = network(Options::default());
    let (sampler, address, server) = start(&network, 8103, None);
    let plan = Plan::new("idle", 5, vec![address]).asking(2, 10_000, Duration::from_secs(5));
    Client::start(network.client(), &[plan])
        .expect("clients")
        .wait()
        .expect("clients");
    drop(server);
    sampler.wait_windows(1);
    let events = sampler.stop();
    assert_eq!(events.sum("all", "stalls"), 0);
    assert_eq!(causes_ms(&events), [0; 4]);
    assert_eq!(events.sum("all", "flows_silent"), 0);
}

/// A path whose delay jumps to `slow` one way for `length`, and back: nothing is lost.
fn delay_jump(port: u16, slow: Duration, length: Duration) {
    let Some(_turn) = turn() else { return };
    let link = Link::Delay(Duration::from_millis(20));
    let network = network(Options {
        link,
        ..Options::default()
    });
    let (sampler, address, server) = start(&network, port, None);
    let plan = Plan::new("steady", 10, vec![address]).asking(40, 20_000, Duration::from_millis(30));
    let client = Client::start(network.client(), &[plan]).expect("clients");
    sampler.wait_for("flows run", |s| {
        s.events().sum("all", "flows_sampled") == 10
    });
    let delay = network.delay().expect("a relay");
    delay.set_delay(slow);
    std::thread::sleep(length);
    delay.set_delay(Duration::from_millis(20));
    client.wait().expect("clients");
    drop(server);
    sampler.wait_windows(2);
    let events = sampler.stop();
    let [network_ms, receiver, sender, other] = causes_ms(&events);
    println!(
        "one way {slow:?}: {} stalls, other {other} ms, network {network_ms} ms; {} timers, {} retransmits, {} of them needless",
        events.sum("all", "stalls"),
        events.sum("all", "rto_count"),
        events.sum("all", "retrans_segs"),
        events.sum("all", "dsack_dups")
    );
    assert_eq!((network_ms, receiver, sender), (0, 0, 0));
    assert!(other > 0, "the jump was not seen");
}

#[test]
fn a_delay_jump_below_the_timer_is_not_the_network() {
    delay_jump(8104, Duration::from_millis(200), Duration::from_secs(3));
}

#[test]
fn a_delay_jump_past_one_timer_is_not_the_network() {
    delay_jump(8106, Duration::from_millis(320), Duration::from_secs(4));
}

#[test]
fn a_delay_jump_past_two_timers_is_not_the_network() {
    delay_jump(8107, Duration::from_millis(720), Duration::from_secs(5));
}

/// Shorter than three timers, over a path where the acknowledgements of what had arrived are
/// lost too: the last retransmission is needless, and the stall is the network's all the same.
#[test]
fn a_short_blackout_is_the_network() {
    let Some(_turn) = turn() else { return };
    let mut network = network(Options {
        link: Link::Delay(Duration::from_millis(20)),
        ..Options::default()
    });
    let (sampler, address, server) = start(&network, 8110, None);
    let plan = Plan::new("steady", FLOWS, vec![address]).asking(100, 10_000, Duration::ZERO);
    let client = Client::start(network.client(), &[plan]).expect("clients");
    sampler.wait_for("flows run", |s| {
        s.events().sum("all", "flows_sampled") == FLOWS as u64
    });
    network
        .blackout(&Selector::default(), true)
        .expect("a blackout");
    std::thread::sleep(Duration::from_millis(600));
    network
        .blackout(&Selector::default(), false)
        .expect("its end");
    client.wait().expect("clients");
    drop(server);
    sampler.wait_windows(2);
    let events = sampler.stop();
    let [network_ms, receiver, sender, other] = causes_ms(&events);
    println!(
        "short blackout: {} stalls, network {network_ms} ms, other {other} ms; {} timers, {} needless retransmits",
        events.sum("all", "stalls"),
        events.sum("all", "rto_count"),
        events.sum("all", "dsack_dups")
    );
    // A flow that waited for its client's request just then has nothing in flight.
    assert!(network_ms >= 10 * 600, "{network_ms} ms");
    assert_eq!((receiver, sender, other), (0, 0, 0));
}

#[test]
fn a_server_that_is_held_back_is_a_sender_stall() {
    let Some(_turn) = turn() else { return };
    let network = network(Options::default());
    // One or two segments a turn, and each turn waits for up to three seconds for the pacer.
    let (sampler, address, server) = start(&network, 8108, Some(5_000));
    let readers = Readers::start(network.client(), address, 5, 100_000);
    sampler.wait_for("a stall is open", |s| {
        s.events()
            .windows("all")
            .any(|w| number(w, "stalls_open") == 5)
    });
    sampler.wait_windows(6);
    let gaps = readers.stop();
    drop(server);
    sampler.wait_windows(2);
    let events = sampler.stop();
    let [network_ms, receiver, sender, other] = causes_ms(&events);
    let read_ms: u128 = gaps
        .iter()
        .flatten()
        .filter(|gap| gap.as_millis() > 250)
        .map(Duration::as_millis)
        .sum();
    println!(
        "held back: {} stalls, sender {sender} ms, gaps of the readers {read_ms} ms",
        events.sum("all", "stalls")
    );
    assert_eq!((network_ms, receiver, other), (0, 0, 0));
    let read_ms = read_ms as u64;
    assert!(read_ms > 5 * 2_000, "{read_ms} ms");
    // The stall that is open at the end is in the windows only, and no gap is longer than 3 s.
    // Of each other one the walk may miss the last part.
    let missed_ms = 50 * events.sum("all", "stalls");
    assert!(sender + missed_ms >= read_ms, "{sender} ms");
    assert!(sender <= read_ms + 5 * 3_100, "{sender} ms");
}

#[test]
fn a_server_that_writes_nothing_is_idle() {
    let Some(_turn) = turn() else { return };
    let network = network(Options::default());
    let (sampler, address, server) = start(&network, 8109, None);
    let mut plan = Plan::new("drip", 5, vec![address]);
    plan.request = Request::Drip {
        bytes: 40_000,
        chunk_bytes: 10_000,
        pause: Duration::from_millis(1_500),
    };
    Client::start(network.client(), &[plan])
        .expect("clients")
        .wait()
        .expect("clients");
    drop(server);
    sampler.wait_windows(1);
    let events = sampler.stop();
    assert_eq!(events.sum("all", "bytes_acked"), 5 * 40_000);
    assert_eq!(events.sum("all", "stalls"), 0);
    assert_eq!(causes_ms(&events), [0; 4]);
}
