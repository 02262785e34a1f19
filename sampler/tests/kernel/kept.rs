//! The kernel side outlives the daemon: killed at random instants under traffic, it counts on.
//!
//! No broker is there, so the spool holds every window of every life: what a broker would get.

use std::{net::SocketAddr, path::Path, time::Duration};

use lab::{
    clock::unix_ms,
    counters::TcpCounters,
    environment::setting,
    filter::{Selector, Towards},
    network::{Network, Options},
    traffic::{
        client::Client,
        plan::Plan,
        server::{Listen, Server},
    },
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use sampler::{
    kernel::{parts, sys},
    sink::Kind,
    spool::store::{Losses, Store, StoreSettings},
};
use sampler_event::{Message, NodeHeartbeat, StreamWindow};
use tempfile::TempDir;

use crate::{
    harness::{Sampler, lives, network, turn},
    supervisor::Supervisor,
};

const PORT: u16 = 8141;
const STREAM: &str = "all";

/// A configuration with a spool, and a broker that is never there.
fn config(address: SocketAddr) -> String {
    format!(
        "[kafka]\nbrokers = [\"127.0.0.1:9\"]\n[[stream]]\nname = \"{STREAM}\"\nrate = 1.0\nlocal = [\"{address}\"]\n"
    )
}

/// Players that stay, and players that come and go, on a lossy network.
struct Traffic {
    network: Network,
    server: Server,
    players: Client,
}

impl Traffic {
    /// A network on which nobody plays yet.
    fn network() -> (Network, SocketAddr) {
        let mut network = network(Options::default());
        network
            .set_loss(Towards::Client, &Selector::default(), 0.03)
            .expect("loss");
        let address = SocketAddr::new(network.server_v4(), PORT);
        (network, address)
    }

    fn start(network: Network, address: SocketAddr) -> Self {
        let server = Server::start(network.server(), &[Listen::new(address)]).expect("a server");
        let often = Duration::from_millis(40);
        let stay = Plan::new("stay", 10, vec![address]).asking(1_000_000, 20_000, often);
        let mut come = Plan::new("come", 1_000_000, vec![address]).asking(3, 20_000, often);
        come.concurrency = 10;
        let players = Client::start(network.client(), &[stay, come]).expect("players");
        Self {
            network,
            server,
            players,
        }
    }

    /// Ends it all: connections accepted, and the kernel's counters when nothing moves any more.
    fn stop(self) -> (Network, usize, TcpCounters) {
        self.players.stop().expect("players");
        let mut last = TcpCounters::default();
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let now = TcpCounters::read(self.network.server()).expect("counters");
            // The daemon's own tries to find a broker send segments too, but never one again.
            if self.server.open() == 0 && now.retrans_segs == last.retrans_segs {
                break;
            }
            last = now;
        }
        let accepted = self.server.accepted();
        self.server.stop().expect("a server");
        (self.network, accepted, last)
    }
}

/// Everything that the spool holds.
pub struct Spooled {
    pub windows: Vec<StreamWindow>,
    pub heartbeats: Vec<NodeHeartbeat>,
}

impl Spooled {
    pub fn read(state: &Path) -> Self {
        let settings = StoreSettings {
            directory: state.join("spool"),
            max_bytes: u64::MAX,
            resume: false,
            faults: None,
        };
        let (mut store, found) = Store::open(settings, None).expect("the spool");
        assert_eq!((found.unreadable, found.aside), (0, 0));
        let mut losses = Losses::new();
        let records = store.next(usize::MAX, &mut losses).expect("records");
        assert!(losses.is_empty(), "{losses:?}");
        let mut all = Self {
            windows: Vec::new(),
            heartbeats: Vec::new(),
        };
        for (_, record, _) in records {
            let payload = record.payload.as_slice();
            match record.kind {
                Kind::Window => all
                    .windows
                    .push(StreamWindow::decode(payload).expect("a window")),
                Kind::Node => all
                    .heartbeats
                    .push(NodeHeartbeat::decode(payload).expect("a heartbeat")),
                Kind::Pulse => {}
            }
        }
        all
    }

    fn sum(&self, field: impl Fn(&StreamWindow) -> u64) -> u64 {
        self.windows.iter().map(field).sum()
    }

    /// Lives with windows; each has every sequence once, from 0 on, and so do the heartbeats.
    pub fn assert_no_gap(&self) -> usize {
        let windows = self.windows.iter().map(|w| (w.instance, w.sequence));
        let heartbeats = self.heartbeats.iter().map(|h| (h.instance, h.sequence));
        let [windows, _] = [lives(windows), lives(heartbeats)].map(|lives| {
            for (life, sequences) in &lives {
                let whole = sequences.iter().copied().eq(0..sequences.len() as u64);
                assert!(whole, "life {life:x}: {sequences:?}");
            }
            lives.len()
        });
        windows
    }
}

