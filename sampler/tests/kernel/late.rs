//! A daemon that is suspended, or that the processors have no time for: long windows that say so, nothing twice, nothing lost.

use std::{
    fs,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use lab::{
    counters::{self, TcpCounters},
    filter::{Selector, Towards},
    network::Options,
    traffic::{
        client::Client,
        plan::Plan,
        server::{Listen, Server},
    },
};
use nix::sys::signal::Signal;
use sampler_event::{Flag, StreamWindow};

use crate::harness::{Events, Sampler, network, turn};

const FLOWS: u64 = 30;

/// Other work: so many threads for each processor.
const BUSY_PER_CPU: usize = 4;

/// Lossy traffic while something is done to the daemon: its events. What the kernel counted is in them already.
fn disturbed(port: u16, disturb: impl FnOnce(&Sampler)) -> Option<Events> {
    let _turn = turn()?;
    let mut network = network(Options::default());
    let address = SocketAddr::new(network.server_v4(), port);
    let sampler = Sampler::start(
        network.server(),
        &format!("[[stream]]\nname = \"all\"\nrate = 1.0\nlocal = [\"{address}\"]\n"),
    );
    network
        .set_loss(Towards::Client, &Selector::default(), 0.05)
        .expect("loss");
    let before = TcpCounters::read(network.server()).expect("counters");
    let server = Server::start(network.server(), &[Listen::new(address)]).expect("a server");
    let plan = Plan::new("steady", FLOWS as usize, vec![address]).asking(
        60,
        10_000,
        Duration::from_millis(100),
    );
    let client = Client::start(network.client(), &[plan]).expect("clients");
    sampler.wait_windows(1);
    disturb(&sampler);
    client.wait().expect("clients");
    let closed = counters::wait_closed(network.server(), &[port], Duration::from_secs(60));
    assert!(closed.expect("sockets"), "flows stay open");
    sampler.wait_windows(2);
    let kernel = TcpCounters::read(network.server())
        .expect("counters")
        .since(&before);
    drop(server);
    let events = sampler.stop();
    assert!(kernel.data_retrans_segs() > 0, "nothing was lost");
    assert_eq!(
        events.sum("all", "retrans_segs"),
        kernel.data_retrans_segs()
    );
    assert_eq!(events.sum("all", "bytes_acked"), FLOWS * 600_000);
    assert_eq!(events.sum("all", "flows_seen"), FLOWS);
    assert_eq!(events.sum("all", "flows_closed"), FLOWS);
    events.assert_laws();
    Some(events)
}

/// Stopped so often for so long, with pauses between.
fn suspended(port: u16, times: u32, stop: Duration, go: Duration) -> Option<Events> {
    disturbed(port, |sampler| {
        for _ in 0..times {
            sampler.signal(Signal::SIGSTOP);
            thread::sleep(stop);
            sampler.signal(Signal::SIGCONT);
            thread::sleep(go);
        }
    })
}

/// Each window begins on an edge, after those that the one before it missed and that it says.
fn assert_in_turn(windows: &[StreamWindow]) {
    for pair in windows.windows(2) {
        let [one, next] = pair else { continue };
        assert_eq!(next.sequence, one.sequence + 1);
        let step = u64::from(one.window_ms) * u64::from(one.missed_edges + 1);
        assert_eq!(
            next.window_start_ms,
            one.window_start_ms + step,
            "{one:?}\n{next:?}"
        );
    }
    for window in windows {
        assert_eq!(window.window_start_ms % 1000, 0);
        let late = window.flags & Flag::LateRead as u32 != 0;
        assert!(late || window.missed_edges == 0, "{window:?}");
    }
}

/// The windows tile the time: besides, what they observed adds up to the time that passed.
fn assert_tiled(windows: &[StreamWindow]) {
    assert_in_turn(windows);
    let (first, last) = (&windows[0], &windows[windows.len() - 1]);
    let observed: u64 = windows.iter().map(|w| u64::from(w.observed_ms)).sum();
    let passed = last.emitted_ms - first.emitted_ms + u64::from(first.observed_ms);
    // Each is rounded to whole milliseconds, and the two clocks are read one after the other.
    assert!(
        observed.abs_diff(passed) <= 2 * windows.len() as u64,
        "{observed} ms observed of {passed}"
    );
}

#[test]
fn a_suspended_daemon_makes_one_long_window() {
    let Some(events) = suspended(8105, 1, Duration::from_secs(5), Duration::from_secs(1)) else {
        return;
    };
    let windows = events.stream_windows("all");
    assert_tiled(&windows);
    let long: Vec<_> = windows.iter().filter(|w| w.missed_edges > 0).collect();
    let [long] = long[..] else {
        panic!("{} long windows", long.len());
    };
    println!(
        "long window: {} ms, {} edges missed",
        long.observed_ms, long.missed_edges
    );
    // From the edge before the stop to the moment of waking.
    assert!((5_000..6_500).contains(&long.observed_ms));
    assert!((4..=5).contains(&long.missed_edges));
    assert_ne!(long.flags & Flag::LateRead as u32, 0);
    assert!(long.bytes_acked > 0);
}

#[test]
fn a_daemon_suspended_again_and_again_loses_nothing() {
    let stop = Duration::from_millis(1_700);
    let go = Duration::from_millis(150);
    let Some(events) = suspended(8112, 4, stop, go) else {
        return;
    };
    let windows = events.stream_windows("all");
    assert_tiled(&windows);
    let long = windows
        .iter()
        .filter(|w| w.flags & Flag::LateRead as u32 != 0)
        .count();
    println!("{} windows, {long} of them long", windows.len());
    assert!(long >= 4, "{long} long windows");
}

/// All threads of the daemon run when nothing else wants to, or as usual.
fn set_policy(sampler: &Sampler, policy: i32) {
    let parameters = libc::sched_param { sched_priority: 0 };
    let tasks = format!("/proc/{}/task", sampler.pid());
    for task in fs::read_dir(tasks).expect("threads") {
        let name = task.expect("a thread").file_name();
        let id = name.to_string_lossy().parse().expect("its id");
        // SAFETY: the parameters are read only. A thread that has ended meanwhile is no matter.
        unsafe { libc::sched_setscheduler(id, policy, &parameters) };
    }
}

#[test]
fn a_daemon_without_processor_time_loses_nothing() {
    let starved = disturbed(8113, |sampler| {
        let end = Instant::now() + Duration::from_secs(6);
        let cpus = thread::available_parallelism().expect("processors").get();
        set_policy(sampler, libc::SCHED_IDLE);
        thread::scope(|scope| {
            for _ in 0..BUSY_PER_CPU * cpus {
                scope.spawn(|| {
                    while Instant::now() < end {
                        std::hint::spin_loop();
                    }
                });
            }
        });
        set_policy(sampler, libc::SCHED_OTHER);
    });
    let Some(events) = starved else { return };
    let windows = events.stream_windows("all");
    assert_in_turn(&windows);
    let late = windows
        .iter()
        .filter(|w| w.flags & Flag::LateRead as u32 != 0);
    let (late, missed): (Vec<_>, u32) = (
        late.map(|w| w.observed_ms).collect(),
        windows.iter().map(|w| w.missed_edges).sum(),
    );
    println!(
        "{} windows, {missed} edges missed, late ones of {late:?} ms",
        windows.len()
    );
}
