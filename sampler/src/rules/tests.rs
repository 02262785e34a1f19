//! The kernel's tables against the plain definition.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ebpf_abi::rules::{MAX_CANDIDATES, MAX_LISTS, Target};
use proptest::prelude::*;

use super::*;
use crate::config::{Place, PortRange, StreamPlaces, pattern};

/// Cgroup paths that rules and flows draw from, and their ids; the last one is absent.
const CGROUPS: [(&str, Option<u64>); 5] = [
    ("/", Some(1)),
    ("/a", Some(2)),
    ("/a/b", Some(3)),
    ("/c", Some(4)),
    ("/gone", None),
];

fn cgroup_id(path: &str) -> Option<u64> {
    CGROUPS
        .iter()
        .find(|(known, _)| *known == path)
        .and_then(|(_, id)| *id)
}

fn stream(name: &str, local: &[&str], remote: &[&str]) -> StreamConfig {
    let place = Place::whole(std::path::Path::new("a.toml"));
    let remote = remote
        .iter()
        .map(|text| pattern::parse_client(text).unwrap())
        .collect();
    StreamConfig {
        name: name.to_owned(),
        local: local.iter().map(|text| text.parse().unwrap()).collect(),
        remote: pattern::client_prefixes(remote).unwrap(),
        cgroup: None,
        mark: None,
        rate: 0.1,
        pulse_ms: 0,
        bitrate_bps: None,
        rtt_slow_us: 200_000,
        labels: Default::default(),
        places: StreamPlaces {
            stream: place.clone(),
            name: place.clone(),
            local: vec![],
        },
    }
}

fn compile(streams: &[StreamConfig]) -> Result<KernelRules, CompileError> {
    RuleSet::new(streams).compile(|at| at as u32, cgroup_id)
}

/// The stream by name, found both ways.
#[track_caller]
fn find<'s>(streams: &'s [StreamConfig], flow: &NewFlow<'_>) -> Option<&'s str> {
    let plain = RuleSet::new(streams).classify(flow);
    let tables = compile(streams).expect("fits");
    let kernel = tables.lookup(&flow.tuple(), flow.mark, |id| in_cgroup(flow.cgroup, id));
    assert_eq!(kernel, plain.map(|at| at as u32), "{flow:?}");
    plain.map(|at| streams[at].name.as_str())
}

/// Whether the flow's cgroup or a parent of it has that id.
fn in_cgroup(cgroup: Option<&str>, id: u64) -> bool {
    CGROUPS.iter().any(|(path, known)| {
        *known == Some(id) && cgroup.is_some_and(|cgroup| cgroup_covers(path, cgroup))
    })
}

fn flow<'a>(local: &str, remote: &str) -> NewFlow<'a> {
    NewFlow {
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
        cgroup: None,
        mark: 0,
    }
}

#[test]
fn first_match_wins() {
    let mut marked = stream("marked", &["203.0.113.7:443"], &[]);
    marked.mark = Some(7);
    let mut grouped = stream("grouped", &["203.0.113.7:443"], &[]);
    grouped.cgroup = Some("/a".to_owned());
    let streams = [
        marked,
        grouped,
        stream("near", &["203.0.113.7:443"], &["10.0.0.0/8"]),
        stream("vip", &["203.0.113.7:443", "[2001:db8::7]:443"], &[]),
        stream("range", &["203.0.113.0/24:8000-8099"], &[]),
        stream("rest", &["*:443"], &[]),
    ];
    let check = |local: &str, remote: &str, expected: Option<&str>| {
        assert_eq!(
            find(&streams, &flow(local, remote)),
            expected,
            "{local} {remote}"
        );
    };
    check("203.0.113.7:443", "198.51.100.1:5000", Some("vip"));
    check(
        "[::ffff:203.0.113.7]:443",
        "[::ffff:198.51.100.1]:5000",
        Some("vip"),
    );
    check("203.0.113.7:443", "10.1.2.3:5000", Some("near"));
    check("[2001:db8::7]:443", "[2001:db8::1]:5000", Some("vip"));
    check("[2001:db8::8]:443", "[2001:db8::1]:5000", Some("rest"));
    check("203.0.113.8:443", "10.1.2.3:5000", Some("rest"));
    check("203.0.113.8:8099", "10.1.2.3:5000", Some("range"));
    check("203.0.113.8:8100", "10.1.2.3:5000", None);
    check("203.0.114.8:8000", "10.1.2.3:5000", None);
    let to = flow("203.0.113.7:443", "10.0.0.1:1");
    assert_eq!(find(&streams, &NewFlow { mark: 7, ..to }), Some("marked"));
    assert_eq!(find(&streams, &NewFlow { mark: 8, ..to }), Some("near"));
    assert_eq!(
        find(
            &streams,
            &NewFlow {
                cgroup: Some("/a/b"),
                ..to
            }
        ),
        Some("grouped")
    );
    assert_eq!(
        find(
            &streams,
            &NewFlow {
                cgroup: Some("/c"),
                ..to
            }
        ),
        Some("near")
    );
}