/// A first life whose kernel side is kept.
fn first_life(supervisor: &Supervisor, network: &Network, address: SocketAddr) -> Sampler {
    let state = Sampler::configured(&config(address));
    let first = Sampler::start_under(supervisor, network.server(), state).attached();
    first.wait_for("its kernel side is kept", |_| {
        supervisor.names().len() == parts::names().count()
    });
    first
}

#[test]
fn killed_at_random_instants_it_counts_on() {
    let Some(_turn) = turn() else { return };
    let seed = setting("FLOWVITALS_SEED", rand::random());
    let kills = setting("FLOWVITALS_KILLS", 6);
    println!("FLOWVITALS_SEED={seed} FLOWVITALS_KILLS={kills}");
    let mut random = StdRng::seed_from_u64(seed);
    let (network, address) = Traffic::network();
    let supervisor = Supervisor::start();
    let mut life = first_life(&supervisor, &network, address);
    let before = TcpCounters::read(network.server()).expect("counters");
    let traffic = Traffic::start(network, address);
    for _ in 0..kills {
        // Also while it starts, and while it is down.
        std::thread::sleep(Duration::from_millis(random.random_range(0..2_500)));
        let state = life.kill();
        std::thread::sleep(Duration::from_millis(random.random_range(0..400)));
        life = Sampler::start_under(&supervisor, traffic.network.server(), state);
    }
    let life = life.attached();
    let (_network, accepted, after) = traffic.stop();
    let kernel = after.since(&before);
    let state = life.stop_and_leave();

    let spooled = Spooled::read(state.path());
    let lives = spooled.assert_no_gap();
    let (accepted, retrans) = (accepted as u64, spooled.sum(|w| w.retrans_segs));
    println!(
        "{kills} kills, {lives} lives with windows, {accepted} flows; retransmitted: {retrans} in the windows, {} in the kernel",
        kernel.data_retrans_segs()
    );
    assert_eq!(retrans, kernel.data_retrans_segs());
    for (field, sum) in [
        ("flows_seen", spooled.sum(|w| w.flows_seen)),
        ("flows_sampled", spooled.sum(|w| w.flows_sampled)),
        ("flows_closed", spooled.sum(|w| w.flows_closed)),
    ] {
        assert_eq!(sum, accepted, "{field}");
    }
    let last = spooled.heartbeats.last().expect("a heartbeat");
    assert_eq!(
        (last.flows_sampled, last.flows_closed, last.flows_open),
        (accepted, accepted, 0)
    );
    for beat in &spooled.heartbeats {
        assert!(beat.broken_laws.is_empty(), "{:?}", beat.broken_laws);
        assert_eq!(beat.attached_ms, last.attached_ms);
        assert_eq!((beat.uncounted_ms, &*beat.uncounted_reason), (0, ""));
        assert_eq!(beat.earlier_at_risk, 0);
    }
}

#[test]
fn what_was_not_kept_is_reported() {
    assert_uncounted(Sampler::kill);
}

/// The last window's nominal end lies after the stop, and often after the next attach.
#[test]
fn what_was_not_kept_after_a_stop_is_reported() {
    assert_uncounted(Sampler::stop_and_leave);
}

/// A life that `end`s and leaves no kernel side to the next.
fn assert_uncounted(end: impl FnOnce(Sampler) -> TempDir) {
    let Some(_turn) = turn() else { return };
    let (network, address) = Traffic::network();
    let supervisor = Supervisor::start();
    let first = first_life(&supervisor, &network, address);
    let traffic = Traffic::start(network, address);
    first.wait_for("windows are closed", |life| {
        std::fs::read_dir(life.state().join("spool")).is_ok_and(|files| files.count() > 3)
    });
    let state = end(first);
    let ended_ms = unix_ms();
    supervisor.store().clear();
    std::thread::sleep(Duration::from_millis(300));
    let second = Sampler::start_under(&supervisor, traffic.network.server(), state).attached();
    assert!(
        second
            .log()
            .contains("the service manager kept no kernel side")
    );
    let (_network, accepted, _) = traffic.stop();
    let state = second.stop_and_leave();
    let spooled = Spooled::read(state.path());
    assert_eq!(spooled.assert_no_gap(), 2);
    let last = spooled.heartbeats.last().expect("a heartbeat");
    // From the last window's close on, which was before the end of that life.
    let least_ms = last.attached_ms - ended_ms;
    println!("{} ms uncounted, at least {least_ms}", last.uncounted_ms);
    assert!(least_ms >= 300 && last.uncounted_ms >= least_ms, "{last:?}");
    assert!(last.uncounted_reason.contains("kept no kernel side"));
    // Those that came meanwhile are in no window.
    assert!(spooled.sum(|w| w.flows_seen) < accepted as u64);
    let first = spooled.heartbeats.first().expect("a heartbeat");
    let before = |beat: &&NodeHeartbeat| beat.instance == first.instance;
    let closed = spooled
        .heartbeats
        .iter()
        .rfind(before)
        .expect("a heartbeat");
    assert_eq!(last.attached_ms - last.uncounted_ms, closed.emitted_ms);
    assert_eq!((first.uncounted_ms, &*first.uncounted_reason), (0, ""));
    assert!(first.attached_ms < last.attached_ms);
}

