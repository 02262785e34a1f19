//! Whole files through the reader: what is accepted, and what every refusal says.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::load::read;
use super::*;

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    read(Source::new("a.toml", text), |_| Ok(Vec::new()))
}

fn good(text: &str) -> Config {
    parse(text).unwrap_or_else(|errors| panic!("{text}\n{errors}"))
}

/// Every error of `text` is expected: `line:column: option: start of the message`.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let errors = parse(text).expect_err(text).0;
    let shown: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(shown.len(), expected.len(), "{shown:#?}");
    for (shown, expected) in shown.iter().zip(expected) {
        assert!(
            shown.starts_with(&format!("a.toml:{expected}")),
            "{shown}\nis not\n{expected}"
        );
    }
}

/// The same, for one stream with these lines.
#[track_caller]
fn check_stream(lines: &str, expected: &[&str]) {
    check(&format!("[[stream]]\n{lines}\n"), expected);
}

/// The same, with a name and a local address.
#[track_caller]
fn check_option(line: &str, expected: &[&str]) {
    check_stream(&format!("name = 'a'\nlocal = ['*:443']\n{line}"), expected);
}

fn stream(name: &str, rest: &str) -> String {
    format!("[[stream]]\nname = '{name}'\n{rest}\n")
}

#[test]
fn an_empty_file_is_the_defaults() {
    let config = good("");
    let default = Config {
        files: vec!["a.toml".into()],
        sha256: config.sha256,
        ..Config::default()
    };
    assert_eq!(config, default);
}

#[test]
fn defaults_are_those_of_the_contract() {
    let c = Config::default();
    assert_eq!((c.node, c.site.as_str()), (None, "default"));
    assert_eq!(
        (
            c.sampling.rate,
            c.sampling.max_sampled_flows,
            c.sampling.alone
        ),
        (0.1, 65_536, true)
    );
    assert_eq!(
        (c.window.length_ms, c.window.walk_interval_ms),
        (1_000, 1_000)
    );
    assert_eq!(
        (c.kafka.brokers.len(), c.kafka.topic.as_str()),
        (0, "flowvitals.window.v1")
    );
    assert_eq!(c.state.directory, Path::new("/var/lib/flowvitals"));
    assert_eq!(c.spool.directory, Path::new("/var/lib/flowvitals/spool"));
    assert_eq!((c.spool.max_bytes, c.spool.fsync_ms), (268_435_456, 1_000));
    assert_eq!(c.spool.replay_events_per_s, 1_000);
    assert_eq!(c.metrics.listen.to_string(), "127.0.0.1:9740");
    assert_eq!(c.metrics.streams, SeriesOf::Top(20));
    assert_eq!(c.control.socket, Path::new("/run/flowvitals/sampler.sock"));
    assert_eq!(
        (c.limits.cpu_percent, c.limits.action),
        (1.0, LimitAction::Rate)
    );
    assert_eq!(c.limits.disable_file, Path::new("/etc/flowvitals/disabled"));
    assert_eq!(c.shutdown.timeout_s, 10);
}

const EXAMPLE: &str = include_str!("../../../deploy/config/sampler.toml");

#[test]
fn the_example_is_the_defaults() {
    let config = good(EXAMPLE);
    let default = Config {
        files: vec!["a.toml".into()],
        sha256: config.sha256,
        ..Config::default()
    };
    assert_eq!(config, default);
}

