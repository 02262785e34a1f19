//! Whole files through the reader: what is accepted, and what every refusal says.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::alert::{Active, Rule, RuleMetric};

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    read(Source::new("a.toml", text))
}

fn good(text: &str) -> Config {
    parse(text).unwrap_or_else(|errors| panic!("{text}\n{errors}"))
}

/// Every error of `text` is expected: `line:column: option: start of the message`.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let errors = parse(text).expect_err(text).0;
    begins(&errors, expected);
}

/// The same for its warnings.
#[track_caller]
fn check_warnings(text: &str, expected: &[&str]) {
    begins(&good(text).warnings, expected);
}

#[track_caller]
fn begins<T: ToString>(found: &[T], expected: &[&str]) {
    let found: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            found.starts_with(&format!("a.toml:{expected}")),
            "{found}\nis not\n{expected}"
        );
    }
}

/// A rule that needs nothing more; a line more is line 6.
const RULE: &str =
    "[[alert]]\nname = 'a'\nstreams = ['*']\nmetric = 'retrans_ratio'\nabove = 0.02\n";
/// A rule without a value; a line more is line 5.
const NO_DATA: &str = "[[alert]]\nname = 'a'\nstreams = ['*']\nmetric = 'no_data'\n";

#[track_caller]
fn check_option(line: &str, expected: &[&str]) {
    check(&format!("{RULE}{line}"), expected);
}

/// The rule that says only what `line` adds to [`RULE`].
#[track_caller]
fn rule(line: &str) -> Rule {
    good(&format!("{RULE}{line}")).alerts.remove(0).rule
}

fn defaults_like(config: &Config) -> Config {
    Config {
        file: "a.toml".into(),
        sha256: config.sha256,
        ..Config::default()
    }
}

#[test]
fn an_empty_file_is_the_defaults() {
    let config = good("");
    assert_eq!(config, defaults_like(&config));
}

#[test]
fn defaults_are_those_of_the_contract() {
    let c = Config::default();
    assert_eq!(
        (c.site.as_str(), c.roles.as_slice()),
        ("default", &[Role::Alert, Role::Store][..])
    );
    assert_eq!(
        (c.kafka.brokers.len(), c.kafka.group_prefix.as_str()),
        (0, "flowvitals")
    );
    assert_eq!(c.group(Role::Alert), "flowvitals-alert");
    assert_eq!(c.group(Role::Store), "flowvitals-store");
    assert_eq!(
        (c.merge.lateness_ms, c.merge.node_forget_after_s),
        (2_000, 900)
    );
    assert_eq!(c.store.kind, StoreKind::Embedded);
    assert_eq!(c.store.directory, Path::new("/var/lib/flowvitals/store"));
    assert_eq!(c.store.contact_points, ["127.0.0.1:9042"]);
    assert_eq!(
        (c.store.keyspace.as_str(), c.store.local_datacenter.as_str()),
        ("flowvitals", "dc1")
    );
    assert_eq!(c.http.listen.to_string(), "127.0.0.1:9741");
    assert_eq!(c.alertmanager.urls.len(), 0);
}

#[test]
fn defaults_of_a_rule() {
    let r = rule("");
    assert_eq!(
        (r.over_s, r.hold_ms, r.clear_for_ms, r.min_flows),
        (10, 2_000, 30_000, 30)
    );
    assert_eq!(r.above, 0.02);
    assert!((r.clear_below - 0.014).abs() < 1e-12, "{}", r.clear_below);
    assert_eq!(
        (r.fast, r.active, r.severity.as_str()),
        (true, None, "page")
    );
    assert_eq!((r.labels.len(), r.annotations.len()), (0, 0));
    assert!(
        !good(&RULE.replace("retrans_ratio", "stall_ratio")).alerts[0]
            .rule
            .fast
    );
    let no_data = &good(NO_DATA).alerts[0].rule;
    assert_eq!((no_data.metric, no_data.fast), (RuleMetric::NoData, false));
}

