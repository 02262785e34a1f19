//! `check` on real files, as its user runs it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

use rdkafka::mocking::MockCluster;

use super::*;

/// A loopback address that no other test and no service has: every one gets its own.
fn own_address() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    let own = NEXT.fetch_add(1, Ordering::Relaxed);
    SocketAddr::from(([127, high | 128, low, own], 9741))
}

/// What `check` said: exit code, output, findings.
type Said = (u8, String, String);

fn check(text: &str, offline: bool) -> Said {
    let directory = tempfile::tempdir().expect("directory");
    let config: PathBuf = directory.path().join("main.toml");
    fs::write(&config, text).expect("written");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = run(&CheckArgs { config, offline }, &mut out, &mut err).expect("said");
    let base = format!("{}/", directory.path().display());
    let text = |bytes| String::from_utf8(bytes).expect("text").replace(&base, "");
    (code, text(out), text(err))
}

fn listening(at: SocketAddr, brokers: &str, rest: &str) -> String {
    format!("[http]\nlisten = '{at}'\n[kafka]\nbrokers = ['{brokers}']\n{rest}")
}

const RULES: &str = "
[[alert]]
name = 'retransmissions'
streams = ['sport-*', 'news']
metric = 'retrans_ratio'
above = 0.02
active = '2026-11-22T19:45:00Z/PT3H'
labels = { team = 'live' }
[[alert]]
name = 'dark'
streams = ['*']
metric = 'no_data'
over_s = 20
severity = 'ticket'
";

#[test]
fn a_right_file_is_summed_up() {
    let text = format!(
        "site = 'ams1'\nalertmanager.urls = ['http://127.0.0.1:9093']\nkafka.brokers = ['a:1', 'b:1']\n{RULES}"
    );
    let (code, out, err) = check(&text, true);
    assert_eq!((code, err.as_str()), (exit::OK, ""));
    for line in [
        "site ams1\n",
        "configuration: main.toml, sha256 ",
        "kafka: a:1 b:1\n",
        "consumer groups: flowvitals-alert (role alert), flowvitals-store (role store)\n",
        "reads: flowvitals.window.v1, flowvitals.pulse.v1, flowvitals.node.v1\n",
        "writes: flowvitals.alert.v1, flowvitals.state.v1, flowvitals.dlq.v1\n",
        "until 2000 ms after its end; a node that is silent for 900 s is expected no more\n",
        "store: embedded in /var/lib/flowvitals/store",
        "http: http://127.0.0.1:9741/ answers who asks from this machine\n",
        "alerts: go to their topic and to http://127.0.0.1:9093\nrules: 2\n",
        "  retransmissions: each of sport-* news: fires when retrans_ratio over 10 s is above 0.02 for 2 s (the lower \
         bound of its 95 % interval, 30 sampled flows or more); clears when it is below 0.014 for 30 s; suspected early \
         from pulses; only from 2026-11-22T19:45:00Z to 2026-11-22T22:45:00Z; severity page, team \"live\"\n",
        "  dark: each of *: fires when more than half of its nodes said nothing for 20 s, and 2 s more; clears after \
         30 s with data; severity ticket\n",
    ] {
        assert!(out.contains(line), "{line}\nis not in\n{out}");
    }
}

#[test]
fn an_empty_file_is_valid_but_cannot_run() {
    let (code, out, err) = check("", true);
    assert_eq!(code, exit::OK);
    assert!(
        err.starts_with("warning: main.toml: kafka.brokers: is missing or empty: there is nothing"),
        "{err}"
    );
    assert!(out.contains("kafka: no brokers: it cannot run\n"), "{out}");
    assert!(out.ends_with("no rules: no alert is raised\n"), "{out}");

    let (code, _, err) = check(&format!("http.listen = '{}'", own_address()), false);
    assert_eq!(code, exit::CONFIG);
    assert!(
        err.starts_with("main.toml: kafka.brokers: is missing"),
        "{err}"
    );
}

#[test]
fn every_error_is_printed_and_counted() {
    let (code, out, err) = check("sit = 1\n[merge]\nlateness_ms = 7\n", false);
    assert_eq!((code, out.as_str()), (exit::CONFIG, ""));
    let lines: Vec<_> = err.lines().collect();
    assert_eq!(lines.len(), 3, "{err}");
    assert!(
        lines[0].starts_with("main.toml:1:1: sit: unknown option"),
        "{err}"
    );
    assert!(
        lines[1].starts_with("main.toml:3:15: merge.lateness_ms: "),
        "{err}"
    );
    assert_eq!(lines[2], "main.toml: 2 errors");
}

#[test]
fn odd_things_are_warnings() {
    let (code, _, err) = check("kafka.brokers = ['a:1']\nstore.keyspace = 'k'", true);
    assert_eq!(code, exit::OK);
    assert!(
        err.starts_with("warning: main.toml:2:18: store.keyspace: has no effect"),
        "{err}"
    );
}

