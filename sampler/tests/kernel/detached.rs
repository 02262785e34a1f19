//! What is left in the kernel when the daemon has gone: nothing, unless a service manager keeps it.

use std::{collections::BTreeSet, fs, io, time::Duration};

use lab::{
    clock, counters,
    network::Options,
    traffic::{
        client::Client,
        plan::Plan,
        server::{Listen, Server},
    },
};
use sampler::kernel::{parts, sys};

use crate::{
    foreign::{Foreign, Manners},
    harness::{PATIENCE, Sampler, all, network, turn},
    others::lossy,
    supervisor::Supervisor,
};

const PORT: u16 = 8151;

/// `BPF_PROG_GET_FD_BY_ID`, `BPF_MAP_GET_FD_BY_ID` and `BPF_LINK_GET_FD_BY_ID`, by the keys of fdinfo.
const BY_ID: [(&str, libc::c_long); 3] = [("prog_id", 13), ("map_id", 14), ("link_id", 30)];

/// Programs, maps and links that a process holds: the command that finds one again, and its id.
pub fn held(sampler: &Sampler) -> BTreeSet<(libc::c_long, u32)> {
    let mut ids = BTreeSet::new();
    let folder = format!("/proc/{}/fdinfo", sampler.pid());
    for entry in fs::read_dir(folder).expect("descriptors") {
        let text = fs::read_to_string(entry.expect("an entry").path()).unwrap_or_default();
        for line in text.lines() {
            let Some((key, value)) = line.split_once(":\t") else {
                continue;
            };
            let command = BY_ID.iter().find(|(known, _)| *known == key);
            if let (Some((_, command)), Ok(id)) = (command, value.trim().parse()) {
                ids.insert((*command, id));
            }
        }
    }
    ids
}

fn exists(&(command, id): &(libc::c_long, u32)) -> bool {
    match sys::bpf(command, &[id, 0, 0]) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{command}: {error}");
            false
        }
    }
}

/// The kernel frees things a little later than they are closed.
pub fn assert_gone(ids: &BTreeSet<(libc::c_long, u32)>) {
    // Programs, arrays, links, and the socket storage, which an iterator's link names.
    assert!(ids.len() > parts::names().count(), "{ids:?}");
    let gone = clock::wait_until(PATIENCE, || !ids.iter().any(exists));
    let left: Vec<_> = ids.iter().filter(|id| exists(id)).collect();
    assert!(gone, "{left:?}");
}

#[test]
fn nothing_is_left_after_a_stop_or_a_kill() {
    let Some(_turn) = turn() else { return };
    let network = network(Options::default());
    let config = all(&[format!("*:{PORT}")]);
    let sampler = Sampler::start(network.server(), &config);
    let ids = held(&sampler);
    assert!(ids.iter().all(exists));
    sampler.stop();
    assert_gone(&ids);
    let sampler = Sampler::start(network.server(), &config);
    let ids = held(&sampler);
    sampler.kill();
    assert_gone(&ids);
}

#[test]
fn what_is_kept_goes_when_the_service_manager_lets_go() {
    let Some(_turn) = turn() else { return };
    let network = network(Options::default());
    let supervisor = Supervisor::start();
    let config = format!(
        "[kafka]\nbrokers = [\"127.0.0.1:9\"]\n{}",
        all(&[format!("*:{PORT}")])
    );
    let state = Sampler::configured(&config);
    let sampler = Sampler::start_under(&supervisor, network.server(), state).attached();
    sampler.wait_for("its kernel side is kept", |_| {
        supervisor.names().len() == parts::names().count()
    });
    let ids = held(&sampler);
    sampler.stop_and_leave();
    assert!(ids.iter().all(exists));
    supervisor.store().clear();
    assert_gone(&ids);
}

#[test]
fn a_cgroup_has_one_sampler() {
    let Some(_turn) = turn() else { return };
    let network = network(Options::default());
    let config = all(&[format!("*:{PORT}")]);
    let first = Sampler::start(network.server(), &config);
    let refused = Sampler::ask(network.client(), &config, "run");
    let words = format!(
        "is in use by another sampler (process {}): both would count the same flows",
        first.pid()
    );
    assert_eq!(refused.status.code(), Some(78));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains(&words), "{said}");
    // Several nodes on one machine.
    let shared = format!("[sampling]\nalone = false\n{config}");
    Sampler::start(network.client(), &shared).stop();
    first.stop();
    Sampler::start(network.client(), &config).stop();
}

/// Callbacks that were asked for outlive us on sockets that are open: only a program can take them back. Where another sock_ops program
/// is attached, it is run for them until they close; it sees none on sockets that come later.
#[test]
fn another_program_works_on_beside_us_and_after_us() {
    let Some(_turn) = turn() else { return };
    let (network, address) = lossy(PORT);
    let foreign = Foreign::attach(PORT, Manners::Polite);
    let sampler = Sampler::start(network.server(), &all(&[address]));
    let server = Server::start(network.server(), &[Listen::new(address)]).expect("a server");
    let plan = |name| {
        Plan::new(name, 5, vec![address]).asking(1_000_000, 20_000, Duration::from_millis(20))
    };
    let old = Client::start(network.client(), &[plan("old")]).expect("players");
    sampler.wait_for("flows are open", |s| {
        s.events().sum("all", "flows_sampled") == 5
    });
    assert_eq!(foreign.established(), 5);
    sampler.stop();
    let (own, ours) = (foreign.callbacks(), foreign.rtt_samples());
    let goes_on = clock::wait_until(PATIENCE, || {
        foreign.callbacks() > own + 100 && foreign.rtt_samples() > ours
    });
    assert!(
        goes_on,
        "its own callbacks and ours, on sockets that are open"
    );
    old.stop().expect("players");
    // Not before the last acknowledgement of a closing one, which is a sample too.
    let closed = counters::wait_closed(network.server(), &[PORT], PATIENCE);
    assert!(closed.expect("sockets"), "flows stay open");
    let (own, ours) = (foreign.callbacks(), foreign.rtt_samples());
    let new = Client::start(network.client(), &[plan("new")]).expect("players");
    // A SYN-ACK that is lost comes again after a second.
    let goes_on = clock::wait_until(PATIENCE, || {
        foreign.callbacks() > own + 100 && foreign.established() >= 10
    });
    assert!(goes_on, "its own callbacks on new sockets");
    assert_eq!(foreign.established(), 10);
    assert_eq!(foreign.rtt_samples(), ours, "none of ours on new sockets");
    new.stop().expect("players");
    server.stop().expect("a server");
}