const EXAMPLE: &str = include_str!("../../../deploy/config/aggregator.toml");

#[test]
fn the_example_is_the_defaults() {
    let config = good(EXAMPLE);
    assert_eq!(config, defaults_like(&config));
}

fn is_option(line: &str) -> bool {
    let name = line.split(" = ").next().unwrap_or_default();
    line.contains(" = ")
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b"_\".".contains(&b))
}

/// The comments of the example say the defaults: with the `#` taken away they change nothing but what has no default
/// value to show.
#[test]
fn the_commented_values_of_the_example_are_the_defaults() {
    let (whole, rules) = EXAMPLE.split_once("# [[alert]]").expect("an example rule");
    let shown: String = whole
        .lines()
        // The other way to log in at the Alertmanagers; both at once are refused.
        .filter(|line| !line.starts_with("# token_file"))
        .map(|line| match line.strip_prefix("# ") {
            Some(option) if is_option(option) => format!("{option}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let config = good(&shown);
    let default = Config::default();
    let expected = Config {
        kafka: Kafka {
            properties: config.kafka.properties.clone(),
            ..default.kafka
        },
        store: Store {
            password_file: Some("/etc/flowvitals/cassandra.password".into()),
            tls_ca: Some("/etc/flowvitals/cassandra-ca.pem".into()),
            ..default.store
        },
        http: Http {
            tls: Some(Tls {
                cert: "/etc/flowvitals/http-cert.pem".into(),
                key: "/etc/flowvitals/http-key.pem".into(),
                client_ca: Some("/etc/flowvitals/clients-ca.pem".into()),
            }),
            ..default.http
        },
        alertmanager: Alertmanager {
            username: Some("flowvitals".to_owned()),
            password_file: Some("/etc/flowvitals/alertmanager.password".into()),
            tls_ca: Some("/etc/flowvitals/alertmanager-ca.pem".into()),
            ..default.alertmanager
        },
        places: config.places.clone(),
        warnings: config.warnings.clone(), // what an embedded store has no use for
        ..defaults_like(&config)
    };
    assert_eq!(config, expected);
    assert_eq!(config.kafka.properties.len(), 2);
    assert_eq!(config.warnings.len(), 2);

    let lines: String = rules
        .lines()
        .map(|line| line.strip_prefix("# ").unwrap_or(line))
        .filter(|line| is_option(line))
        .map(|line| format!("{line}\n"))
        .collect();
    let config = good(&format!("[[alert]]\n{lines}"));
    let shown = &config.alerts[0].rule;
    let bare = Rule {
        name: "retransmissions".to_owned(),
        streams: shown.streams.clone(),
        active: shown.active,
        labels: shown.labels.clone(),
        annotations: shown.annotations.clone(),
        clear_below: shown.clear_below,
        ..rule("")
    };
    assert_eq!(*shown, bare);
    assert_eq!((shown.above, shown.clear_below), (0.02, 0.014));
    assert!(shown.active.is_some());
    assert_eq!((shown.labels.len(), shown.annotations.len()), (1, 1));
    assert!(shown.watches("sport-1") && !shown.watches("news"));
}

/// Every option that the reader knows is in the example.
#[test]
fn the_example_names_every_option() {
    let tables = [
        ("", vec!["site", "roles"]),
        ("[kafka]\n", vec!["brokers", "group_prefix", "properties"]),
        (
            "[merge]\n",
            vec!["lateness_ms", "node_forget_after_s", "max_windows"],
        ),
        (
            "[store]\n",
            vec![
                "contact_points",
                "kind",
                "directory",
                "keyspace",
                "local_datacenter",
                "username",
                "password_file",
                "tls_ca",
            ],
        ),
        (
            "[http]\n",
            vec!["listen", "token_file", "tls_cert", "tls_key", "client_ca"],
        ),
        (
            "[alertmanager]\n",
            vec!["urls", "username", "password_file", "token_file", "tls_ca"],
        ),
        (
            RULE,
            vec![
                "name",
                "streams",
                "metric",
                "over_s",
                "above",
                "clear_below",
                "hold_s",
                "clear_for_s",
                "min_flows",
                "fast",
                "active",
                "severity",
                "labels",
                "annotations",
            ],
        ),
    ];
    for (table, options) in tables {
        // The reader itself says what it knows.
        let errors = parse(&format!("{table}zzzzzzzzzz = 1"))
            .expect_err("unknown")
            .0;
        let mut known: Vec<_> = errors[0].allowed.split(", ").collect();
        known.retain(|known| {
            !["kafka", "merge", "store", "http", "alertmanager", "alert"].contains(known)
        });
        let (mut known, mut options) = (known, options);
        known.sort_unstable();
        options.sort_unstable();
        assert_eq!(known, options, "{table}");
        for option in options.iter().filter(|option| **option != "properties") {
            assert!(
                EXAMPLE.contains(&format!("# {option} = ")),
                "{option} is not in the example"
            );
        }
    }
}

/// The file that the contract shows is accepted but for what is not built, and means what it says.
#[test]
fn the_contract_is_accepted() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/CONTRACT.md");
    let Ok(contract) = fs::read_to_string(&path) else {
        return eprintln!("skipped: the shared contract is not beside the workspace");
    };
    let (_, rest) = contract
        .split_once("## aggregator.toml")
        .expect("a section on aggregator.toml");
    let (_, rest) = rest.split_once("```toml\n").expect("a file");
    let (text, _) = rest.split_once("```").expect("its end");
    let config = good(text);
    let default = Config::default();
    assert_eq!(config.site, "ams1");
    assert_eq!(
        (&config.merge, &config.store),
        (&default.merge, &default.store)
    );
    assert_eq!(
        (&config.http, &config.roles),
        (&default.http, &default.roles)
    );
    assert_eq!(config.kafka.brokers, ["127.0.0.1:19092"]);
    assert_eq!(config.alertmanager.urls, ["http://127.0.0.1:9093"]);
    assert_eq!(config.alerts[0].rule.metric, RuleMetric::RetransRatio);
    assert_eq!(config.alerts[0].rule.annotations["runbook_url"], "");
}

#[test]
fn a_full_file() {
    let config = good(
        r#"
        site = "ams1"
        roles = ["alert"]
        [kafka]
        brokers = ["127.0.0.1:19092", "[::1]:9092", "kafka-1.example:9092"]
        group_prefix = "trial"
        [kafka.properties]
        "session.timeout.ms" = 6000
        [merge]
        lateness_ms = 500
        node_forget_after_s = 60
        [http]
        listen = "[::1]:9999"
        [alertmanager]
        urls = ["http://127.0.0.1:9093/", "http://am.example/prefix", "http://[2001:db8::7]:9093"]
        [[alert]]
        name = "retransmissions"
        streams = ["sport-*", "news-[12]"]
        metric = "retrans_segs"
        over_s = 300
        above = 500
        clear_below = 500
        hold_s = 0
        clear_for_s = 1
        min_flows = 100
        fast = false
        active = "2026-11-22T19:45:00Z/PT3H"
        severity = "ticket"
        labels = { team = "live", tier = 1 }
        annotations = { runbook_url = "https://wiki.example/a?b=c", stream = "own words" }
        [[alert]]
        name = "dark"
        streams = ["*"]
        metric = "no_data"
        over_s = 20
        "#,
    );
    assert_eq!(config.warnings, vec![]);
    assert_eq!(config.ready_to_run(), Ok(()));
    assert_eq!(config.group(Role::Alert), "trial-alert");
    assert_eq!(config.kafka.properties["session.timeout.ms"], "6000");
    assert_eq!(
        (config.merge.lateness_ms, config.merge.node_forget_after_s),
        (500, 60)
    );
    assert_eq!(config.http.listen.to_string(), "[::1]:9999");
    assert_eq!(
        config.alertmanager.urls,
        [
            "http://127.0.0.1:9093",
            "http://am.example/prefix",
            "http://[2001:db8::7]:9093"
        ]
    );
    let [first, dark] = config.alerts.as_slice() else {
        panic!("two rules")
    };
    let (first, dark) = (&first.rule, &dark.rule);
    for (stream, taken) in [
        ("sport-1", true),
        ("sport-", true),
        ("news-2", true),
        ("news-3", false),
        ("Sport-1", false),
        ("a-sport-1", false),
    ] {
        assert_eq!(first.watches(stream), taken, "{stream}");
    }
    assert_eq!(
        (first.metric, first.over_s, first.hold_ms),
        (RuleMetric::RetransSegs, 300, 0)
    );
    assert_eq!((first.above, first.clear_below), (500.0, 500.0));
    assert_eq!(
        (first.clear_for_ms, first.min_flows, first.fast),
        (1_000, 100, false)
    );
    assert_eq!(
        first.active,
        Some(Active {
            begin_ms: 1_795_376_700_000,
            end_ms: 1_795_387_500_000
        })
    );
    assert_eq!(
        (first.severity.as_str(), first.labels["tier"].as_str()),
        ("ticket", "1")
    );
    assert_eq!(first.annotations["stream"], "own words");
    assert_eq!((dark.metric, dark.over_s), (RuleMetric::NoData, 20));
}

#[test]
fn the_hash_is_of_what_is_said() {
    let hash = |text| good(text).sha256_hex();
    let first = hash("site = 'a' # here\n[merge]\nlateness_ms = 2_000");
    assert_eq!(
        first,
        hash("merge = { lateness_ms = 2000 }\nsite = \"a\"\n")
    );
    assert_ne!(first, hash("site = 'b'\n[merge]\nlateness_ms = 2000"));
    assert_eq!(first.len(), 64);
}

#[test]
fn brokers_are_needed_to_run() {
    for (text, place) in [
        ("", "a.toml: kafka.brokers: is missing or empty"),
        ("[kafka]", "a.toml: kafka.brokers: is missing or empty"),
        (
            "[kafka]\nbrokers = []",
            "a.toml:2:11: kafka.brokers: is missing or empty",
        ),
    ] {
        let error = good(text).ready_to_run().expect_err(text).to_string();
        assert!(error.starts_with(place), "{error}");
    }
    assert_eq!(good("[kafka]\nbrokers = ['a:1']").ready_to_run(), Ok(()));
}

#[test]
fn unknown_options_suggest_the_nearest() {
    check(
        "sit = 'x'",
        &["1:1: sit: unknown option, did you mean `site`?"],
    );
    check(
        "zebra = 1",
        &["1:1: zebra: unknown option (allowed: site, roles, kafka, "],
    );
    check(
        "[[alerts]]",
        &["1:3: alerts: unknown option, did you mean `alert`?"],
    );
    check(
        "[kafka]\ntopic = 'x'",
        &["2:1: kafka.topic: unknown option"],
    );
    check(
        "[merge]\nlatenes_ms = 1",
        &["2:1: merge.latenes_ms: unknown option, did you mean `lateness_ms`?"],
    );
    check(
        "[store]\nkeyspaces = 1",
        &["2:1: store.keyspaces: unknown option, did you mean `keyspace`?"],
    );
    check(
        "[http]\nlisten_on = 1",
        &["2:1: http.listen_on: unknown option"],
    );
    check(
        "[alertmanager]\nurl = 1",
        &["2:1: alertmanager.url: unknown option, did you mean `urls`?"],
    );
    check_option(
        "over = 1",
        &["6:1: alert.over: unknown option, did you mean `over_s`?"],
    );
}

#[test]
fn what_is_not_built_is_refused() {
    check(
        "[forward]\nbrokers = []",
        &["1:2: forward: is not built yet; remove it"],
    );
}

#[test]
fn everything_that_is_wrong_is_reported() {
    check(
        "site = 7\nroles = []\n[kafka]\nbrokers = ['x']\n[[alert]]\nmetric = 'loss'\nover_s = 301\n",
        &[
            "1:8: site: is of type integer (allowed: a text in quotes)",
            "2:9: roles: is empty: there is nothing to do (allowed: \"alert\", \"store\")",
            "4:12: kafka.brokers: `x` is not a broker's address",
            "5:1: alert.name: is missing (allowed: name = … in every [[alert]])",
            "5:1: alert.streams: is missing or empty: the rule watches nothing",
            "5:1: alert.above: is missing",
            "6:10: alert.metric: `loss` is not a choice (allowed: \"retrans_segs\", \"retrans_ratio\", ",
            "7:10: alert.over_s: 301 is out of range (allowed: a whole number from 1 to 300)",
        ],
    );
}

#[test]
fn syntax_errors_have_their_place() {
    check("site = \n", &["1:8: "]);
    check("a = 1\nsite = 'a'\nsite = 'b'", &["3:1: "]);
}

#[test]
fn wrong_types() {
    check(
        "kafka = 3",
        &["1:9: kafka: is of type integer (allowed: a table: [kafka])"],
    );
    check("merge = []", &["1:9: merge: is of type array"]);
    check(
        "[[store]]",
        &["1:1: store: is of type array (allowed: a table: [store])"],
    );
    check("http = 'x'", &["1:8: http: is of type string"]);
    check(
        "alertmanager = 1",
        &["1:16: alertmanager: is of type integer"],
    );
    check(
        "alert = 3",
        &["1:9: alert: is of type integer (allowed: tables, each under [[alert]])"],
    );
    check(
        "[alert]\nname = 'a'",
        &["1:1: alert: is of type table (allowed: tables"],
    );
    check("alert = [1]", &["1:10: alert: is of type integer"]);
    check(
        "roles = 'alert'",
        &["1:9: roles: is of type string (allowed: a list)"],
    );
    check("roles = [1]", &["1:10: roles: is of type integer"]);
}

#[test]
fn sections() {
    check(
        "site = 'a|b'",
        &["1:8: site: \"a|b\" has the character '|'"],
    );
    check(
        "roles = ['alert', 'alert']",
        &["1:19: roles: `alert` is listed twice"],
    );
    check(
        "roles = ['page']",
        &["1:10: roles: `page` is not a choice (allowed: \"alert\", \"store\")"],
    );
    check(
        "[kafka]\nbrokers = ['a', 'ok:1', ':1']\ngroup_prefix = ''",
        &[
            "2:12: kafka.brokers: `a` is not a broker's address",
            "2:25: kafka.brokers: `:1`",
            "3:16: kafka.group_prefix: the name is empty",
        ],
    );
    check(
        "[kafka.properties]\n'bootstrap.servers' = 'x:1'\n'a' = []",
        &[
            "2:1: kafka.properties.bootstrap.servers: the brokers have their own option",
            "3:7: kafka.properties.a: is of type array",
        ],
    );
    check(
        "[merge]\nlateness_ms = 99\nnode_forget_after_s = 29",
        &[
            "2:15: merge.lateness_ms: 99 is out of range (allowed: a whole number from 100 to 60000)",
            "3:23: merge.node_forget_after_s: 29 is out of range (allowed: a whole number from 30 to 86400)",
        ],
    );
    check(
        "[merge]\nlateness_ms = 60001",
        &["2:15: merge.lateness_ms: "],
    );
    check(
        "[merge]\nlateness_ms = 1.5",
        &["2:15: merge.lateness_ms: is of type float"],
    );
    check(
        "[merge]\nnode_forget_after_s = 86401",
        &["2:23: merge.node_forget_after_s: "],
    );
    check(
        "[store]\nkind = 'redis'\ndirectory = 'x'\ncontact_points = ['a']\nkeyspace = 'A'\nlocal_datacenter = ''\n\
         username = 1\npassword_file = 'p'\ntls_ca = 'c'",
        &[
            "2:8: store.kind: `redis` is not a choice (allowed: \"embedded\", \"cassandra\", \"none\")",
            "3:13: store.directory: `x` is not absolute",
            "4:19: store.contact_points: `a` is not a node's address",
            "5:12: store.keyspace: `A` is not a keyspace",
            "6:20: store.local_datacenter: the name is empty",
            "7:12: store.username: is of type integer",
            "8:17: store.password_file: `p` is not absolute",
            "9:10: store.tls_ca: `c` is not absolute",
        ],
    );
}

#[test]
fn what_a_store_has_no_use_for() {
    check_warnings(
        "[store]\nkind = 'none'\ndirectory = '/a'\nkeyspace = 'b'",
        &[
            "3:13: store.directory: has no effect: nothing is stored",
            "4:12: store.keyspace: has no effect: nothing is stored",
        ],
    );
    check_warnings("[store]\nkind = 'none'", &[]);
    // The contract's file has Cassandra's defaults beside an embedded store.
    check_warnings(
        "[store]\ndirectory = '/a'\nkeyspace = 'flowvitals'\nusername = 'b'",
        &["4:12: store.username: has no effect: the store is embedded"],
    );
}

#[test]
fn without_a_store_there_is_nothing_to_store_in() {
    let brokers = "kafka.brokers = ['a:1']\nstore.kind = 'none'\n";
    let both = good(brokers);
    assert_eq!(
        (both.running(), both.ready_to_run()),
        (vec![Role::Alert], Ok(()))
    );
    let store_alone = good(&format!("{brokers}roles = ['store']"));
    let error = store_alone.ready_to_run().expect_err("nothing to do");
    assert!(
        error
            .to_string()
            .starts_with("a.toml:3:9: roles: there is nothing to do: store.kind"),
        "{error}"
    );
}

#[test]
fn alertmanager_urls() {
    for wrong in [
        "",
        "127.0.0.1:9093",
        "http://",
        "http:///a",
        "http://a:0",
        "http://a:b",
        "http://a b",
        "http://user:word@a:9093",
        "http://a?x=1",
        "http://a/b#c",
        "http://2001:db8::7",
        "ftp://a",
        "https://",
        "httpss://a",
    ] {
        check(
            &format!("[alertmanager]\nurls = ['{wrong}']"),
            &["2:9: alertmanager.urls: "],
        );
    }
    check(
        "[alertmanager]\nurls = ['http://a:1', 'http://a:1/']",
        &["2:23: alertmanager.urls: `http://a:1` is listed twice"],
    );
}

#[test]
fn one_way_to_log_in_to_alertmanagers() {
    let section = |rest: &str| format!("[alertmanager]\nurls = ['https://a:9093']\n{rest}");
    for (rest, wrong) in [
        ("username = 'u'", "3:12: alertmanager.username: "),
        ("password_file = '/p'", "3:17: alertmanager.password_file: "),
        (
            "username = 'u'\npassword_file = '/p'\ntoken_file = '/t'",
            "5:14: alertmanager.token_file: ",
        ),
        (
            "username = 'u:v'\npassword_file = '/p'",
            "3:12: alertmanager.username: ",
        ),
        ("token_file = 't'", "3:14: alertmanager.token_file: "),
    ] {
        check(&section(rest), &[wrong]);
    }
    let good = parse(&section("token_file = '/t'\ntls_ca = '/c'")).expect("valid");
    assert_eq!(good.warnings, []);
    let open = "[alertmanager]\nurls = ['http://a']\ntls_ca = '/c'\ntoken_file = '/t'";
    let warnings = parse(open).expect("valid").warnings;
    let options: Vec<_> = warnings.iter().map(|found| found.option.as_str()).collect();
    assert_eq!(options, ["alertmanager.tls_ca", "alertmanager.token_file"]);
}

#[test]
fn rule_names() {
    for wrong in [
        "''",
        "'a b'",
        "'a|b'",
        "7",
        "'FlowvitalsWatchdog'",
        "'FlowvitalsTest'",
    ] {
        check(&RULE.replace("'a'", wrong), &["2:8: alert.name: "]);
    }
    check(
        &RULE.replace("'a'", &format!("'{}'", "x".repeat(65))),
        &["2:8: alert.name: the name is 65 bytes long"],
    );
    check(
        &format!("{RULE}{RULE}"),
        &["7:8: alert.name: `a` is also the name of the rule at a.toml:2:8"],
    );
}

#[test]
fn rules_have_a_bound() {
    let rules: String = (0..=MAX_ALERTS)
        .map(|i| NO_DATA.replace("'a'", &format!("'a{i}'")))
        .collect();
    check(
        &rules,
        &["4097:1: alert: there are 1025 rules (allowed: at most 1024)"],
    );
}

#[test]
fn globs() {
    let streams = |list: &str| RULE.replace("['*']", list);
    check(
        &streams("[]"),
        &["3:11: alert.streams: is missing or empty: the rule watches nothing"],
    );
    check(
        &streams("'*'"),
        &["3:11: alert.streams: is of type string (allowed: a list)"],
    );
    check(
        &streams("['', 'a b', '[a', 'a**', 'ok', 7]"),
        &[
            "3:12: alert.streams: has 0 bytes",
            "3:16: alert.streams: `a b` has the character ' ', which no stream has",
            "3:23: alert.streams: `[a` is not a glob: invalid range pattern",
            "3:29: alert.streams: `a**` is not a glob: ",
            "3:42: alert.streams: is of type integer",
        ],
    );
    check(
        &streams(&format!("['{}']", "x".repeat(129))),
        &["3:12: alert.streams: has 129 bytes"],
    );
}

#[test]
fn thresholds() {
    for metric in [
        "retrans_ratio",
        "stall_ratio",
        "rtt_slow_ratio",
        "flows_silent_ratio",
    ] {
        for wrong in ["0", "0.0", "-0.1", "1", "1.0", "2", "nan", "inf", "'x'"] {
            check(
                &RULE.replace("retrans_ratio", metric).replace("0.02", wrong),
                &["5:9: alert.above: "],
            );
        }
        good(
            &RULE
                .replace("retrans_ratio", metric)
                .replace("0.02", "0.999"),
        );
    }
    check(
        &RULE.replace("0.02", "2"),
        &[
            "5:9: alert.above: 2 is out of range (allowed: a number above 0 and below 1: a share, 0.02 is 2 %)",
        ],
    );
    let segments = RULE.replace("retrans_ratio", "retrans_segs");
    good(&segments.replace("0.02", "2000"));
    check(
        &segments.replace("0.02", "0"),
        &["5:9: alert.above: 0 is out of range"],
    );
    check(&segments.replace("0.02", "1e13"), &["5:9: alert.above: "]);
    check_option(
        "clear_below = 0",
        &["6:15: alert.clear_below: 0 is out of range"],
    );
    check_option(
        "clear_below = 0.03",
        &[
            "6:15: alert.clear_below: 0.03 is more than above = 0.02: the rule would clear while it fires",
        ],
    );
    assert_eq!(rule("clear_below = 0.02").clear_below, 0.02);
}

#[test]
fn no_data_has_no_value() {
    check(
        &format!("{NO_DATA}above = 1\nclear_below = 1\nmin_flows = 30\nfast = true"),
        &[
            "5:9: alert.above: has no meaning for no_data",
            "6:15: alert.clear_below: has no meaning for no_data",
            "7:13: alert.min_flows: has no meaning for no_data",
            "8:8: alert.fast: pulses do not carry this metric",
        ],
    );
    good(&format!(
        "{NO_DATA}fast = false\nhold_s = 0\nclear_for_s = 5"
    ));
}

#[test]
fn times_of_a_rule() {
    for wrong in ["0", "301", "-1", "1.5", "'10'"] {
        check_option(&format!("over_s = {wrong}"), &["6:10: alert.over_s: "]);
    }
    for wrong in ["-1", "3601", "0.5"] {
        check_option(&format!("hold_s = {wrong}"), &["6:10: alert.hold_s: "]);
    }
    for wrong in ["0", "3601"] {
        check_option(
            &format!("clear_for_s = {wrong}"),
            &["6:15: alert.clear_for_s: "],
        );
    }
    check_option(
        "active = '2026-11-22T19:45:00Z'",
        &["6:10: alert.active: `2026-11-22T19:45:00Z` has no slash between beginning and length"],
    );
    check_option(
        "active = 'x/PT3H'",
        &["6:10: alert.active: `x` is not a time of RFC 3339"],
    );
    check_option(
        "active = '2026-11-22T19:45:00Z/P1M'",
        &["6:10: alert.active: `P1M` is not a length of ISO 8601 (allowed: a time with its zone"],
    );
    check_option(
        "active = 2026-11-22T19:45:00Z",
        &["6:10: alert.active: is of type datetime"],
    );
}

#[test]
fn the_rest_of_a_rule() {
    for wrong in ["0", "1000001", "-1"] {
        check_option(
            &format!("min_flows = {wrong}"),
            &["6:13: alert.min_flows: "],
        );
    }
    check_warnings(
        &format!("{RULE}min_flows = 29"),
        &["6:13: alert.min_flows: intervals of fewer than 30 sampled flows"],
    );
    check_warnings(&format!("{RULE}min_flows = 30"), &[]);
    check_option(
        "fast = 1",
        &["6:8: alert.fast: is of type integer (allowed: true or false)"],
    );
    check(
        &format!(
            "{}fast = true",
            RULE.replace("retrans_ratio", "stall_ratio")
        ),
        &["6:8: alert.fast: pulses do not carry this metric (allowed: false, or one of"],
    );
    check_option("severity = 'very bad'", &["6:12: alert.severity: "]);
    check_option(
        "labels = { stream = 'x', severity = 'y', ok = [] }",
        &[
            "6:12: alert.labels.stream: the label name `stream` is taken",
            "6:26: alert.labels.severity: the label name `severity` is taken",
            "6:47: alert.labels.ok: is of type array",
        ],
    );
    let labels: String = (0..17).map(|i| format!("l{i:02} = 'x', ")).collect();
    check_option(
        &format!("labels = {{ {labels} }}"),
        &["6:188: alert.labels.l16: is one label too many (allowed: at most 16 a rule)"],
    );
    check_option(
        "annotations = { run-book = 'x', ok = \"a\\u0007\" }",
        &[
            "6:17: alert.annotations.run-book: \"run-book\" is not an annotation name",
            "6:38: alert.annotations.ok: is not an annotation value",
        ],
    );
    check_option(
        "labels = 'x'",
        &["6:10: alert.labels: is of type string (allowed: a table: [alert.labels])"],
    );
}

#[test]
fn the_file_must_be_there() {
    let error = Config::load(Path::new("/nonexistent/a.toml"))
        .expect_err("none")
        .to_string();
    assert!(
        error.starts_with("/nonexistent/a.toml: cannot be read: No such file"),
        "{error}"
    );
}

proptest! {
    /// Whatever is in a file, reading it ends, and every error has a place in it.
    #[test]
    fn any_text_is_read_or_refused(
        text in r#"(\[?\[?(alert|kafka|store|http)\]?\]?|(metric|streams|above|active|urls) = |[a-z_]{1,9} ?= ?|['"\[\]{},\n.:*/0-9-]|é|nan){0,40}"#
    ) {
        if let Err(errors) = parse(&text) {
            prop_assert!(!errors.0.is_empty());
            let lines = text.matches('\n').count() + 1;
            for error in errors.0 {
                prop_assert!((1..=lines).contains(&error.place.line), "{}", error);
            }
        }
    }
}