/// The comments of the example say the defaults: with the `#` taken away they change nothing but
/// what has no default value to show.
#[test]
fn the_commented_values_of_the_example_are_the_defaults() {
    let (node, streams) = EXAMPLE
        .split_once("# [[stream]]")
        .expect("an example stream");
    let shown: String = node
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(option) if is_option(option) => format!("{option}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let config = good(&shown);
    let expected = Config {
        node: Some("edge-07".to_owned()),
        sampling: Sampling {
            key_file: Some("/etc/flowvitals/sampling.key".into()),
            ..Sampling::default()
        },
        places: config.places.clone(),
        kafka: Kafka {
            properties: config.kafka.properties.clone(),
            password_file: Some("/etc/flowvitals/kafka-password".into()),
            ..Kafka::default()
        },
        warnings: config.warnings.clone(), // the walk at its bound, see below
        files: config.files.clone(),
        sha256: config.sha256,
        ..Config::default()
    };
    assert_eq!(config, expected);
    assert_eq!(config.kafka.properties.len(), 4);

    let stream: String = streams
        .lines()
        .map(|line| format!("{}\n", line.trim_start_matches("# ")))
        .collect();
    let config = good(&format!(
        "[[stream]]\n{}",
        stream.replace("#                                   #", "#")
    ));
    let stream = &config.streams[0];
    assert_eq!(
        (stream.name.as_str(), stream.local.len(), stream.rate),
        ("sport-1", 4, 0.25)
    );
    assert_eq!((stream.rtt_slow_us, stream.labels.len()), (RTT_SLOW_US, 3));
}

/// The file that the contract shows is accepted as it stands, and means what it says.
#[test]
fn the_contract_is_accepted() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/CONTRACT.md");
    let Ok(contract) = fs::read_to_string(&path) else {
        return eprintln!("skipped: the shared contract is not beside the workspace");
    };
    let (_, rest) = contract
        .split_once("## sampler.toml")
        .expect("a section on sampler.toml");
    let (_, rest) = rest.split_once("```toml\n").expect("a file");
    let (text, _) = rest.split_once("```").expect("its end");
    let config = good(text);
    let default = Config::default();
    assert_eq!(config.node.as_deref(), Some("edge-07"));
    assert_eq!(
        (&config.window, &config.spool),
        (&default.window, &default.spool)
    );
    assert_eq!(
        (&config.metrics, &config.limits),
        (&default.metrics, &default.limits)
    );
    assert_eq!(
        config.sampling.max_sampled_flows,
        default.sampling.max_sampled_flows
    );
    assert_eq!(config.streams[0].local.len(), 4);
}

fn is_option(line: &str) -> bool {
    let name = line.split(" = ").next().unwrap_or_default();
    line.contains(" = ")
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b"_\".".contains(&b))
}

/// Every option that the reader knows is in the example.
#[test]
fn the_example_names_every_option() {
    let options = [
        "node",
        "site",
        "include",
        "rate",
        "key_file",
        "max_sampled_flows",
        "alone",
        "length_ms",
        "walk_interval_ms",
        "brokers",
        "topic",
        "password_file",
        "directory",
        "max_bytes",
        "fsync_ms",
        "replay_events_per_s",
        "listen",
        "streams",
        "cpu_percent",
        "action",
        "disable_file",
        "timeout_s",
        "name",
        "local",
        "remote",
        "cgroup",
        "mark",
        "pulse_ms",
        "bitrate_bps",
        "rtt_slow_us",
        "labels",
    ];
    for option in options {
        assert!(
            EXAMPLE.contains(&format!("# {option} = ")),
            "{option} is not in the example"
        );
    }
}

#[test]
fn a_full_file() {
    let config = good(
        r#"
        node = "edge-07"
        site = "ams1"
        [sampling]
        rate = 1
        key_file = "/k"
        max_sampled_flows = 1000
        [window]
        length_ms = 2_000
        walk_interval_ms = 100
        [kafka]
        brokers = ["127.0.0.1:19092", "[::1]:9092", "kafka-1.example:9092"]
        [kafka.properties]
        "linger.ms" = 20
        "enable.ssl.certificate.verification" = true
        [state]
        directory = "/tmp/state"
        [metrics]
        listen = "[::1]:9740"
        streams = "off"
        [[stream]]
        name = "sport-1"
        local = ["203.0.113.7:443", "[2001:db8::7]:443", "*:8080", "203.0.113.0/24:8000-8099"]
        remote = ["0.0.0.0/0"]
        cgroup = "/system.slice/nginx.service/"
        mark = 7
        rate = 0.25
        pulse_ms = 100
        bitrate_bps = 6000000
        labels = { customer = "acme", tier = 1 }
        [[stream]]
        name = "rest"
        local = ["*:443"]
        "#,
    );
    assert_eq!(config.kafka.properties["linger.ms"], "20");
    assert_eq!(
        config.kafka.properties["enable.ssl.certificate.verification"],
        "true"
    );
    assert_eq!(
        config.spool.directory,
        Path::new("/tmp/state/spool"),
        "below the state directory"
    );
    let [sport, rest] = config.streams.as_slice() else {
        panic!("two streams")
    };
    assert_eq!(sport.cgroup.as_deref(), Some("/system.slice/nginx.service"));
    assert_eq!(
        (sport.mark, sport.rate, sport.pulse_ms),
        (Some(7), 0.25, 100)
    );
    assert_eq!(sport.labels["tier"], "1");
    assert_eq!((rest.rate, rest.rtt_slow_us), (1.0, RTT_SLOW_US));
    assert_eq!(config.warnings, vec![]);
}