#[test]
fn brokers_and_topics_are_asked_for() {
    let cluster = MockCluster::new(1).expect("mock cluster");
    for topic in [
        "flowvitals.window.v1",
        "flowvitals.node.v1",
        "flowvitals.dlq.v1",
    ] {
        cluster.create_topic(topic, 12, 1).expect("topic");
    }
    let servers = cluster.bootstrap_servers();
    let (code, out, err) = check(&listening(own_address(), &servers, ""), false);
    assert_eq!(code, exit::OK, "{err}");
    assert!(
        out.contains(&format!("kafka: {servers}; answers: ")),
        "{out}"
    );
    assert!(
        out.contains(
            "reads: flowvitals.window.v1 (12 partitions), flowvitals.pulse.v1 (not there), flowvitals.node.v1 (12 \
             partitions)\nwrites: flowvitals.dlq.v1 (12 partitions)\n"
        ),
        "{out}"
    );
    let lines: Vec<_> = err.lines().collect();
    assert_eq!(lines.len(), 1, "{err}");
    assert!(
        lines[0].starts_with("warning: topic flowvitals.pulse.v1: not there"),
        "{err}"
    );

    // A rule wants the topics of alerts too.
    let (_, _, err) = check(&listening(own_address(), &servers, RULES), false);
    assert!(
        err.contains("topic flowvitals.alert.v1: not there"),
        "{err}"
    );
    assert!(
        err.contains("topic flowvitals.state.v1: not there"),
        "{err}"
    );
}

#[test]
fn a_broker_that_is_away_keeps_nothing_from_running() {
    let (code, out, err) = check(&listening(own_address(), "127.0.0.1:1", ""), false);
    assert_eq!(code, exit::OK, "{err}");
    assert!(err.starts_with("warning: kafka: 127.0.0.1:1: "), "{err}");
    assert!(err.contains("Connection refused"), "{err}");
    assert!(out.contains("kafka: 127.0.0.1:1\n"), "{out}");
}

#[test]
fn a_property_that_librdkafka_does_not_take() {
    let rest = "[kafka.properties]\n'no.such.thing' = 'secret'";
    let (code, _, err) = check(&listening(own_address(), "127.0.0.1:1", rest), false);
    assert_eq!(code, exit::CONFIG);
    assert!(
        err.starts_with(
            "main.toml:6:1: kafka.properties.no.such.thing: No such configuration property"
        ),
        "{err}"
    );
    assert!(!err.contains("secret"), "{err}");
    // Offline it is not asked.
    let (code, _, _) = check(&listening(own_address(), "127.0.0.1:1", rest), true);
    assert_eq!(code, exit::OK);
}

#[test]
fn files_of_the_interface_are_looked_at() {
    let text = format!(
        "[http]\nlisten = '{}'\ntoken_file = '/no/such/token'\n[kafka]\nbrokers = ['127.0.0.1:1']\n",
        own_address()
    );
    let (code, _, err) = check(&text, false);
    assert_eq!(code, exit::CONFIG);
    let expected = "main.toml:3:14: http.token_file: /no/such/token: No such file";
    assert!(err.contains(expected), "{err}");
    // Offline they are not there to be looked at.
    let (code, out, _) = check(&text, true);
    assert_eq!(code, exit::OK);
    assert!(out.contains("with a token of /no/such/token\n"), "{out}");
    let (code, _, err) = check("http.listen = '0.0.0.0:9741'", true);
    assert_eq!(code, exit::CONFIG);
    let expected = "main.toml:1:15: http.listen: `0.0.0.0:9741` can be reached from outside, and anybody could ask";
    assert!(err.starts_with(expected), "{err}");
}

#[test]
fn the_port_must_be_free_or_ours() {
    let listener = TcpListener::bind(own_address()).expect("bound");
    let at = listener.local_addr().expect("address");
    let text = format!(
        "{}\nkafka.brokers = ['127.0.0.1:1']",
        format_args!("http.listen = '{at}'")
    );
    // What listens says nothing: not ours.
    let (code, _, err) = check(&text, false);
    assert_eq!(code, exit::CONFIG);
    assert!(err.contains("main.toml:1:15: http.listen: "), "{err}");
    assert!(err.contains("cannot be bound"), "{err}");
    // It speaks as ours do.
    drop(listener);
    let listener = TcpListener::bind(at).expect("bound again");
    let speaker = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("asked");
        let mut request = [0; 64];
        let _read = stream.read(&mut request).expect("a request");
        stream
            .write_all(b"HTTP/1.0 200 OK\r\n\r\nflowvitals_up 1\n")
            .expect("answered");
        listener
    });
    let (code, out, err) = check(&text, false);
    let _listener = speaker.join().expect("speaker");
    assert_eq!(code, exit::OK, "{err}");
    assert!(
        out.contains("(one of our daemons answers there already)"),
        "{out}"
    );
}
