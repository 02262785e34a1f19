//! Each flow is counted in the stream whose rule takes it first, and in no other.

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use lab::{
    clock,
    counters::{self, TcpCounters},
    filter::{Selector, Towards},
    network::{Network, Options},
    traffic::{
        self,
        client::Client,
        plan::Plan,
        server::{Listen, Server, ServerFlow},
    },
};
use sampler::kernel::cgroup;

use crate::harness::{Events, PATIENCE, Sampler, http_get, network, number, turn};

const BYTES: u64 = 2_000;
/// Of every pair of a server and a client.
const ROUNDS: usize = 10;

/// A stream with these lines, every flow of it in the sample.
fn stream(name: &str, lines: &str) -> String {
    format!("[[stream]]\nname = {name:?}\nrate = 1.0\n{lines}\n")
}

fn plan(connections: usize, servers: Vec<SocketAddr>) -> Plan {
    Plan::new("short", connections, servers).asking(1, BYTES, Duration::ZERO)
}

/// The stream has so many flows, from their first to their last byte.
fn assert_flows(events: &Events, stream: &str, flows: usize) {
    for field in ["flows_seen", "flows_sampled", "flows_closed"] {
        assert_eq!(
            events.sum(stream, field),
            flows as u64,
            "{field} of {stream}"
        );
    }
    assert_eq!(
        events.sum(stream, "bytes_acked"),
        flows as u64 * BYTES,
        "{stream}"
    );
}

const STREAMS: [&str; 7] = ["near", "vip", "rest", "net", "range", "marked", "unmarked"];

/// Where a flow belongs by the rules of the test below.
fn belongs(network: &Network, flow: &ServerFlow) -> &'static str {
    let near = network.clients_v4()[..2].contains(&flow.client.ip());
    match (flow.server.port(), flow.server.is_ipv4()) {
        (8132, true) if near => "near",
        (8132, true) => "vip",
        (8132, false) => "rest",
        (8134, true) => "net",
        (8133..=8135, _) => "range",
        (8136, true) => "marked",
        _ => "unmarked",
    }
}

#[test]
fn the_first_rule_takes_the_flow() {
    let Some(_turn) = turn() else { return };
    let network = network(Options {
        client_addresses: 4,
        ..Options::default()
    });
    let (v4, v6) = (network.server_v4(), network.server_v6());
    let [first, second, ..] = network.clients_v4()[..] else {
        panic!("four clients");
    };
    let subnet = IpNet::new(v4, 24).expect("a prefix").trunc();
    let config = [
        stream(
            "near",
            &format!("local = [\"{v4}:8132\"]\nremote = [\"{first}/32\", \"{second}\"]"),
        ),
        stream("vip", &format!("local = [\"{v4}:8132\"]")),
        stream("rest", "local = [\"*:8132\"]"),
        stream("net", &format!("local = [\"{subnet}:8134\"]")),
        stream("range", "local = [\"*:8133-8135\"]"),
        stream("marked", "local = [\"*:8136-8137\"]\nmark = 7"),
        stream("unmarked", "local = [\"*:8136-8137\"]"),
    ]
    .concat();
    let sampler = Sampler::start(network.server(), &config);
    let mut listens = Vec::new();
    for port in 8131..=8137 {
        listens.extend([v4, v6].map(|address| Listen::new(SocketAddr::new(address, port))));
    }
    for listen in &mut listens {
        listen.mark = match (listen.address.port(), listen.address.is_ipv4()) {
            (8136, true) => Some(7),
            (8137, true) => Some(8),
            _ => None,
        };
    }
    // Every pair of a server and a client of one family.
    let plans =
        [(true, network.clients_v4()), (false, network.clients_v6())].map(|(is_v4, clients)| {
            let servers = listens.iter().map(|l| l.address);
            let servers: Vec<_> = servers.filter(|s| s.is_ipv4() == is_v4).collect();
            let mut plan = plan(ROUNDS * servers.len() * clients.len(), servers);
            plan.clients = clients;
            plan
        });
    let report = traffic::run(&network, &listens, &plans).expect("traffic");
    sampler.wait_windows(2);
    let events = sampler.stop();
    assert_eq!(report.accepted(), ROUNDS * listens.len() * 4);
    // Nobody's port.
    let ours = report.servers.iter().filter(|f| f.server.port() != 8131);
    let ours: Vec<_> = ours.map(|flow| belongs(&network, flow)).collect();
    for name in STREAMS {
        let flows = ours.iter().filter(|owner| **owner == name).count();
        assert!(flows > 0, "no flow of {name}");
        assert_flows(&events, name, flows);
        println!("{name}: {flows} flows");
    }
    assert_eq!(events.sum_all("flows_seen"), ours.len() as u64);
    events.assert_laws();
}