#[test]
fn another_layout_is_never_read_as_ours() {
    let Some(_turn) = turn() else { return };
    let (network, address) = Traffic::network();
    let supervisor = Supervisor::start();
    let state = first_life(&supervisor, &network, address).kill();
    // As a daemon of the next version of the contract would have named them.
    let ours = format!("flowvitals.{}.", ebpf_abi::ABI_VERSION);
    for (name, _) in supervisor.store().iter_mut() {
        *name = name.replace(&ours, "flowvitals.4711.");
    }
    let link = |(name, fd): &(String, std::os::fd::OwnedFd)| {
        let is_link = name.ends_with(parts::link::CGROUP);
        is_link.then(|| fd.try_clone().expect("a copy"))
    };
    let old = supervisor.store().iter().find_map(link).expect("the link");
    assert!(sys::cgroup_of_link(&old).expect("a link").is_some());
    let second = Sampler::start_under(&supervisor, network.server(), state).attached();
    assert!(
        second.log().contains("is of version 4711"),
        "{}",
        second.log()
    );
    second.wait_for("the old kernel side is given up", |_| {
        let names = supervisor.names();
        names.len() == parts::names().count() && names.iter().all(|name| name.starts_with(&ours))
    });
    assert_eq!(sys::cgroup_of_link(&old).expect("a link"), None);
    let spooled = Spooled::read(second.stop_and_leave().path());
    let last = spooled.heartbeats.last().expect("a heartbeat");
    assert!(last.uncounted_reason.contains("4711"));
}

#[test]
fn a_restart_with_another_configuration_counts_on() {
    let Some(_turn) = turn() else { return };
    let (network, address) = Traffic::network();
    let supervisor = Supervisor::start();
    let first = first_life(&supervisor, &network, address);
    let before = TcpCounters::read(network.server()).expect("counters");
    let traffic = Traffic::start(network, address);
    std::thread::sleep(Duration::from_millis(1_500));
    let state = first.stop_and_leave();
    // New flows at another rate, a stream more.
    let file = state.path().join("sampler.toml");
    let text = std::fs::read_to_string(&file).expect("a configuration");
    let changed = text.replace("rate = 1.0", "rate = 0.5")
        + "[[stream]]\nname = \"more\"\nlocal = [\"192.0.2.1:80\"]\n";
    std::fs::write(&file, changed).expect("a configuration");
    let second = Sampler::start_under(&supervisor, traffic.network.server(), state).attached();
    assert!(second.log().contains("it counts on"), "{}", second.log());
    std::thread::sleep(Duration::from_millis(1_500));
    let (_network, accepted, after) = traffic.stop();
    let state = second.stop_and_leave();
    let spooled = Spooled::read(state.path());
    spooled.assert_no_gap();
    let accepted = accepted as u64;
    assert_eq!(spooled.sum(|w| w.flows_seen), accepted);
    let sampled = spooled.sum(|w| w.flows_sampled);
    assert_eq!(spooled.sum(|w| w.flows_closed), sampled);
    assert!(sampled < accepted, "{sampled} of {accepted}");
    let kernel = after.since(&before).data_retrans_segs();
    assert!(spooled.sum(|w| w.retrans_segs) < kernel);
    // Those that were open at the restart kept their rate: both rates have windows of the second life.
    let instance = spooled.heartbeats.last().expect("a heartbeat").instance;
    let rates = |epoch| {
        let mut windows = spooled.windows.iter();
        windows.any(|w| w.instance == instance && w.rate_epoch == epoch)
    };
    assert!(rates(1) && rates(2));
}