#[test]
fn unknown_options_suggest_the_nearest() {
    check(
        "nod = 'x'",
        &["1:1: nod: unknown option, did you mean `node`?"],
    );
    check(
        "[window]\nlenght_ms = 1000",
        &["2:1: window.lenght_ms: unknown option, did you mean `length_ms`?"],
    );
    check(
        "[windows]",
        &["1:2: windows: unknown option, did you mean `window`?"],
    );
    check(
        "[[streams]]",
        &["1:3: streams: unknown option, did you mean `stream`?"],
    );
    check(
        "zebra = 1",
        &["1:1: zebra: unknown option (allowed: node, site, include, "],
    );
    check_option(
        "rats = 1",
        &["4:1: stream.rats: unknown option, did you mean `rate`?"],
    );
    check(
        "[forward]\nbrokers = []",
        &["1:2: forward: is not built yet"],
    );
    check_option(
        "sni = 'a'\nhost = 'b'",
        &[
            "4:1: stream.sni: is reserved",
            "5:1: stream.host: is reserved",
        ],
    );
}

#[test]
fn everything_that_is_wrong_is_reported() {
    check(
        "node = 7\n[window]\nlength_ms = 3000\n[sampling]\nrate = 1.5\n[[stream]]\nlocal = ['x']\n",
        &[
            "1:8: node: is of type integer (allowed: a text in quotes)",
            "3:13: window.length_ms: 3000 is not a choice (allowed: 1000, 2000, 5000, 10000)",
            "5:8: sampling.rate: 1.5 is out of range (allowed: a number from 0.0 to 1.0",
            "6:1: stream.name: is missing",
            "7:10: stream.local: `x` has no port (allowed: 203.0.113.7:443, ",
        ],
    );
}

#[test]
fn syntax_errors_have_their_place() {
    check("node = \n", &["1:8: "]);
    check("a = 1\nnode = 'a'\nnode = 'b'", &["3:1: "]);
    let errors = parse("[kafka\n").expect_err("no bracket").0;
    assert_eq!((errors[0].place.line, errors[0].option.as_str()), (1, ""));
}

#[test]
fn wrong_types() {
    check(
        "window = 3",
        &["1:10: window: is of type integer (allowed: a table: [window])"],
    );
    check(
        "stream = 3",
        &["1:10: stream: is of type integer (allowed: tables, each under [[stream]])"],
    );
    check(
        "[stream]\nname = 'a'",
        &["1:1: stream: is of type table (allowed: tables"],
    );
    check("stream = [1]", &["1:11: stream: is of type integer"]);
    check(
        "include = 'x'",
        &["1:11: include: is of type string (allowed: a list)"],
    );
    check("include = [1]", &["1:12: include: is of type integer"]);
    check(
        "[sampling]\nrate = '0.1'",
        &["2:8: sampling.rate: is of type string"],
    );
}