#[test]
fn mismatches_are_named() {
    let mut s = stream("s", &["203.0.113.7:443"], &["10.0.0.0/8"]);
    s.cgroup = Some("/a".to_owned());
    s.mark = Some(7);
    let check = |local: &str, remote: &str, cgroup, mark, expected| {
        let flow = NewFlow {
            cgroup,
            mark,
            ..flow(local, remote)
        };
        assert_eq!(mismatch(&s, &flow), expected, "{flow:?}");
    };
    check(
        "203.0.113.8:443",
        "10.0.0.1:1",
        Some("/a"),
        7,
        Some(Mismatch::Local),
    );
    check(
        "203.0.113.7:443",
        "11.0.0.1:1",
        Some("/a"),
        7,
        Some(Mismatch::Remote),
    );
    check(
        "203.0.113.7:443",
        "10.0.0.1:1",
        Some("/c"),
        7,
        Some(Mismatch::Cgroup),
    );
    check(
        "203.0.113.7:443",
        "10.0.0.1:1",
        None,
        7,
        Some(Mismatch::Cgroup),
    );
    check(
        "203.0.113.7:443",
        "10.0.0.1:1",
        Some("/a"),
        8,
        Some(Mismatch::Mark),
    );
    check("203.0.113.7:443", "10.0.0.1:1", Some("/a/b"), 7, None);
}

#[test]
fn lists_are_shared_and_hidden_rules_left_out() {
    let many: Vec<String> = (1..200).map(|i| format!("203.0.113.{i}:443")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let tables = compile(&[
        stream("vips", &many, &[]),
        stream("prefix", &["203.0.113.0/24:443", "203.0.113.0/28:443"], &[]),
        stream("rest", &["*:443"], &["10.1.0.0/16", "10.0.0.0/8"]),
    ])
    .unwrap();
    // No rule; the port. The addresses of `vips` need no list: nothing behind it counts.
    let lens: Vec<_> = tables.lists.iter().map(|list| list.len).collect();
    assert_eq!(lens, [0, 2]);
    let placed: Vec<_> = tables.exact.iter().map(|entry| entry.target).collect();
    let vips = placed.iter().filter(|target| target.as_stream() == Some(0));
    assert_eq!(vips.count(), 199);
    let ports = tables
        .ports
        .iter()
        .filter(|target| **target != Target::NONE);
    assert_eq!(ports.count(), 1);
}

#[test]
fn too_many_candidates_name_the_place() {
    let remotes: Vec<String> = (0..9).map(|i| format!("10.{i}.0.0/16")).collect();
    let remotes: Vec<&str> = remotes.iter().map(String::as_str).collect();
    let streams = [
        stream("a", &["203.0.113.7:443"], &remotes[..4]),
        stream("b", &["203.0.113.7:443"], &remotes[4..8]),
    ];
    assert!(compile(&streams).is_ok());
    let over = [
        streams[0].clone(),
        streams[1].clone(),
        stream("c", &["*:443"], &[]),
    ];
    let error = compile(&over).expect_err("nine");
    let CompileError::TooManyCandidates {
        local,
        stream: at,
        count,
        streams,
    } = &error
    else {
        panic!("{error}")
    };
    assert_eq!(
        (local.as_str(), *at, *count),
        ("203.0.113.7:443", 2, MAX_CANDIDATES + 1)
    );
    assert_eq!(streams, &["a", "b", "c"]);
    let on_port = compile(&[stream("a", &["*:80-81"], &remotes)])
        .expect_err("nine")
        .to_string();
    assert!(
        on_port.contains("a flow to port 80, from streams a"),
        "{on_port}"
    );
}

#[test]
fn too_many_lists_are_an_error() {
    let streams: Vec<_> = (0..MAX_LISTS)
        .map(|i| {
            stream(
                &format!("s{i}"),
                &[&format!("10.0.{}.{}:443", i / 256, i % 256)],
                &["10.0.0.0/8"],
            )
        })
        .collect();
    assert!(compile(&streams[..MAX_LISTS - 1]).is_ok());
    let error = compile(&streams).expect_err("one list too many");
    assert!(
        matches!(error, CompileError::TooManyLists { stream: 1023 }),
        "{error:?}"
    );
}

/// A full exact table displaces keys onto ports, ranges beyond their share go there at once, and
/// no answer changes.
#[test]
fn keys_without_a_slot_are_found_by_port() {
    let singles: Vec<String> = (0..8000)
        .map(|i| format!("10.0.{}.{}:{}", i / 200, i % 200, 1000 + i))
        .collect();
    let singles: Vec<&str> = singles.iter().map(String::as_str).collect();
    let ranges: Vec<String> = (0..48)
        .map(|i| format!("203.0.113.{i}:{}-{}", 1000 + i * 200, 1127 + i * 200))
        .collect();
    let ranges: Vec<&str> = ranges.iter().map(String::as_str).collect();
    let streams = [
        stream("singles", &singles, &[]),
        stream("ranges", &ranges, &[]),
        stream("rest", &["*:1000-2000"], &["10.0.0.0/8"]),
    ];
    let tables = compile(&streams).unwrap();
    let placed = tables
        .exact
        .iter()
        .filter(|entry| entry.target != Target::NONE)
        .count();
    assert!(
        placed < 8_000 + 32 * 128,
        "all {placed} keys found a slot: the test needs more"
    );
    let rules = RuleSet::new(&streams);
    let check = |local: SocketAddr| {
        let flow = NewFlow {
            local,
            ..flow("10.0.0.1:1", "10.0.0.1:1")
        };
        let plain = rules.classify(&flow).map(|at| at as u32);
        assert_eq!(
            tables.lookup(&flow.tuple(), 0, |_| false),
            plain,
            "{flow:?}"
        );
    };
    for single in singles.iter().step_by(7) {
        let local: SocketAddr = single.parse().unwrap();
        check(local);
        check(SocketAddr::new(local.ip(), local.port() + 1));
    }
    for at in (0..48u16).step_by(3) {
        for port in (990 + at * 200..1140 + at * 200).step_by(11) {
            check(format!("203.0.113.{at}:{port}").parse().unwrap());
            check(format!("203.0.113.{}:{port}", at + 1).parse().unwrap());
        }
    }
}

#[test]
fn every_port_up_to_the_last_is_covered() {
    let streams = [stream("a", &["*:1-65535"], &[])];
    assert_eq!(
        find(&streams, &flow("10.0.0.1:65535", "10.0.0.2:1")),
        Some("a")
    );
    assert_eq!(
        find(&streams, &flow("[2001:db8::1]:1", "[2001:db8::2]:1")),
        Some("a")
    );
}

/// Few addresses and ports, so that rules meet.
fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0..4u8, 0..4u8).prop_map(|(c, d)| IpAddr::V4(Ipv4Addr::new(10, 0, c, d))),
        (0..4u8, 0..4u8).prop_map(|(c, d)| IpAddr::V6(Ipv4Addr::new(10, 0, c, d).to_ipv6_mapped())),
        (0..4u16, 0..4u16)
            .prop_map(|(g, h)| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, g, h))),
    ]
}

