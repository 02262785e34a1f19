//! The lab on the real kernel: what its two ends count, and what the kernel counted meanwhile.
//!
//! Needs root; without it every test says why it is skipped, or fails if
//! `FLOWVITALS_REQUIRE_KERNEL=1` says that it must run.

use std::net::SocketAddr;
use std::time::Duration;

use lab::clock;
use lab::counters::TcpCounters;
use lab::filter::{Selector, Towards};
use lab::network::{Link, Network, Options};
use lab::traffic::client::Client;
use lab::traffic::plan::{End, Plan, Reading, Request};
use lab::traffic::report::Report;
use lab::traffic::server::{Congestion, Listen, Server, ServerEnd};
use lab::traffic::{self};

const PORT: u16 = 8080;

fn network(options: Options) -> Option<Network> {
    match Network::new(options) {
        Ok(network) => Some(network),
        Err(error) if std::env::var_os("FLOWVITALS_REQUIRE_KERNEL").is_some() => {
            panic!("no network: {error}")
        }
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

fn v4(network: &Network, port: u16) -> SocketAddr {
    SocketAddr::new(network.server_v4(), port)
}

fn assert_all_read(report: &Report, connections: usize) {
    assert_eq!(report.failed(), 0, "{:?}", report.groups);
    assert_eq!(report.accepted(), connections);
    assert_eq!(report.bytes_read(), report.bytes_written());
}

#[test]
fn every_kind_of_end_is_seen_alike_on_both_sides() {
    let Some(network) = network(Options::default()) else {
        return;
    };
    let wild = Listen {
        dual_stack: true,
        ..Listen::new("[::]:8080".parse().unwrap())
    };
    let servers = vec![
        v4(&network, PORT),
        SocketAddr::new(network.server_v6(), PORT),
    ];
    let plan = |name, end| {
        Plan::new(name, 20, servers.clone())
            .asking(3, 50_000, Duration::from_millis(5))
            .ending(end)
    };
    let plans = [
        plan("client fin", End::ClientFin),
        plan("server fin", End::ServerFin),
        plan("half close", End::HalfClose),
        plan("client reset", End::ClientReset),
        plan("server reset", End::ServerReset),
        plan(
            "abort",
            End::Abort {
                after_bytes: 60_000,
            },
        ),
    ];
    let before = TcpCounters::read(network.server()).unwrap();
    let report = traffic::run(&network, &[wild], &plans).unwrap();
    let seen = TcpCounters::read(network.server()).unwrap().since(&before);

    assert_eq!(report.failed(), 0, "{:?}", report.groups);
    assert_eq!(report.accepted(), 120);
    assert_eq!(seen.passive_opens, 120);
    for name in ["client fin", "server fin", "half close"] {
        let group = report.group(name).unwrap();
        assert_eq!(
            (group.closed_fin, group.bytes_read),
            (20, 3_000_000),
            "{name}"
        );
    }
    for name in ["client reset", "server reset"] {
        let group = report.group(name).unwrap();
        assert_eq!(
            (group.closed_reset, group.bytes_read),
            (20, 3_000_000),
            "{name}"
        );
    }
    let abort = report.group("abort").unwrap();
    assert_eq!((abort.closed_reset, abort.bytes_read), (20, 1_200_000));
    assert_eq!(report.bytes_written_fin(), 9_000_000);
    let ends = |end| report.servers.iter().filter(|flow| flow.end == end).count();
    assert_eq!(ends(ServerEnd::ClientFin), 40);
    assert_eq!(ends(ServerEnd::ServerFin), 20);
    assert_eq!(ends(ServerEnd::Reset), 40);
    assert_eq!(ends(ServerEnd::ResetSent), 20);
    assert_eq!(
        report.servers.iter().filter(|f| f.client.is_ipv4()).count(),
        60
    );
}

#[test]
fn loss_costs_retransmits_and_no_byte() {
    let Some(mut network) = network(Options::default()) else {
        return;
    };
    network
        .set_loss(Towards::Client, &Selector::any(), 0.05)
        .unwrap();
    network
        .set_loss(Towards::Server, &Selector::any(), 0.01)
        .unwrap();
    for congestion in [Congestion::Bbr, Congestion::Cubic, Congestion::Reno] {
        let listen = Listen::new(v4(&network, PORT)).with(congestion);
        let plan = Plan::new("lossy", 50, vec![listen.address]).asking(2, 100_000, Duration::ZERO);
        let before = TcpCounters::read(network.server()).unwrap();
        let report = traffic::run(&network, &[listen], &[plan]).unwrap();
        let seen = TcpCounters::read(network.server()).unwrap().since(&before);
        assert_all_read(&report, 50);
        assert_eq!(report.bytes_read(), 10_000_000);
        // 7,000 segments at 5 %: 350 are expected, and far more than 100 certain.
        assert!(seen.data_retrans_segs() > 100, "{congestion:?}: {seen:?}");
    }
}

#[test]
fn loss_is_a_matter_of_the_port() {
    let Some(mut network) = network(Options::default()) else {
        return;
    };
    network
        .set_loss(Towards::Client, &Selector::any(), 0.3)
        .unwrap();
    network
        .set_loss(Towards::Client, &Selector::port(PORT), 0.0)
        .unwrap();
    let listen = Listen::new(v4(&network, PORT));
    let plan = Plan::new("spared", 20, vec![listen.address]);
    let before = TcpCounters::read(network.client()).unwrap();
    let report = traffic::run(&network, &[listen], std::slice::from_ref(&plan)).unwrap();
    let spared = TcpCounters::read(network.client()).unwrap();
    assert_all_read(&report, 20);
    assert_eq!(spared.since(&before).syn_retrans, 0);

    network
        .clear_loss(Towards::Client, &Selector::port(PORT))
        .unwrap();
    let report = traffic::run(&network, &[listen], &[plan]).unwrap();
    assert_all_read(&report, 20);
    let lossy = TcpCounters::read(network.server()).unwrap();
    assert!(lossy.retrans_segs > 50, "{lossy:?}");
}

#[test]
fn a_blackout_stops_everything_until_it_ends() {
    let Some(mut network) = network(Options::default()) else {
        return;
    };
    let listen = Listen::new(v4(&network, PORT));
    let server = Server::start(network.server(), &[listen]).unwrap();
    let plan =
        Plan::new("dark", 10, vec![listen.address]).asking(100, 20_000, Duration::from_millis(10));
    let client = Client::start(network.client(), std::slice::from_ref(&plan)).unwrap();
    assert!(clock::wait_until(Duration::from_secs(10), || server.open() == 10));
    network.blackout(&Selector::any(), true).unwrap();
    let dark = TcpCounters::read(network.client()).unwrap();
    std::thread::sleep(Duration::from_millis(700));
    let still_dark = TcpCounters::read(network.client()).unwrap().since(&dark);
    assert_eq!(still_dark.in_segs, 0);
    assert!(!client.is_finished());
    network.blackout(&Selector::any(), false).unwrap();
    let clients = client.wait().unwrap();
    assert!(server.idle_within(Duration::from_secs(20)));
    let report = Report::new(&[plan], clients, server.stop().unwrap());
    assert_all_read(&report, 10);
    assert_eq!(report.groups[0].responses, 1_000);
    // Requests or responses were under way when it went dark, so either end's timer ran out.
    let [server, client] =
        [network.server(), network.client()].map(|side| TcpCounters::read(side).unwrap());
    assert!(
        server.timeouts + client.timeouts > 0,
        "{server:?} {client:?}"
    );
}

#[test]
fn readers_and_servers_can_be_slow() {
    let Some(network) = network(Options::default()) else {
        return;
    };
    let listens = [
        Listen::new(v4(&network, PORT)),
        Listen {
            pacing_bytes_per_s: Some(100_000),
            ..Listen::new(v4(&network, PORT + 1))
        },
    ];
    let stop = Duration::from_millis(600);
    let slow_reader = Plan {
        reading: Reading::Stop {
            after_bytes: 30_000,
            pause: stop,
        },
        receive_buffer_bytes: Some(8_192),
        ..Plan::new("slow reader", 5, vec![listens[0].address]).asking(1, 500_000, Duration::ZERO)
    };
    let paced = Plan::new("paced", 5, vec![listens[1].address]).asking(1, 50_000, Duration::ZERO);
    let drip = Plan {
        request: Request::Drip {
            bytes: 5_000,
            chunk_bytes: 1_000,
            pause: Duration::from_millis(100),
        },
        ..Plan::new("drip", 5, vec![listens[0].address])
    };
    let mut took = Vec::new();
    for plan in [slow_reader, paced, drip] {
        let start = clock::now();
        let report = traffic::run(&network, &listens, &[plan]).unwrap();
        took.push(clock::now() - start);
        assert_all_read(&report, 5);
    }
    // Lower bounds only: a loaded machine is slower, none is faster.
    assert!(
        took[0] >= stop && took[2] >= Duration::from_millis(400),
        "{took:?}"
    );
    assert!(took[1] >= Duration::from_millis(200), "{took:?}");
}

#[test]
fn a_thousand_players_stay_connected_at_once() {
    let Some(network) = network(Options::default()) else {
        return;
    };
    let listen = Listen::new(v4(&network, PORT));
    let server = Server::start(network.server(), &[listen]).unwrap();
    let plan = Plan {
        requests: u32::MAX,
        pause: Duration::from_millis(500),
        request: Request::Bytes(10_000),
        ..Plan::new("live", 1_200, vec![listen.address])
    };
    let client = Client::start(network.client(), std::slice::from_ref(&plan)).unwrap();
    assert!(
        clock::wait_until(Duration::from_secs(30), || server.open() == 1_200),
        "{} open",
        server.open()
    );
    let report = Report::new(&[plan], client.stop().unwrap(), server.stop().unwrap());
    assert_eq!(report.failed(), 0);
    assert_eq!(report.groups[0].open, 1_200);
    assert_eq!(report.accepted(), 1_200);
}

#[test]
fn short_connections_come_by_the_thousands() {
    let Some(network) = network(Options {
        client_addresses: 4,
        ..Options::default()
    }) else {
        return;
    };
    let listens: Vec<_> = (0..4)
        .map(|n| Listen::new(v4(&network, PORT + n)))
        .collect();
    let plan = Plan {
        concurrency: 200,
        clients: network.clients_v4(),
        ..Plan::new("short", 20_000, listens.iter().map(|l| l.address).collect()).asking(
            1,
            1_000,
            Duration::ZERO,
        )
    };
    let start = clock::now();
    let report = traffic::run(&network, &listens, &[plan]).unwrap();
    println!("20,000 connections in {:?}", clock::now() - start);
    assert_all_read(&report, 20_000);
    let seen = TcpCounters::read(network.server()).unwrap();
    assert_eq!(seen.passive_opens, 20_000);
}

#[test]
fn the_relay_delays_and_can_be_changed() {
    let delay = Duration::from_millis(40);
    let Some(network) = network(Options {
        link: Link::Delay(delay),
        ..Options::default()
    }) else {
        return;
    };
    let listen = Listen::new(SocketAddr::new(network.server_v6(), PORT));
    let plan = Plan::new("far", 5, vec![listen.address]).asking(1, 200_000, Duration::ZERO);
    let start = clock::now();
    let report = traffic::run(&network, &[listen], std::slice::from_ref(&plan)).unwrap();
    // Handshake and request are two round trips at least.
    assert!(clock::now() - start >= 4 * delay);
    assert_all_read(&report, 5);

    let relay = network.delay().expect("a delay link");
    relay.set_delay(3 * delay);
    let start = clock::now();
    let report = traffic::run(&network, &[listen], &[plan]).unwrap();
    assert!(clock::now() - start >= 12 * delay);
    assert_all_read(&report, 5);
    assert_eq!(relay.packets().1, 0);
}

#[test]
fn fast_open_and_syn_cookies_happen_when_asked_for() {
    let Some(network) = network(Options::default()) else {
        return;
    };
    network.sysctl("net.ipv4.tcp_fastopen", "3").unwrap();
    let listen = Listen {
        fast_open: true,
        ..Listen::new(v4(&network, PORT))
    };
    let plan = Plan {
        fast_open: true,
        concurrency: 1,
        ..Plan::new("tfo", 20, vec![listen.address])
    };
    let report = traffic::run(&network, &[listen], &[plan]).unwrap();
    assert_all_read(&report, 20);
    let seen = TcpCounters::read(network.server()).unwrap();
    // The first one fetches the cookie.
    assert!(seen.fast_open_passive >= 18, "{seen:?}");

    network
        .server()
        .sysctl("net.ipv4.tcp_syncookies", "2")
        .unwrap();
    let listen = Listen::new(v4(&network, PORT + 1));
    let plan = Plan::new("cookie", 20, vec![listen.address]);
    let report = traffic::run(&network, &[listen], &[plan]).unwrap();
    assert_all_read(&report, 20);
    let seen = TcpCounters::read(network.server()).unwrap();
    assert_eq!(seen.syncookies_recv, 20, "{seen:?}");
}

#[test]
fn nothing_is_left_behind() {
    let Some(network) = network(Options::default()) else {
        return;
    };
    let path = std::path::Path::new("/run/netns").join(network.server().name());
    assert!(path.exists());
    let inside = lab::command::run(network.client().command("ip").args(["-br", "link"])).unwrap();
    assert!(inside.contains("edge0"), "{inside}");
    drop(network);
    assert!(!path.exists());
}