#[test]
fn sampling_values() {
    for wrong in ["1.5", "-1", "-0.1", "nan", "inf", "-inf", "2"] {
        check(
            &format!("[sampling]\nrate = {wrong}"),
            &[&format!("2:8: sampling.rate: {wrong} is out of range")],
        );
        check_option(
            &format!("rate = {wrong}"),
            &[&format!("4:8: stream.rate: {wrong} is out of range")],
        );
    }
    for right in ["0", "1", "0.0", "1.0", "1e-3", "-0.0"] {
        assert!((0.0..=1.0).contains(&good(&format!("[sampling]\nrate = {right}")).sampling.rate));
    }
    check(
        "[sampling]\nkey_file = 'k'",
        &["2:12: sampling.key_file: `k` is not absolute"],
    );
    for wrong in ["0", "-1", "4194305", "0xffffffffffffffff"] {
        check(
            &format!("[sampling]\nmax_sampled_flows = {wrong}"),
            &["2:21: sampling.max_sampled_flows: "],
        );
    }
}

#[test]
fn window_values() {
    for wrong in ["3000", "0", "-1000", "1000.0", "'1000'"] {
        check(
            &format!("[window]\nlength_ms = {wrong}"),
            &["2:13: window.length_ms: "],
        );
    }
    for wrong in ["0", "9", "60001", "-1"] {
        check(
            &format!("[window]\nwalk_interval_ms = {wrong}"),
            &["2:20: window.walk_interval_ms: "],
        );
    }
}

#[test]
fn the_walk_has_a_budget() {
    let walk = |flows: u32, ms: u32| {
        format!("[window]\nwalk_interval_ms = {ms}\n[sampling]\nmax_sampled_flows = {flows}\n")
    };
    check(
        &walk(65_536, 500),
        &["2:20: window.walk_interval_ms: a walk every 500 ms costs 18.4 % of a core"],
    );
    check(
        &walk(1_429, 100),
        &["2:20: window.walk_interval_ms: a walk every 100 ms costs 2.0 % of a core"],
    );
    assert_eq!(good(&walk(1_428, 100)).warnings, vec![]);
    // At the default or above it is the operator's own bound that is generous: said, not refused.
    let warnings = good(&walk(65_536, 1_000)).warnings;
    assert!(
        warnings[0]
            .to_string()
            .starts_with("a.toml:2:20: window.walk_interval_ms: a walk every 1000 ms costs 9.2 %")
    );
    assert_eq!(good(&walk(14_285, 1_000)).warnings, vec![]);
    assert_eq!(good(&walk(65_536, 5_000)).warnings, vec![]);
}

#[test]
fn other_sections() {
    check(
        "[kafka]\nbrokers = ['a', ':1', 'a:0', 'a b:1', '::1:9092', 'ok:1']",
        &[
            "2:12: kafka.brokers: `a` is not a broker's address",
            "2:17: kafka.brokers: `:1`",
            "2:23: kafka.brokers: `a:0`",
            "2:30: kafka.brokers: `a b:1`",
            "2:39: kafka.brokers: `::1:9092`",
        ],
    );
    check("[kafka]\ntopic = 'a b'", &["2:9: kafka.topic: "]);
    check("[kafka]\ntopic = '..'", &["2:9: kafka.topic: "]);
    check(
        "[kafka.properties]\n'bootstrap.servers' = 'x:1'",
        &["2:1: kafka.properties.bootstrap.servers: "],
    );
    check(
        "[kafka.properties]\nlinger.ms = 5",
        &["2:1: kafka.properties.linger: is of type table"],
    );
    check(
        "[state]\ndirectory = 'x'",
        &["2:13: state.directory: `x` is not absolute"],
    );
    check(
        "[spool]\nmax_bytes = 5\nfsync_ms = 0\nreplay_events_per_s = 0",
        &[
            "2:13: spool.max_bytes: 5 is out of range (allowed: a whole number from 1048576 to",
            "3:12: spool.fsync_ms: ",
            "4:23: spool.replay_events_per_s: ",
        ],
    );
    check(
        "[limits]\ncpu_percent = 0\naction = 'stop'\ndisable_file = ''",
        &[
            "2:15: limits.cpu_percent: 0 is out of range",
            "3:10: limits.action: `stop` is not a choice (allowed: \"rate\", \"detach\", \"log\")",
            "4:16: limits.disable_file: ",
        ],
    );
    check("[shutdown]\ntimeout_s = 0", &["2:13: shutdown.timeout_s: "]);
    check(
        "node = ''\nsite = 'a/b'",
        &["1:8: node: the name is empty", "2:8: site: "],
    );
}