/// A cgroup of our own; removed when dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    /// At this path below the mount.
    fn new(path: &str) -> Self {
        let mount = cgroup::mount().expect("cgroup v2");
        let directory = mount.join(path.trim_start_matches('/'));
        fs::create_dir(&directory).expect("a cgroup");
        Self(directory)
    }

    /// Runs `work` with this process in it: sockets made there belong to it for ever.
    fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        let own = fs::read_to_string("/proc/self/cgroup").expect("our cgroup");
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
        let mount = cgroup::mount().expect("cgroup v2");
        let home = mount.join(own.expect("a cgroup v2"));
        move_to(&self.0);
        let done = work();
        move_to(&home);
        done
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A child that another test started meanwhile may still be in it. In vain only after a
        // panic within: then this process is.
        clock::wait_until(Duration::from_secs(5), || fs::remove_dir(&self.0).is_ok());
    }
}

fn move_to(cgroup: &std::path::Path) {
    let this = std::process::id().to_string();
    fs::write(cgroup.join("cgroup.procs"), this).expect("a move between cgroups");
}

/// Waits until three places agree on whether stream "unit" is degraded.
fn wait_degraded(network: &Network, sampler: &Sampler, degraded: bool) {
    sampler.wait_for("the stream is degraded, or no more", |s| {
        let events = s.events();
        let Some(beat) = events.of_type("node").last() else {
            return false;
        };
        let streams = beat["streams"].as_array().expect("streams");
        let unit = streams.iter().find(|s| s["stream"] == "unit");
        let said = unit.expect("the stream")["degraded"].as_str();
        said.is_some_and(|said| said.contains("is not there") == degraded)
    });
    let metrics = http_get(network.server(), "/metrics");
    let gauge = format!("\nflowvitals_streams_degraded {}\n", u8::from(degraded));
    assert!(metrics.contains(&gauge), "{metrics}");
}

#[test]
fn a_cgroup_comes_and_goes() {
    const FLOWS: usize = 20;
    let Some(_turn) = turn() else { return };
    let network = network(Options::default());
    let address = |port| SocketAddr::new(network.server_v4(), port);
    let path = format!("/fvtest-{}", std::process::id());
    let local = format!("local = [\"{}:8140-8143\"]", network.server_v4());
    let config = stream("unit", &format!("{local}\ncgroup = {path:?}")) + &stream("rest", &local);
    let listen =
        |port| Server::start(network.server(), &[Listen::new(address(port))]).expect("a server");
    let connect = |ports: &[u16]| {
        let servers: Vec<_> = ports.iter().copied().map(address).collect();
        let plan = plan(FLOWS * ports.len(), servers);
        let client = Client::start(network.client(), &[plan]).expect("clients");
        client.wait().expect("clients");
        let closed = counters::wait_closed(network.server(), ports, PATIENCE);
        assert!(closed.expect("sockets"), "connections stay open");
    };
    let sampler = Sampler::start(network.server(), &config);
    let not_there = format!("cgroup {path} is not there");
    let there = format!("cgroup {path} is there");
    let said = |text: &str| sampler.log().matches(text).count();

    wait_degraded(&network, &sampler, true);
    assert_eq!((said(&not_there), said(&there)), (1, 0));
    let outside = listen(8140);
    connect(&[8140]); // rest

    let unit = Cgroup::new(&path);
    let child = Cgroup::new(&format!("{path}/worker"));
    wait_degraded(&network, &sampler, false);
    assert_eq!((said(&not_there), said(&there)), (1, 1));
    let inside = unit.within(|| listen(8141));
    let below = child.within(|| listen(8142));
    connect(&[8140, 8141, 8142]); // rest, unit, unit

    drop(child);
    drop(unit);
    wait_degraded(&network, &sampler, true);
    assert_eq!((said(&not_there), said(&there)), (2, 1));
    connect(&[8141]); // rest: its cgroup is no more

    let unit = Cgroup::new(&path);
    wait_degraded(&network, &sampler, false);
    assert_eq!((said(&not_there), said(&there)), (2, 2));
    let again = unit.within(|| listen(8143));
    connect(&[8141, 8143]); // rest, unit: a cgroup of the same name is another one

    sampler.wait_windows(2);
    drop((outside, inside, below, again));
    let events = sampler.stop();
    assert_flows(&events, "unit", 3 * FLOWS);
    assert_flows(&events, "rest", 4 * FLOWS);
    assert_eq!(number(events.last_heartbeat(), "flows_open"), 0);
    events.assert_laws();
}

