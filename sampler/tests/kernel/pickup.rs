//! Connections that were open before the attach.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use ebpf_abi::hash::{flow_hash, key_from_bytes, selected, threshold};
use lab::{
    clock,
    counters::{TcpCounters, open_sockets},
    filter::{Selector, Towards},
    netns::Namespace,
    network::{Network, Options},
    traffic::{
        client::Client,
        plan::Plan,
        server::{Listen, Server},
    },
};
use sampler::rules::tuple;
use sampler_event::Flag;

use crate::harness::{KEY, PATIENCE, Sampler, all, network, number, turn};

const PORT: u16 = 8161;

/// Connections that nobody closes.
struct Connections {
    listeners: Vec<TcpListener>,
    /// Server's end, client's end.
    pairs: Vec<(TcpStream, TcpStream)>,
}

impl Connections {
    /// Opens so many to each address.
    fn open(
        server: &Namespace,
        client: &Namespace,
        addresses: &[SocketAddr],
        count: usize,
    ) -> Self {
        let mut all = Self {
            listeners: Vec::new(),
            pairs: Vec::new(),
        };
        for address in addresses {
            let listener = server.run_in(|| TcpListener::bind(address));
            let listener = listener.expect("the namespace").expect("a listener");
            let open = || {
                let client = TcpStream::connect(address).expect("a connection");
                (listener.accept().expect("its other end").0, client)
            };
            let pairs = client.run_in(|| (0..count).map(|_| open()).collect::<Vec<_>>());
            all.pairs.extend(pairs.expect("the namespace"));
            all.listeners.push(listener);
        }
        all
    }

    /// Sends so many bytes on each, all at a time, and reads them.
    fn send(&self, bytes: usize) {
        std::thread::scope(|scope| {
            for (mut server, mut client) in self.pairs.iter().map(|(s, c)| (s, c)) {
                scope.spawn(move || server.write_all(&vec![1; bytes]).expect("written"));
                scope.spawn(move || client.read_exact(&mut vec![0; bytes]).expect("read"));
            }
        });
    }

    /// Closes all from the server's end, and waits until they are gone there.
    fn close(self, server: &Namespace) {
        for (server, client) in self.pairs {
            drop(server);
            let left = (&client).read(&mut [0]).expect("the end");
            assert_eq!(left, 0);
        }
        drop(self.listeners);
        let closed = clock::wait_until(PATIENCE, || {
            open_sockets(server, &[PORT]).expect("sockets") == 0
        });
        assert!(closed, "they stay open");
    }

    /// Those that the hash chooses.
    fn selected(&self, rate: f64) -> u64 {
        let hash = |(server, client): &(TcpStream, TcpStream)| {
            let (server, client) = (server.local_addr(), client.local_addr());
            let (server, client) = (server.expect("an address"), client.expect("an address"));
            flow_hash(key_from_bytes(KEY), &tuple(server, client))
        };
        let chosen = |pair: &&_| selected(hash(pair), threshold(rate));
        self.pairs.iter().filter(chosen).count() as u64
    }
}

fn addresses(network: &Network) -> [SocketAddr; 2] {
    [network.server_v4(), network.server_v6()].map(|address| SocketAddr::new(address, PORT))
}

fn lose(network: &mut Network) {
    network
        .set_loss(Towards::Client, &Selector::default(), 0.05)
        .expect("loss");
}

fn counters(network: &Network) -> TcpCounters {
    TcpCounters::read(network.server()).expect("counters")
}

/// From the pick-up on all is counted, and nothing of before; what opens after it is counted as ever.
#[test]
fn what_open_connections_do_from_now_on_is_counted() {
    let Some(_turn) = turn() else { return };
    const FLOWS: usize = 20;
    const BYTES: usize = 400_000;
    let mut network = network(Options::default());
    lose(&mut network);
    let addresses = addresses(&network);
    let open = Connections::open(network.server(), network.client(), &addresses, FLOWS);
    open.send(100_000);
    // A client that has nothing to say any more still listens.
    let (_, half_closed) = &open.pairs[0];
    half_closed.shutdown(Shutdown::Write).expect("half closed");
    let before = counters(&network);
    assert!(before.data_retrans_segs() > 0);

    let sampler = Sampler::start(network.server(), &all(&addresses));
    let flows = open.pairs.len() as u64;
    sampler.wait_for("they are picked up", |s| {
        s.events().sum("all", "flows_picked_up") == flows
    });
    open.send(BYTES);
    // Everything is acknowledged, or a last segment would be sent again after its socket is gone.
    open.close(network.server());
    sampler.wait_windows(2);
    let kernel = counters(&network).since(&before);
    let events = sampler.stop();

    let sum = |field| events.sum("all", field);
    assert!(kernel.data_retrans_segs() > 0);
    println!("{} segments sent again", kernel.data_retrans_segs());
    assert_eq!(sum("retrans_segs"), kernel.data_retrans_segs());
    assert_eq!(sum("bytes_acked"), flows * BYTES as u64);
    assert_eq!((sum("flows_seen"), sum("flows_sampled")), (0, 0));
    assert_eq!(sum("flows_closed"), flows);
    events.assert_laws();
    let last = events.last_heartbeat();
    assert_eq!(last["kernel_mode"], "full");
    assert_eq!(number(last, "flows_unreached"), 0);
    let windows = events.stream_windows("all");
    let first = windows.iter().find(|w| w.flows_picked_up != 0);
    let flags = first.expect("a window").flags;
    assert_ne!(flags & Flag::PickedUp as u32, 0, "{flags:x}");
}