#[test]
fn metrics_stay_on_the_node() {
    for wrong in [
        "0.0.0.0:9740",
        "[::]:9740",
        "192.0.2.1:9740",
        "[::ffff:192.0.2.1]:9740",
    ] {
        check(
            &format!("[metrics]\nlisten = '{wrong}'"),
            &[&format!(
                "2:10: metrics.listen: `{wrong}` can be reached from outside (allowed: a loopback"
            )],
        );
    }
    for wrong in ["9740", "127.0.0.1", "localhost:9740", "127.0.0.1:0"] {
        check(
            &format!("[metrics]\nlisten = '{wrong}'"),
            &["2:10: metrics.listen: "],
        );
    }
    for wrong in ["top:x", "top:0", "top:-1", "top", "some", ""] {
        check(
            &format!("[metrics]\nstreams = '{wrong}'"),
            &["2:11: metrics.streams: "],
        );
    }
    assert_eq!(
        good("[metrics]\nstreams = 'all'").metrics.streams,
        SeriesOf::All
    );
}

#[test]
fn stream_values() {
    check_stream(
        "",
        &[
            "1:1: stream.local: is missing or empty",
            "1:1: stream.name: is missing",
        ],
    );
    check_stream(
        "name = 'a'\nlocal = []",
        &["3:9: stream.local: is missing or empty"],
    );
    check_stream("name = 'a b'\nlocal = ['*:1']", &["2:8: stream.name: "]);
    check_stream(
        &format!("name = '{}'\nlocal = ['*:1']", "x".repeat(65)),
        &["2:8: stream.name: the name is 65 bytes long"],
    );
    check_stream(
        "name = 'a'\nlocal = ['*:9-3', '*:0', '*:70000', '300.1.1.1:1']",
        &[
            "3:10: stream.local: port range 9-3 runs backwards",
            "3:19: stream.local: `0` is not a port",
            "3:26: stream.local: `70000` is not a port",
            "3:37: stream.local: `300.1.1.1` is not an address",
        ],
    );
    check_option(
        "remote = ['10.0.0.0/33', '::/0']",
        &[
            "4:11: stream.remote: `10.0.0.0/33` is not an address or prefix",
            "4:26: stream.remote: `::/0` also holds the IPv4 addresses",
        ],
    );
    for wrong in ["'x'", "'/a/../b'", "'/sys/fs/cgroup/a'", "7"] {
        check_option(&format!("cgroup = {wrong}"), &["4:10: stream.cgroup: "]);
    }
    check_option("mark = -1", &["4:8: stream.mark: -1 is out of range"]);
    check_option("mark = 4294967296", &["4:8: stream.mark: "]);
    check_option(
        "pulse_ms = 150",
        &["4:12: stream.pulse_ms: 150 is not a choice (allowed: 0, 100, 200, 500)"],
    );
    check_option("bitrate_bps = 0", &["4:15: stream.bitrate_bps: "]);
    check_option("rtt_slow_us = 0", &["4:15: stream.rtt_slow_us: "]);
    check_option(
        "labels = { '1a' = 'x', stream = 'y', ok = [] }",
        &[
            "4:12: stream.labels.1a: \"1a\" is not a label name",
            "4:24: stream.labels.stream: the label name `stream` is taken",
            "4:43: stream.labels.ok: is of type array",
        ],
    );
    let labels: String = (0..17).map(|i| format!("l{i:02} = 'x', ")).collect();
    check_option(
        &format!("labels = {{ {labels} }}"),
        &["4:188: stream.labels.l16: is one label too many"],
    );
}

