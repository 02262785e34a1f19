//! It cannot hurt its host: what it does about its own cost, and that a file takes it off.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use lab::{
    network::{Network, Options},
    traffic::{
        client::Client,
        plan::Plan,
        server::{Listen, Server},
    },
};
use sampler::kernel::parts;
use sampler_event::{Flag, NodeHeartbeat, StreamWindow};
use serde_json::Value;
use service::metrics::parse;

use crate::{
    detached::{assert_gone, held},
    harness::{Sampler, all, http_get, network, turn},
    kept::Spooled,
    supervisor::Supervisor,
};

const PORT: u16 = 8154;
/// Six milliseconds a minute: less than anything costs.
const TINY: &str = "[limits]\ncpu_percent = 0.01\n";

/// Players that come and go, and some that stay.
struct Players {
    server: Server,
    client: Client,
}

impl Players {
    fn start(network: &Network, address: SocketAddr) -> Self {
        let server = Server::start(network.server(), &[Listen::new(address)]).expect("a server");
        let often = Duration::from_millis(20);
        let stay = Plan::new("stay", 5, vec![address]).asking(1_000_000, 5_000, often);
        let mut come = Plan::new("come", 1_000_000, vec![address]).asking(2, 1_000, often);
        come.concurrency = 10;
        let client = Client::start(network.client(), &[stay, come]).expect("players");
        Self { server, client }
    }

    fn stop(self) {
        self.client.stop().expect("players");
        self.server.stop().expect("a server");
    }
}

fn flagged(event: &Value, flag: &str) -> bool {
    let flags = event["flags"].as_array().into_iter().flatten();
    flags.into_iter().any(|f| f == flag)
}

fn said(event: &Value, field: &str) -> String {
    event[field].as_str().expect("text").to_owned()
}

fn new_flows_at(sampler: &Sampler, rate: f64, epoch: u32) -> bool {
    let windows = sampler.events().stream_windows("all");
    let mut admitting = windows.iter().filter(|w| w.flows_sampled > 0);
    admitting.any(|w| w.sampling_rate == rate && w.rate_epoch == epoch)
}

#[test]
fn above_its_limit_it_samples_less_and_says_so() {
    let Some(_turn) = turn() else { return };
    let network = network(Options::default());
    let address = SocketAddr::new(network.server_v4(), PORT);
    let stream = all(&[address]);
    let sampler = Sampler::start(network.server(), &format!("{TINY}{stream}"));
    let players = Players::start(&network, address);
    sampler.wait_for("new flows are sampled less", |s| new_flows_at(s, 0.5, 2));
    let events = sampler.events();
    let beat = events.last_heartbeat();
    assert_eq!(beat["rate_halvings"], 1, "{beat}");
    assert_eq!(beat["cost_limit_percent"], 0.01, "{beat}");
    assert!(beat["cost_percent"].as_f64() > Some(0.01), "{beat}");
    assert!(said(beat, "limited").contains("divided by 2"), "{beat}");
    assert!(flagged(beat, "limited"));
    let last = events.windows("all").last().expect("a window");
    assert!(flagged(last, "limited"), "{last}");
    // Both parts of the cost: nobody measures the programs here, so what they counted stands for them.
    for part in ["daemon_cpu_us", "kernel_cpu_us"] {
        assert!(beat[part].as_u64() > Some(0), "{beat}");
    }
    let metrics = http_get(network.server(), "/metrics");
    let (_, metrics) = metrics.split_once("\r\n\r\n").expect("a head");
    let metrics = parse(metrics).expect("exposition");
    let metric = |name| metrics.value(name).unwrap_or(-1.0);
    assert_eq!(metric("flowvitals_rate_halvings"), 1.0);
    assert_eq!(metric("flowvitals_limited"), 1.0);
    assert!(metric("flowvitals_cost_ratio") > metric("flowvitals_cost_limit_ratio"));
    let health = http_get(network.server(), "/healthz");
    assert!(
        health.contains("200 OK") && health.contains("divided by 2"),
        "{health}"
    );
    assert!(sampler.log().contains("divided by 2"), "{}", sampler.log());

    sampler.reload(&format!("[limits]\ncpu_percent = 100\n{stream}"));
    sampler.wait_for("another limit begins anew", |s| new_flows_at(s, 1.0, 3));
    sampler.wait_windows(1);
    let events = sampler.events();
    assert_eq!(said(events.last_heartbeat(), "limited"), "");
    players.stop();
    sampler.stop().assert_laws();
}

#[test]
fn above_its_limit_it_goes_if_it_is_told_to() {
    let Some(_turn) = turn() else { return };
    let network = network(Options::default());
    let address = SocketAddr::new(network.server_v4(), PORT);
    let config = format!("{TINY}action = \"detach\"\n{}", all(&[address]));
    let sampler = Sampler::start(network.server(), &config);
    let ids = held(&sampler);
    let players = Players::start(&network, address);
    sampler.wait_for("the kernel side is off", |s| {
        s.events()
            .of_type("node")
            .any(|beat| beat["kernel_mode"] == "detached")
    });
    assert_gone(&ids);
    sampler.wait_windows(1);
    players.stop();
    let events = sampler.stop();
    let beat = events.last_heartbeat();
    assert!(
        said(beat, "limited").contains("when it is restarted"),
        "{beat}"
    );
    assert_eq!(
        (&beat["flows_open"], &beat["attached_ms"]),
        (&0.into(), &0.into()),
        "{beat}"
    );
    assert!(
        beat["streams"].as_array().is_some_and(Vec::is_empty),
        "{beat}"
    );
    let last = events.windows("all").last().expect("a window");
    assert!(flagged(last, "detached"), "{last}");
    assert!(events.of_type("node").any(|beat| flagged(beat, "detached")));
    events.assert_laws();
}