/// Started under traffic: every flow is taken in once, as an open or as a new one, wherever in its life it is met.
#[test]
fn a_start_under_traffic_misses_and_doubles_no_flow() {
    let Some(_turn) = turn() else { return };
    let mut network = network(Options::default());
    lose(&mut network);
    let address = addresses(&network)[0];
    let server = Server::start(network.server(), &[Listen::new(address)]).expect("a server");
    let often = Duration::from_millis(30);
    let stay = Plan::new("stay", 40, vec![address]).asking(1_000_000, 20_000, often);
    let mut come = Plan::new("come", 1_000_000, vec![address]).asking(3, 5_000, often);
    come.concurrency = 20;
    let players = Client::start(network.client(), &[stay, come]).expect("players");
    let playing = clock::wait_until(PATIENCE, || server.open() >= 50);
    assert!(playing, "they play");
    let (before, ended) = (counters(&network), server.accepted() - server.open());
    let sampler = Sampler::start(network.server(), &all(&[address]));
    sampler.wait_for("open connections are picked up", |s| {
        s.events().sum("all", "flows_picked_up") >= 40
    });
    let (after, accepted) = (counters(&network), server.accepted());
    sampler.wait_windows(2);
    players.stop().expect("players");
    assert!(server.idle_within(PATIENCE));
    sampler.wait_windows(2);
    let end = counters(&network);
    let events = sampler.stop();
    let sum = |field| events.sum("all", field);
    let total = server.accepted();
    let taken = (sum("flows_picked_up") + sum("flows_sampled")) as usize;
    println!("{taken} of {total} flows, {accepted} before all were seen");
    assert!(taken <= total - ended, "{taken} of {total} less {ended}");
    assert!(
        taken >= total - accepted + 40,
        "{taken} of {total} less {accepted}"
    );
    assert_eq!(sum("flows_closed") as usize, taken);
    let (most, least) = (end.since(&before), end.since(&after));
    let segs = sum("retrans_segs");
    assert!(segs >= least.data_retrans_segs() && segs <= most.data_retrans_segs());
    events.assert_laws();
    server.stop().expect("a server");
}

/// The same sample as if the sampler had always been there; and what is out of its reach is counted.
#[test]
fn the_hash_chooses_and_what_cannot_be_reached_is_said() {
    let Some(_turn) = turn() else { return };
    const RATE: f64 = 0.3;
    let network = network(Options::default());
    let addresses = addresses(&network);
    let near = Connections::open(network.server(), network.client(), &addresses, 100);
    // The same port in another network namespace: its new connections would be seen, its old ones cannot be reached.
    let far_address = SocketAddr::new(network.clients_v4()[0], PORT);
    let far = Connections::open(network.client(), network.server(), &[far_address], 30);
    let config = |rest: &str| {
        format!("{rest}[[stream]]\nname = \"all\"\nrate = {RATE}\nlocal = [\"*:{PORT}\"]\n")
    };
    let (chosen, beyond) = (near.selected(RATE), far.selected(RATE));
    assert!(chosen > 20 && beyond > 0, "{chosen} {beyond}");

    let doctor = Sampler::ask(network.server(), &config(""), "doctor").stdout;
    let doctor = String::from_utf8_lossy(&doctor);
    let words = "200 to these streams in this network namespace: a start takes in those of the sample; 30 in others";
    assert!(doctor.contains(words), "{doctor}");
    let sampler = Sampler::start(network.server(), &config(""));
    sampler.wait_windows(2);
    let log = sampler.log();
    assert!(log.contains("in other network namespaces"), "{log}");
    let events = sampler.stop();
    assert_eq!(events.sum("all", "flows_picked_up"), chosen);
    let unreached = number(events.last_heartbeat(), "flows_unreached");
    assert_eq!(unreached, beyond);
    events.assert_laws();

    // With room for a few only, the rest is refused as new flows are.
    let bound = 5;
    let sampler = Sampler::start(
        network.server(),
        &config(&format!("[sampling]\nmax_sampled_flows = {bound}\n")),
    );
    sampler.wait_windows(2);
    let events = sampler.stop();
    assert_eq!(events.sum("all", "flows_picked_up"), bound);
    let last = events.last_heartbeat();
    assert_eq!(number(last, "flows_refused"), chosen - bound);
    assert_eq!(number(last, "flows_unreached"), chosen - bound + beyond);
    let windows = events.stream_windows("all");
    let biased = windows.iter().any(|w| w.flags & Flag::Biased as u32 != 0);
    assert!(biased, "a sample that was cut is no sample");
    events.assert_ledger();
}
