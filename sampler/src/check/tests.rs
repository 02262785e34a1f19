//! `check` on real files, as its user runs it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

use super::*;
use crate::cli::Client;

struct Node {
    directory: tempfile::TempDir,
}

/// A loopback address that no other test and no service has: every one gets its own.
fn own_address() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    let own = NEXT.fetch_add(1, Ordering::Relaxed);
    SocketAddr::from(([127, high | 128, low, own], 9740))
}

/// What `check` said: exit code, output, findings.
type Said = (u8, String, String);

impl Node {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn file(&self, name: &str, text: &str) -> std::path::PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// A file that nobody else can read.
    fn secret(&self, name: &str, text: &str) -> std::path::PathBuf {
        let path = self.file(name, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// A main file whose state directory and port are this test's own.
    fn main(&self, rest: &str) -> std::path::PathBuf {
        self.main_on(own_address(), rest)
    }

    fn main_on(&self, listen: SocketAddr, rest: &str) -> std::path::PathBuf {
        let state = self.directory.path().join("state");
        self.file(
            "main.toml",
            &format!(
                "[state]\ndirectory = '{}'\n[metrics]\nlisten = '{listen}'\n{rest}",
                state.display()
            ),
        )
    }

    fn check(&self, args: CheckArgs) -> Said {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(&args, &mut out, &mut err).unwrap();
        let base = format!("{}/", self.directory.path().display());
        let text = |bytes| String::from_utf8(bytes).unwrap().replace(&base, "");
        (code, text(out), text(err))
    }
}

fn args(config: std::path::PathBuf) -> CheckArgs {
    CheckArgs {
        config,
        offline: false,
        explain: None,
        client: None,
        cgroup: None,
        mark: 0,
        diff: None,
    }
}

const STREAMS: &str = "
[[stream]]
name = 'vip'
local = ['203.0.113.7:443']
remote = ['10.0.0.0/8']
rate = 1.0
[[stream]]
name = 'near'
local = ['203.0.113.0/24:443']
rate = 0.0
[[stream]]
name = 'rest'
local = ['*:443']
";

#[test]
fn a_right_file_is_summed_up() {
    let node = Node::new();
    let (code, out, err) = node.check(args(node.main(STREAMS)));
    assert_eq!((code, err.as_str()), (exit::OK, ""));
    assert!(
        out.contains("streams: 3, tried in this order:\n  vip: rate 1, local"),
        "{out}"
    );
    assert!(
        out.contains("key not there yet, of this node only, in state/sampling.key"),
        "{out}"
    );
    assert!(
        out.contains("9.2 % of a core if all 65536 are open (2 % at 14285)"),
        "{out}"
    );
    assert!(
        !node.directory.path().join("state").exists(),
        "check changes nothing"
    );
}

#[test]
fn an_empty_file_says_that_it_samples_nothing() {
    let node = Node::new();
    let file = node.file("main.toml", "");
    let (code, out, _) = node.check(CheckArgs {
        offline: true,
        ..args(file)
    });
    assert_eq!(code, exit::OK);
    assert!(out.ends_with("no streams: nothing is sampled\n"), "{out}");
}

#[test]
fn every_error_is_printed_and_counted() {
    let node = Node::new();
    let file = node.file("main.toml", "nod = 1\n[sampling]\nrate = 7\n");
    let (code, out, err) = node.check(args(file));
    assert_eq!((code, out.as_str()), (exit::CONFIG, ""));
    let lines: Vec<_> = err.lines().collect();
    assert!(
        lines[0].starts_with("main.toml:1:1: nod: unknown option"),
        "{err}"
    );
    assert!(
        lines[1].starts_with("main.toml:3:8: sampling.rate: "),
        "{err}"
    );
    assert_eq!(lines[2], "main.toml: 2 errors");
}

#[test]
fn warnings_leave_the_exit_code_alone() {
    let node = Node::new();
    let rest = "[[stream]]\nname = 'a'\nlocal = ['*:1-9']\ncgroup = '/no/such.service'\n\
                [[stream]]\nname = 'b'\nlocal = ['*:5-15']\n";
    let (code, _, err) = node.check(args(node.main(rest)));
    assert_eq!(code, exit::OK, "{err}");
    assert!(
        err.contains("warning: main.toml:11:10: stream.local: `*:5-15`"),
        "{err}"
    );
    assert!(
        err.contains("warning: main.toml:5:1: stream.cgroup: cgroup /no/such.service"),
        "{err}"
    );
}

#[test]
fn a_port_in_use_is_an_error_unless_a_sampler_holds_it() {
    let node = Node::new();
    let address = own_address();
    let listener = TcpListener::bind(address).unwrap();
    let answers = [
        "HTTP/1.0 404 Not Found\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\nflowvitals_up 1\n",
    ];
    let server = thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            stream.write_all(answer.as_bytes()).unwrap();
        }
        listener // stays open until both answers were judged
    });
    let (code, _, err) = node.check(args(node.main_on(address, "")));
    assert_eq!(code, exit::CONFIG);
    let expected = format!("main.toml:4:10: metrics.listen: {address} cannot be bound: ");
    assert!(err.starts_with(&expected), "{err}");
    let (code, out, err) = node.check(args(node.main_on(address, "")));
    assert_eq!((code, err.as_str()), (exit::OK, ""));
    assert!(out.contains("(a sampler runs there already)"), "{out}");
    drop(server.join().unwrap());
}