fn net() -> impl Strategy<Value = Option<ipnet::IpNet>> {
    (address(), prop::option::weighted(0.85, 0..=4u8)).prop_map(|(address, bits)| {
        let address = address.to_canonical();
        let widths: [u8; 5] = match address {
            IpAddr::V4(_) => [32, 31, 24, 8, 0],
            IpAddr::V6(_) => [128, 127, 112, 32, 3],
        };
        bits.map(|at| {
            ipnet::IpNet::new(address, widths[usize::from(at)])
                .expect("a width")
                .trunc()
        })
    })
}

fn ports() -> impl Strategy<Value = PortRange> {
    prop_oneof![
        4 => (440..444u16).prop_map(|port| PortRange { first: port, last: port }),
        2 => (440..444u16, 0..4u16)
            .prop_map(|(first, more)| PortRange { first, last: first + more }),
        1 => (1..442u16).prop_map(|first| PortRange { first, last: 65_535 }),
    ]
}

fn random_stream() -> impl Strategy<Value = StreamConfig> {
    let local = prop::collection::vec((net(), ports()), 1..4);
    let remote = prop::collection::vec(net(), 0..3);
    let cgroup = prop::option::weighted(0.3, 0..CGROUPS.len());
    let mark = prop::option::weighted(0.3, 0..3u32);
    (local, remote, cgroup, mark).prop_map(|(local, remote, cgroup, mark)| StreamConfig {
        local: local
            .into_iter()
            .map(|(net, ports)| crate::config::LocalPattern { net, ports })
            .collect(),
        remote: remote.into_iter().flatten().collect(),
        cgroup: cgroup.map(|at| CGROUPS[at].0.to_owned()),
        mark,
        ..stream("s", &[], &[])
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    /// The kernel's tables say what the plain definition says. Rule sets that do not fit are
    /// cut until they do.
    #[test]
    fn kernel_tables_agree_with_the_definition(
        mut streams in prop::collection::vec(random_stream(), 0..9),
        flows in prop::collection::vec(
            (address(), 439..448u16, address(), 0..CGROUPS.len(), 0..3u32), 200),
    ) {
        let tables = loop {
            match compile(&streams) {
                Ok(tables) => break tables,
                Err(_) => drop(streams.pop()),
            }
        };
        // A cgroup that is absent has no flows, so its rules match nothing in either form.
        let rules = RuleSet::new(&streams);
        for (local, port, remote, cgroup, mark) in flows {
            let cgroup = CGROUPS[cgroup].0;
            let flow = NewFlow {
                local: SocketAddr::new(local, port),
                remote: SocketAddr::new(remote, 50_000),
                cgroup: (cgroup != "/gone").then_some(cgroup),
                mark,
            };
            let kernel = tables.lookup(&flow.tuple(), mark, |id| in_cgroup(flow.cgroup, id));
            prop_assert_eq!(kernel, rules.classify(&flow).map(|at| at as u32), "{:?}", flow);
        }
    }
}
