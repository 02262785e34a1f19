//! Ten times more flows than may be followed, and connections as fast as this machine makes them.

use std::{
    io::{self, Read},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use lab::{
    clock,
    netns::Namespace,
    network::Options,
    traffic::{
        client::Client,
        plan::Plan,
        server::{Listen, Server},
    },
};
use serde_json::Value;

use crate::harness::{Sampler, all, network, number, turn};

const PORT: u16 = 8096;
const STORM_PORT: u16 = 8097;
/// Flows that may be followed.
const MOST: u64 = 50;
/// Flows that stay.
const STAY: usize = 10 * MOST as usize;
/// Connections that come and go: enough for some seconds.
const STORM: u64 = 50_000;
/// Threads at each end.
const THREADS: u64 = 2;
/// What the daemon may take more while it lasts.
const MORE_RSS_BYTES: u64 = 8 << 20;

/// Connections at full speed over the loopback of a namespace, each closed by the server and then cut by its client, so that none
/// leaves a socket that waits.
fn storm(namespace: &Namespace) -> io::Result<Duration> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, STORM_PORT));
    let each = STORM / THREADS;
    let run = || -> io::Result<Duration> {
        let listener = TcpListener::bind(address)?;
        let begin: Instant = clock::now();
        thread::scope(|scope| {
            let serve = || (0..each).try_for_each(|_| listener.accept().map(drop));
            let ask = || {
                (0..each).try_for_each(|_| {
                    let mut stream = TcpStream::connect(address)?;
                    let server_closed = stream.read(&mut [0])? == 0;
                    assert!(server_closed);
                    nix::sys::socket::setsockopt(
                        &stream,
                        nix::sys::socket::sockopt::Linger,
                        &libc::linger {
                            l_onoff: 1,
                            l_linger: 0,
                        },
                    )?;
                    Ok::<_, io::Error>(())
                })
            };
            let ends: Vec<_> = (0..THREADS)
                .flat_map(|_| [scope.spawn(serve), scope.spawn(ask)])
                .collect();
            ends.into_iter()
                .try_for_each(|end| end.join().expect("a thread"))
        })?;
        Ok(clock::now() - begin)
    };
    namespace.run_in(run).expect("the namespace")
}

fn is_biased(window: &Value) -> bool {
    let flags = window["flags"].as_array();
    flags.is_some_and(|flags| flags.contains(&"biased".into()))
}

#[test]
fn a_full_table_refuses_halves_and_says_so() {
    let Some(_turn) = turn() else { return };
    let network = network(Options::default());
    let address = SocketAddr::new(network.server_v4(), PORT);
    let streams = all(&[address.to_string(), format!("127.0.0.1:{STORM_PORT}")]);
    let config = format!("[sampling]\nmax_sampled_flows = {MOST}\n{streams}");
    let sampler = Sampler::start(network.server(), &config);
    sampler.wait_windows(1);
    let before = number(sampler.events().last_heartbeat(), "rss_bytes");
    let server = Server::start(network.server(), &[Listen::new(address)]).expect("a server");
    let often = Duration::from_millis(500);
    let plan = Plan::new("stay", STAY, vec![address]).asking(1_000, 1_000, often);
    let players = Client::start(network.client(), &[plan]).expect("players");
    let took = storm(network.server()).expect("connections");
    let halved = |beat: &Value| number(beat, "rate_halvings") > 0;
    sampler.wait_for("rates are halved", |s| {
        s.events().of_type("node").any(halved)
    });
    players.stop().expect("players");
    server.stop().expect("a server");
    sampler.wait_windows(1);
    let events = sampler.stop();
    println!(
        "{STORM} connections in {took:?}: {:.0} a second",
        STORM as f64 / took.as_secs_f64()
    );

    // Every one is counted, followed or not.
    assert_eq!(events.sum("all", "flows_seen"), STORM + STAY as u64);
    let cpus = thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let mut rss = before;
    for heartbeat in events.of_type("node") {
        assert!(
            number(heartbeat, "flows_open") <= MOST + cpus,
            "{heartbeat}"
        );
        rss = rss.max(number(heartbeat, "rss_bytes"));
    }
    println!("resident memory: {before} bytes before, {rss} at most");
    assert!(rss <= before + MORE_RSS_BYTES, "{before} {rss}");
    // What was refused is said: in the ledger, in the stream's own losses, and of each window that it touches.
    let refused = number(events.last_heartbeat(), "flows_refused");
    assert!(refused >= STAY as u64 - MOST - cpus, "{refused}");
    let last = events.windows("all").last().expect("a window");
    assert_eq!(number(last, "lost_flows"), refused);
    let refused_by = events.sum("all", "flows_selected") - events.sum("all", "flows_sampled");
    assert_eq!(refused_by, refused);
    assert!(events.windows("all").any(is_biased), "no window is marked");
    events.assert_laws();
}