/// A life with a spool and a disable file, and a broker that is never there.
fn configured(address: SocketAddr, file: &Path) -> tempfile::TempDir {
    Sampler::configured(&format!(
        "[kafka]\nbrokers = [\"127.0.0.1:9\"]\n[shutdown]\ntimeout_s = 1\n[limits]\naction = \"log\"\ndisable_file = {file:?}\n{}",
        all(&[address])
    ))
}

#[test]
fn a_file_takes_it_off_and_its_end_brings_it_back() {
    let Some(_turn) = turn() else { return };
    let network = network(Options::default());
    let address = SocketAddr::new(network.server_v4(), PORT);
    let switch = tempfile::tempdir().expect("a directory");
    let file = switch.path().join("disabled");
    let supervisor = Supervisor::start();
    let start = |state| Sampler::start_under(&supervisor, network.server(), state);
    let is_kept = |_: &Sampler| supervisor.names().len() == parts::names().count();
    let health = |text: &'static str| {
        let server = network.server();
        move |_: &Sampler| http_get(server, "/healthz").contains(text)
    };

    // Under traffic.
    let first = start(configured(address, &file)).attached();
    first.wait_for("its kernel side is kept", is_kept);
    let ids = held(&first);
    let players = Players::start(&network, address);
    first.wait_for("windows are closed", health("200 OK"));
    fs::write(&file, "").expect("the file");
    assert_gone(&ids);
    assert_eq!(supervisor.names(), [""; 0]);
    first.wait_for("it says so", health("disabled by"));
    fs::remove_file(&file).expect("removed");
    let (code, state) = first.ended();
    assert_eq!(code, Some(75));

    // At the start.
    fs::write(&file, "").expect("the file");
    let second = start(state);
    second.wait_for("heartbeats flow", |s| {
        s.log().contains("nothing is counted") && health("disabled by")(s)
    });
    assert!(held(&second).is_empty());
    fs::remove_file(&file).expect("removed");
    let (code, state) = second.ended();
    assert_eq!(code, Some(75));

    // It counts again; and what a killed life left is told before it goes.
    let third = start(state).attached();
    let log = third.log();
    assert!(
        log.contains("not counted") && log.contains("disabled by"),
        "{log}"
    );
    third.wait_for("its kernel side is kept", is_kept);
    third.wait_for("windows are closed", health("200 OK"));
    let state = third.kill();
    fs::write(&file, "").expect("the file");
    let fourth = start(state);
    fourth.wait_for("it is off", |s| {
        s.log().contains("taken off") && health("disabled by")(s)
    });
    assert_eq!(supervisor.names(), [""; 0]);
    players.stop();
    let spooled = Spooled::read(fourth.stop_and_leave().path());
    assert_spooled(&spooled, &file);
}

fn assert_spooled(spooled: &Spooled, file: &Path) {
    spooled.assert_no_gap();
    let mut lives: Vec<Vec<&NodeHeartbeat>> = Vec::new();
    for beat in &spooled.heartbeats {
        assert!(beat.broken_laws.is_empty(), "{:?}", beat.broken_laws);
        match lives.last_mut() {
            Some(life) if life[0].instance == beat.instance => life.push(beat),
            _ => lives.push(vec![beat]),
        }
    }
    let [first, second, third, fourth] = &lives[..] else {
        panic!("{} lives", lives.len());
    };
    for (life, windows) in [(first, true), (fourth, true), (second, false)] {
        let last = life.last().expect("a heartbeat");
        assert_eq!(last.kernel_mode, "disabled");
        assert!(
            last.limited.contains(&*file.to_string_lossy()),
            "{}",
            last.limited
        );
        assert_eq!((last.flows_open, last.streams.len()), (0, 0));
        let taken_in = last.flows_sampled + last.flows_picked_up;
        assert_eq!(taken_in, last.flows_closed);
        assert_eq!(last.flows_sampled > 0, windows);
        let mut of_life = spooled
            .windows
            .iter()
            .filter(|w| w.instance == last.instance);
        let end = of_life.next_back();
        assert_eq!(end.is_some(), windows);
        assert!(
            end.is_none_or(|w| w.flags & Flag::Detached as u32 != 0),
            "{end:?}"
        );
    }
    // One time without a count over two lives.
    let off: Vec<_> = first
        .iter()
        .chain(second)
        .filter(|beat| beat.attached_ms == 0)
        .collect();
    assert!(off.is_sorted_by_key(|beat| beat.uncounted_ms));
    let (last, next) = (off.last().expect("a heartbeat"), third[0]);
    assert!(next.uncounted_ms >= last.uncounted_ms, "{next:?}");
    assert!(next.uncounted_reason.contains("disabled by"), "{next:?}");
    // What the third counted and could not tell, the fourth told: to the last flow.
    let last = fourth.last().expect("a heartbeat");
    let of_both = |w: &&StreamWindow| [third[0].instance, last.instance].contains(&w.instance);
    let windows = spooled.windows.iter().filter(of_both);
    assert_eq!(
        windows.map(|w| w.flows_sampled).sum::<u64>(),
        last.flows_sampled
    );
}
