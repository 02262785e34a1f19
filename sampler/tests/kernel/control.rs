//! Rates set over the control socket, while connections come and go.

use std::{
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use lab::{
    network::Options,
    traffic::{
        client::Client,
        plan::Plan,
        server::{Listen, Server},
    },
};
use sampler_event::StreamWindow;
use serde_json::Value;

use crate::harness::{CONTROL, PROGRAM, Sampler, network, turn};

const PORT: u16 = 8152;
/// A user who may not.
const NOBODY: u32 = 65534;

fn rate(state: &Path, arguments: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .arg("rate")
        .args(arguments.split(' '))
        .arg("--socket")
        .arg(state.join(CONTROL));
    command
}

/// Status, and what was said on standard output and standard error.
fn said(command: &mut Command) -> (i32, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("the client");
    let text = [stdout, stderr].concat();
    let code = status.code().expect("an exit status");
    (code, String::from_utf8(text).expect("text"))
}

/// Rates of new flows by epoch.
fn epochs(windows: &[StreamWindow]) -> Vec<(u32, f64)> {
    let admitting = windows.iter().filter(|w| w.flows_sampled > 0);
    let mut epochs: Vec<_> = admitting.map(|w| (w.rate_epoch, w.sampling_rate)).collect();
    epochs.dedup();
    epochs.sort_by_key(|(epoch, _)| *epoch);
    epochs.dedup();
    epochs
}

#[test]
fn a_rate_is_set_for_a_while_and_returns() {
    let Some(_turn) = turn() else { return };
    let network = network(Options::default());
    let address = SocketAddr::new(network.server_v4(), PORT);
    let stream = |slow: u32| {
        format!(
            "[[stream]]\nname = \"all\"\nrate = 1.0\nrtt_slow_us = {slow}\nlocal = [\"{address}\"]\n"
        )
    };
    let sampler = Sampler::start(network.server(), &stream(200_000));
    let server = Server::start(network.server(), &[Listen::new(address)]).expect("a server");
    let mut plan =
        Plan::new("come", 1_000_000, vec![address]).asking(2, 1_000, Duration::from_millis(20));
    plan.concurrency = 10;
    let players = Client::start(network.client(), &[plan]).expect("players");
    let state = sampler.state().to_owned();
    let ask = |arguments: &str| said(&mut rate(&state, arguments));
    let epoch = |epoch: u32| {
        move |s: &Sampler| {
            let windows = s.events().stream_windows("all");
            epochs(&windows).iter().any(|(number, _)| *number == epoch)
        }
    };

    let (code, text) = ask("set al 0.5 --for 1s");
    assert_eq!(code, 2);
    assert!(text.contains("did you mean `all`?"), "{text}");
    assert_eq!(ask("unset all").0, 2);
    let (code, text) = said(rate(&state, "set all 0.5 --for 1s").uid(NOBODY).gid(NOBODY));
    assert_eq!(code, 77);
    assert!(text.contains("members of the service's group"), "{text}");
    sampler.wait_for("flows are sampled", epoch(1));

    let (code, text) = ask("set all 0.5 --for 1s");
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("(in 1s), then 1 again"), "{text}");
    let (_, list) = ask("list --json");
    let list: Value = serde_json::from_str(&list).expect("JSON");
    assert_eq!(list[0]["rate"], 0.5, "{list}");
    assert_eq!(list[0]["by"]["uid"], 0, "{list}");
    sampler.wait_for("new flows are sampled at that rate", epoch(2));
    sampler.wait_for("it returns", epoch(3));
    assert!(ask("list").1.contains("no rate is set"));

    // A reload keeps what was set; here it makes a new epoch at the same rate.
    assert_eq!(ask("set all 0.25 --for 1h").0, 0);
    sampler.reload(&stream(100_000));
    sampler.wait_for("the reload", |s| s.log().contains("configuration reloaded"));
    sampler.wait_for("flows of it are sampled", epoch(5));
    assert!(ask("list").1.contains("0.25"));
    assert_eq!(ask("unset all").0, 0);
    sampler.wait_for("it returns", epoch(6));
    assert_eq!(ask("set all 0.25 --for 1h").0, 0);
    sampler.reload("");
    sampler.wait_for("the stream is gone", |s| {
        s.log().contains("the stream is gone")
    });
    assert!(ask("set all 1 --for 1h").1.contains("none is configured"));

    players.stop().expect("players");
    let log = sampler.log();
    assert!(log.contains("rate set over the control socket"), "{log}");
    assert!(log.contains("uid=0"), "{log}");
    drop(server);
    let events = sampler.stop();
    let (code, text) = ask("list");
    assert_eq!(code, 69);
    assert!(text.contains("no sampler answers"), "{text}");
    let seen = epochs(&events.stream_windows("all"));
    let expected = [(1, 1.0), (2, 0.5), (3, 1.0), (4, 0.25), (5, 0.25), (6, 1.0)];
    // Epoch 4 was in force for a moment only.
    let expected = expected
        .into_iter()
        .filter(|e| seen.contains(e) || e.0 != 4);
    assert_eq!(
        seen.get(..5 + usize::from(seen.contains(&(4, 0.25)))),
        Some(&*expected.collect::<Vec<_>>())
    );
    events.assert_laws();
}