#[test]
fn duplicate_names_are_found() {
    let text = stream("a", "local = ['*:1']") + &stream("a", "local = ['*:2']");
    check(
        &text,
        &["5:8: stream.name: `a` is also the name of the stream at a.toml:2:8"],
    );
}

#[test]
fn hidden_rules_are_errors() {
    let pair = |first: &str, second: &str| stream("a", first) + &stream("b", second);
    let check_pair = |first: &str, second: &str, expected: &[&str]| {
        let text = pair(first, second);
        match parse(&text) {
            Ok(config) => {
                let shown: Vec<_> = config.warnings.iter().map(|w| w.message.clone()).collect();
                assert_eq!(shown.len(), expected.len(), "{text} {shown:?}");
                for (shown, expected) in shown.iter().zip(expected) {
                    assert!(shown.contains(expected), "{shown}");
                }
            }
            Err(errors) => panic!("{text}\n{errors}"),
        }
    };
    check(
        &pair("local = ['*:443']", "local = ['*:443']"),
        &[
            "6:10: stream.local: `*:443` of stream `b` is the same rule as `*:443` of stream `a` at a.toml:3:10",
        ],
    );
    check(
        &pair(
            "local = ['203.0.113.0/24:400-500']",
            "local = ['[::ffff:203.0.113.9]:443', '*:9']",
        ),
        &[
            "6:10: stream.local: `203.0.113.9:443` of stream `b` is never reached: all its flows belong to `203.0.113.0/24:400-500` of stream `a` at a.toml:3:10",
        ],
    );
    check(
        &pair(
            "local = ['*:443']",
            "local = ['*:443']\nmark = 7\nremote = ['10.0.0.0/8']\ncgroup = '/x'",
        ),
        &["6:10: stream.local: `*:443` of stream `b` is never reached"],
    );
    check(
        &pair(
            "local = ['*:443']\ncgroup = '/x'",
            "local = ['*:443']\ncgroup = '/x/y'",
        ),
        &["7:10: stream.local: "],
    );
    // The special rule first is how it is meant to be.
    check_pair("local = ['203.0.113.7:443']", "local = ['*:443']", &[]);
    check_pair("local = ['*:443']\nmark = 7", "local = ['*:443']", &[]);
    check_pair(
        "local = ['*:443']\nmark = 7",
        "local = ['*:443']\nmark = 8",
        &[],
    );
    check_pair(
        "local = ['*:443']\nremote = ['10.0.0.0/8']",
        "local = ['*:443']\nremote = ['11.0.0.0/8']",
        &[],
    );
    // Neither holds the other.
    check_pair(
        "local = ['*:1-10']",
        "local = ['*:5-15']",
        &["`*:5-15` of stream `b` shares flows with `*:1-10` of stream `a` at a.toml:3:10"],
    );
    check_pair(
        "local = ['*:443']\nmark = 7",
        "local = ['*:443']\nremote = ['10.0.0.0/8']",
        &["shares flows"],
    );
    check_pair(
        "local = ['*:1', '*:1-2']",
        "local = ['*:3']",
        &["`*:1` adds nothing to `*:1-2`"],
    );
}

#[test]
fn the_number_of_streams_is_bounded() {
    let streams = |count: usize| -> String {
        (0..count)
            .map(|i| {
                let rest = format!("local = ['10.0.0.{}:443']\nmark = {}", i / 8, i % 8);
                stream(&format!("s{i}"), &rest)
            })
            .collect()
    };
    assert_eq!(good(&streams(MAX_STREAMS)).streams.len(), MAX_STREAMS);
    check(
        &streams(MAX_STREAMS + 1),
        &["4097:1: stream: there are 1025 streams (allowed: at most 1024)"],
    );
}