#[test]
fn a_wrong_key_or_state_directory_is_an_error() {
    let node = Node::new();
    let key = node.secret("key", "short");
    let rest = format!("[sampling]\nkey_file = '{}'", key.display());
    let file = node.main(&rest);
    let (code, _, err) = node.check(args(file.clone()));
    assert_eq!(code, exit::CONFIG);
    assert!(
        err.contains("main.toml:6:12: sampling.key_file: key: has 5 bytes (allowed: "),
        "{err}"
    );
    let (code, out, err) = node.check(CheckArgs {
        offline: true,
        ..args(file)
    });
    assert_eq!((code, err.as_str()), (exit::OK, ""), "offline reads no key");
    assert!(out.contains("key not read (offline)"), "{out}");

    let node = Node::new();
    let file = node.main("");
    node.file("state", "not a directory");
    let (code, _, err) = node.check(args(file));
    assert_eq!(code, exit::CONFIG);
    assert!(
        err.contains("main.toml:2:13: state.directory: state is not a directory"),
        "{err}"
    );
}

#[track_caller]
fn check_explain(local: &str, client: &str, expected: &[&str]) {
    let node = Node::new();
    let key = node.secret("key", "00000000000000000000000000000000");
    let rest = format!("[sampling]\nkey_file = '{}'\n{STREAMS}", key.display());
    let file = node.main(&rest);
    let (code, out, _) = node.check(CheckArgs {
        explain: Some(local.parse().unwrap()),
        client: Some(client.parse::<Client>().unwrap()),
        ..args(file)
    });
    assert_eq!(code, exit::OK);
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{out}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}\nis not\n{expected}");
    }
}

#[test]
fn explain_says_which_rule_takes_a_flow_and_why() {
    check_explain(
        "203.0.113.7:443",
        "10.1.1.1:50000",
        &[
            "vip (main.toml:8:1): takes it by local = 203.0.113.7:443",
            "near (main.toml:13:1): would take it, but comes later",
            "rest (main.toml:17:1): would take it, but comes later",
            "stream vip, rate 1: sampled under key 374708ff (its place is 0.",
        ],
    );
    check_explain(
        "[::ffff:203.0.113.7]:443",
        "11.1.1.1:50000",
        &[
            "vip (main.toml:8:1): no: the client is not in remote = [10.0.0.0/8]",
            "near (main.toml:13:1): takes it by local = 203.0.113.0/24:443",
            "rest (main.toml:17:1): would take it, but comes later",
            "stream near, rate 0: not sampled under key 374708ff",
        ],
    );
    check_explain(
        "[2001:db8::1]:443",
        "[2001:db8::2]",
        &[
            "rest (main.toml:17:1): takes it by local = *:443",
            "vip, near: no: [2001:db8::1]:443 is not in local",
            "stream rest, rate 0.1: whether it is sampled depends on the client's port",
        ],
    );
    check_explain(
        "203.0.113.7:80",
        "10.1.1.1:50000",
        &[
            "vip, near, rest: no: 203.0.113.7:80 is not in local",
            "no stream takes it",
        ],
    );
}

#[test]
fn explain_selects_what_the_rate_says() {
    let node = Node::new();
    let text = "[sampling]\nrate = 0.25\n[[stream]]\nname = 'a'\nlocal = ['*:443']\n";
    let config = Config::load(&node.file("a.toml", text)).unwrap();
    let key = crate::config::key::Key { bytes: [7; 16] };
    let sampled = (0..4_000u16)
        .filter(|port| {
            let question = explain::Question {
                local: "203.0.113.7:443".parse().unwrap(),
                client: Client {
                    address: [10, 0, 0, 1].into(),
                    port: Some(1_024 + port),
                },
                cgroup: None,
                mark: 0,
            };
            explain(&config, &question, Some(&key)).unwrap().selected == Some(true)
        })
        .count();
    // Binomial(4000, 0.25): mean 1000, standard deviation 27.
    assert!((890..=1_110).contains(&sampled), "{sampled}");
}

#[test]
fn diff_says_what_a_reload_changes() {
    let node = Node::new();
    let old = node.file("old.toml", STREAMS);
    let new = node.file(
        "new.toml",
        &STREAMS
            .replace("rate = 0.0", "rate = 0.5")
            .replace("'rest'", "'other'"),
    );
    let diff = |config: &std::path::PathBuf| {
        let args = CheckArgs {
            diff: Some(old.clone()),
            offline: true,
            ..args(config.clone())
        };
        node.check(args)
    };
    let (code, out, _) = diff(&new);
    assert_eq!(code, exit::OK);
    let starts = [
        "- stream rest: ",
        "~ stream near: rate: 0 -> 0.5: ",
        "+ stream other: ",
        "3 changes; a reload takes them all",
    ];
    for (line, start) in out.lines().zip(starts) {
        assert!(line.starts_with(start), "{out}");
    }
    assert_eq!(diff(&old).1, "no difference\n");
    let broken = CheckArgs {
        diff: Some("none.toml".into()),
        ..args(new)
    };
    assert_eq!(node.check(broken).0, exit::CONFIG);
}