#[test]
fn a_cgroup_that_comes_back_under_loss_is_counted_to_the_segment() {
    const FLOWS: usize = 60;
    const PLAYERS: usize = 10;
    let Some(_turn) = turn() else { return };
    let mut network = network(Options::default());
    network
        .set_loss(Towards::Client, &Selector::default(), 0.1)
        .expect("loss");
    let address = |port| SocketAddr::new(network.server_v4(), port);
    let path = format!("/fvtest-back-{}", std::process::id());
    let local = format!("local = [\"{}:8151-8152\"]", network.server_v4());
    let config = [
        stream("unit", &format!("{local}\ncgroup = {path:?}")),
        stream("rest", &local),
        stream("other", &format!("local = [\"{}\"]", address(8153))),
    ]
    .concat();
    let listen =
        |port| Server::start(network.server(), &[Listen::new(address(port))]).expect("a server");
    let play = |port| {
        let client = Client::start(network.client(), &[plan(FLOWS, vec![address(port)])]);
        client.and_then(Client::wait).expect("clients");
        let closed = counters::wait_closed(network.server(), &[port], PATIENCE);
        assert!(closed.expect("sockets"), "connections stay open");
    };
    let id = || cgroup::cgroup_id(&cgroup::mount().expect("cgroup v2"), &path);

    let unit = Cgroup::new(&path);
    let first_id = id().expect("a cgroup");
    let sampler = Sampler::start(network.server(), &config);
    wait_degraded(&network, &sampler, false);
    let before = TcpCounters::read(network.server()).expect("counters");
    let first = unit.within(|| listen(8151));
    // Goes on through all of it.
    let other = listen(8153);
    let often = Duration::from_millis(50);
    let stay = Plan::new("stay", PLAYERS, vec![address(8153)]).asking(1_000_000, 5_000, often);
    let players = Client::start(network.client(), &[stay]).expect("players");
    play(8151); // unit

    drop(unit);
    wait_degraded(&network, &sampler, true);
    play(8151); // rest: while the stream says that its cgroup is not there

    let unit = Cgroup::new(&path);
    assert_ne!(id().expect("a cgroup"), first_id);
    wait_degraded(&network, &sampler, false);
    let again = unit.within(|| listen(8152));
    play(8152); // unit
    play(8151); // rest: of the cgroup that is no more

    players.stop().expect("players");
    let closed = counters::wait_closed(network.server(), &[8153], PATIENCE);
    assert!(closed.expect("sockets"), "players stay");
    let kernel = TcpCounters::read(network.server()).expect("counters");
    let kernel = kernel.since(&before).data_retrans_segs();
    sampler.wait_windows(2);
    drop((first, again, other));
    let events = sampler.stop();
    assert_flows(&events, "unit", 2 * FLOWS);
    assert_flows(&events, "rest", 2 * FLOWS);
    assert_eq!(events.sum("other", "flows_closed"), PLAYERS as u64);
    let lost = ["unit", "rest", "other"].map(|name| events.sum(name, "retrans_segs"));
    println!("retransmitted: {lost:?} in the windows of each stream, {kernel} in the kernel");
    assert!(lost.iter().all(|segments| *segments > 0), "{lost:?}");
    assert_eq!(lost.iter().sum::<u64>(), kernel);
    events.assert_laws();
}