#[test]
fn the_number_of_entries_is_bounded() {
    let list = |count: usize, at: usize| -> String {
        (0..count)
            .map(|i| format!("'10.{at}.{}.{}:443',", i / 256, i % 256))
            .collect()
    };
    check_stream(
        &format!("name = 'a'\nlocal = [{}]", list(1025, 0)),
        &["3:9: stream.local: has 1025 entries (allowed: at most 1024 entries)"],
    );
    let many: String = (0..17)
        .map(|at| stream(&format!("s{at}"), &format!("local = [{}]", list(1024, at))))
        .collect();
    check(
        &many,
        &["1:1: stream.local: there are 17408 entries in all `local` lists"],
    );
}

#[test]
fn rules_fit_into_the_kernel() {
    let nine: String = (0..9)
        .map(|i| stream(&format!("s{i}"), &format!("local = ['*:443']\nmark = {i}")))
        .collect();
    check(
        &nine,
        &[
            "33:1: stream.local: 9 conditions (a stream's prefixes count each) can apply to a flow \
           to port 443, from streams s0, s1, s2, s3, s4, s5, s6, s7, s8; the kernel side tries 8",
        ],
    );
}

#[test]
fn a_stream_that_several_hide_together_is_an_error() {
    let text = stream("low", "local = ['*:1-10']")
        + &stream("high", "local = ['*:11-20']")
        + &stream("middle", "local = ['*:5-15']");
    check(
        &text,
        &["7:1: stream.local: no flow reaches stream `middle`"],
    );
}

#[test]
fn the_hash_is_of_the_meaning() {
    let a = good("node = 'a' # one\n[window]\nlength_ms = 1_000\nwalk_interval_ms = 2000\n");
    let b = good("\nnode    = \"a\"\nwindow = { walk_interval_ms = 0x7d0, length_ms = 1000 }");
    let c = good("node = 'a'\n[window]\nlength_ms = 2000\nwalk_interval_ms = 2000\n");
    assert_eq!(a.sha256, b.sha256);
    assert_ne!(a.sha256, c.sha256);
    assert_eq!(a.sha256_hex().len(), 64);
}

#[test]
fn ad_hoc_is_one_stream() {
    let listen: Vec<LocalPattern> = ["*:443", "[::1]:8080"]
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
    let config = Config::ad_hoc(&listen, 1.0).unwrap();
    let [stream] = config.streams.as_slice() else {
        panic!("one stream")
    };
    assert_eq!(
        (stream.name.as_str(), stream.rate, stream.local.len()),
        ("adhoc", 1.0, 2)
    );
    assert_eq!(stream.local, listen);
    assert!(config.kafka.brokers.is_empty());
    assert!(
        Config::ad_hoc(&listen, 1.5)
            .unwrap_err()
            .message
            .contains("out of range")
    );
    assert!(
        Config::ad_hoc(&[], 1.0)
            .unwrap_err()
            .message
            .contains("empty")
    );
}

mod includes {
    use super::*;

    struct Files(tempfile::TempDir);

    impl Files {
        fn new(files: &[(&str, &str)]) -> Self {
            let directory = tempfile::tempdir().unwrap();
            for (name, text) in files {
                let path = directory.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(directory)
        }

        fn load(&self) -> Result<Config, ConfigErrors> {
            Config::load(&self.0.path().join("main.toml"))
        }

        #[track_caller]
        fn check(&self, expected: &[&str]) {
            let errors = self.load().expect_err("wrong").0;
            let base = format!("{}/", self.0.path().display());
            let shown: Vec<_> = errors
                .iter()
                .map(|e| e.to_string().replace(&base, ""))
                .collect();
            assert_eq!(shown.len(), expected.len(), "{shown:#?}");
            for (shown, expected) in shown.iter().zip(expected) {
                assert!(shown.starts_with(expected), "{shown}\nis not\n{expected}");
            }
        }
    }

    #[test]
    fn come_in_lexical_order_after_the_main_file() {
        let files = Files::new(&[
            (
                "main.toml",
                "include = ['conf.d/*.toml', 'conf.d/1*']\n[[stream]]\nname = 'm'\nlocal = ['*:1']",
            ),
            ("conf.d/20.toml", "[[stream]]\nname = 'z'\nlocal = ['*:2']"),
            ("conf.d/10.toml", "[[stream]]\nname = 'y'\nlocal = ['*:3']"),
            ("conf.d/readme", "not toml ["),
        ]);
        let config = files.load().unwrap();
        let names: Vec<_> = config.streams.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["m", "y", "z"]);
        assert_eq!(config.files.len(), 3);
    }

    #[test]
    fn take_the_rate_of_the_main_file() {
        let files = Files::new(&[
            ("main.toml", "include = ['a.toml']\n[sampling]\nrate = 0.5"),
            ("a.toml", "[[stream]]\nname = 'a'\nlocal = ['*:2']"),
        ]);
        assert_eq!(files.load().unwrap().streams[0].rate, 0.5);
    }

    #[test]
    fn hold_streams_only() {
        let files = Files::new(&[
            ("main.toml", "include = ['a.toml']"),
            ("a.toml", "node = 'x'\n[window]\n[stream2]\n"),
        ]);
        files.check(&[
            "a.toml:1:1: node: belongs in the main file",
            "a.toml:2:2: window: belongs in the main file",
            "a.toml:3:2: stream2: unknown option, did you mean `stream`?",
        ]);
    }

    #[test]
    fn share_one_space_of_names() {
        let files = Files::new(&[
            (
                "main.toml",
                "include = ['*.d/*']\n[[stream]]\nname = 'a'\nlocal = ['*:1']",
            ),
            ("x.d/a.toml", "[[stream]]\nname = 'a'\nlocal = ['*:2']"),
        ]);
        files.check(&["x.d/a.toml:2:8: stream.name: `a` is also the name of the stream at "]);
    }

    #[test]
    fn that_find_nothing_are_fine_and_that_cannot_be_read_are_not() {
        let files = Files::new(&[("main.toml", "include = ['conf.d/*.toml']")]);
        assert_eq!(files.load().unwrap().streams, vec![]);
        let files = Files::new(&[
            ("main.toml", "include = [\n'none.toml',\n'***',\n'*.d']"),
            ("x.d/a.toml", ""),
        ]);
        files.check(&[
            "main.toml:2:1: include: `none.toml` does not exist",
            "main.toml:3:1: include: `***` is not a pattern",
            "main.toml:4:1: include: x.d: cannot be read: Is a directory",
        ]);
        let files = Files::new(&[("main.toml", "include = ['a.*']"), ("a.toml", "")]);
        fs::write(files.0.path().join("a.toml"), b"node = '\xff'").unwrap();
        files.check(&["main.toml:1:12: include: a.toml: is not UTF-8 (byte 8)"]);
    }

    #[test]
    fn errors_of_all_files_are_reported() {
        let files = Files::new(&[
            ("main.toml", "include = ['*.d/*']\n[sampling]\nrate = 2"),
            ("x.d/a.toml", "[[stream]]\nname = 'a'\nlocal = ['*:0']"),
            ("x.d/b.toml", "[[stream]\n"),
        ]);
        files.check(&[
            "main.toml:3:8: sampling.rate",
            "x.d/a.toml:3:10: stream.local",
            "x.d/b.toml:1:10: ",
        ]);
    }

    #[test]
    fn the_main_file_must_be_there() {
        let error = Config::load(Path::new("/nonexistent/s.toml"))
            .expect_err("none")
            .to_string();
        assert!(
            error.starts_with("/nonexistent/s.toml: cannot be read: No such file"),
            "{error}"
        );
    }
}

proptest! {
    /// Whatever is in a file, reading it ends, and every error has a place in it.
    #[test]
    fn any_text_is_read_or_refused(text in r#"(\[?\[?(stream|window|kafka)\]?\]?|[a-z_]{1,9} ?= ?|['"\[\]{},\n.:*/0-9-]|é|nan){0,40}"#) {
        if let Err(errors) = parse(&text) {
            prop_assert!(!errors.0.is_empty());
            let lines = text.matches('\n').count() + 1;
            for error in errors.0 {
                prop_assert!((1..=lines).contains(&error.place.line), "{}", error);
            }
        }
    }
}
