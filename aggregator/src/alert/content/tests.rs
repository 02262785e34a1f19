use serde_json::json;

use sampler_event::Counters;

use super::words::share;
use super::*;
use crate::alert::episode::{Ended, FiredBy, Kind, Peak, State};
use crate::alert::rule::tests::{estimate, rule};

fn key() -> Key {
    Key {
        rule: "retransmissions".to_owned(),
        site: "ams1".to_owned(),
        stream: "sport-1".to_owned(),
    }
}

fn notice(kind: Kind) -> Notice {
    let resolved = kind == Kind::Resolved;
    Notice {
        kind,
        state: if resolved { State::Ok } else { State::Firing },
        owner_epoch: 7,
        episode_id: Some("00ff".to_owned()),
        said_ms: 1_795_376_705_000,
        starts_at_ms: 1_795_376_702_000,
        ends_at_ms: 1_795_376_765_000,
        onset_ms: 1_795_376_700_100,
        fired_by: Some(FiredBy::Nodes(2)),
        peak: Some(Peak {
            value: 0.05,
            low: 0.04,
            high: 0.062,
            at_ms: 1_795_376_703_000,
        }),
        duration_ms: resolved.then_some(63_000),
        ended: resolved.then_some(Ended::Cleared),
    }
}

fn evidence() -> Evidence {
    Evidence {
        estimate: Some(estimate(0.031, 0.025)),
        baseline: Some(0.004),
        flows_active: 400,
        flows_touched: 130,
        nodes_expected: 100,
        nodes_reported: 97,
        nodes_with_data: 97,
        nodes_touched: 31,
        worst: vec![NodeShare {
            node: "edge-07".to_owned(),
            value: Some(0.081),
            some: 812,
            all: 10_020,
        }],
        before: Some(estimate(0.005, 0.004)),
        span_ms: Some((1_795_376_692_000, 1_795_376_702_000)),
        stream_labels: [("customer".to_owned(), "acme".to_owned())].into(),
        changes: vec!["version 1 to 2 on 3 nodes since 2026-11-22T19:40:00.000Z".to_owned()],
        data_age_ms: 1_200,
        sampling_rates: Some((0.1, 0.25)),
        counters: Counters {
            retrans_segs: 200,
            retrans_rto_segs: 50,
            dsack_dups: 10,
            stall_network_us: 750,
            stall_sender_us: 250,
            ..Counters::default()
        },
        ..Evidence::default()
    }
}

#[test]
fn alertmanager_is_told_what_where_since_when_how_wide_and_why() {
    let mut rule = rule();
    rule.labels = [("customer".to_owned(), "acme".to_owned())].into();
    let runbook = ("runbook_url".to_owned(), "https://example.net/r".to_owned());
    rule.annotations = [runbook, ("empty".to_owned(), String::new())].into();
    let alert = Alert::new(&rule, &key(), &notice(Kind::Fired), &evidence()).expect("an alert");
    let found = serde_json::to_value([alert]).expect("JSON");
    let expected = json!([{
        "labels": {
            "alertname": "FlowvitalsRetransRatio", "rule": "retransmissions", "site": "ams1",
            "stream": "sport-1", "severity": "page", "customer": "acme"
        },
        "annotations": {
            "summary": "sport-1 at ams1: 3.1 % of segments are retransmits, since 2026-11-22T19:45:00.100Z",
            "estimate": "3.1 % (2.5 % to 3.7 % at 95 %, 300 sampled flows)",
            "threshold": "2 %",
            "baseline": "0.4 %",
            "onset": "2026-11-22T19:45:00.100Z",
            "flows_touched": "32.5 % (130 of 400 sampled flows)",
            "trend": "rising, 0.5 % 10 s earlier",
            "nodes_touched": "31 of 97 nodes",
            "worst_nodes": "edge-07 8.1 % (812 of 10020 sampled)",
            "customer": "acme",
            "changed": "version 1 to 2 on 3 nodes since 2026-11-22T19:40:00.000Z",
            "record": "/api/v1/alerts/retransmissions%7Cams1%7Csport-1/00ff",
            "evidence": "/api/v1/streams/sport-1/windows?from_ms=1795376692000&to_ms=1795376702000",
            "completeness": "97 of 100 nodes, data 1.2 s old",
            "sampling_rate": "0.1 to 0.25",
            "stall_causes": "network 75 %, receiver 0 %, sender 25 %, other 0 %",
            "rto_share": "25 %",
            "spurious_share": "5 %",
            "fired_by": "2 nodes whose pulses agree",
            "peak": "5 % (4 % to 6.2 %) at 2026-11-22T19:45:03.000Z",
            "episode_id": "00ff",
            "runbook_url": "https://example.net/r"
        },
        "startsAt": "2026-11-22T19:45:02.000Z",
        "endsAt": "2026-11-22T19:46:05.000Z"
    }]);
    assert_eq!(found, expected);
}

#[test]
fn what_is_not_known_is_not_said_and_labels_cannot_be_taken() {
    let mut rule = rule();
    rule.labels = [("site".to_owned(), "elsewhere".to_owned())].into();
    let notice = notice(Kind::Resolved);
    let alert = Alert::new(&rule, &key(), &notice, &Evidence::default()).expect("an alert");
    let names: Vec<_> = alert.annotations.keys().map(String::as_str).collect();
    let known = [
        "duration",
        "ended",
        "episode_id",
        "fired_by",
        "onset",
        "peak",
        "record",
        "summary",
        "threshold",
    ];
    assert_eq!(names, known);
    assert_eq!(alert.annotations["duration"], "63.0 s");
    assert_eq!(alert.labels["site"], "ams1");
    assert_eq!(alert.labels.len(), 5);
    for kind in [
        Kind::Pending,
        Kind::Withdrawn,
        Kind::Resolving,
        Kind::Relapsed,
    ] {
        let notice = Notice {
            kind,
            ..notice.clone()
        };
        assert_eq!(Alert::new(&rule, &key(), &notice, &evidence()), None);
    }
}

#[test]
fn the_record_is_flat_and_reads_back() {
    let record = Record::new(&rule(), &key(), &notice(Kind::Fired), None, &evidence());
    let json = serde_json::to_value(&record).expect("JSON");
    for (name, value) in [
        ("rule", json!("retransmissions")),
        ("stream", json!("sport-1")),
        ("kind", json!("fired")),
        ("state", json!("firing")),
        ("owner_epoch", json!(7)),
        ("episode_id", json!("00ff")),
        ("fired_by", json!({"nodes": 2})),
    ] {
        assert_eq!(json[name], value, "{name}");
    }
    assert_eq!(record.key.to_string(), "retransmissions|ams1|sport-1");
    assert_eq!(
        serde_json::from_value::<Record>(json).expect("its own JSON"),
        record
    );
}

#[test]
fn shares_in_percent() {
    for (value, text) in [
        (0.0, "0 %"),
        (0.000_041, "0.004 %"),
        (0.02, "2 %"),
        (0.099_96, "10 %"),
        (0.123_4, "12.3 %"),
        (1.0, "100 %"),
    ] {
        assert_eq!(share(value), text);
    }
}

#[test]
fn the_watchdog_is_the_sites() {
    let alert = Alert::watchdog("ams1", 0, 60_000);
    assert_eq!(alert.labels["alertname"], "FlowvitalsWatchdog");
    assert_eq!(alert.labels["site"], "ams1");
    assert_eq!(alert.ends_at, "1970-01-01T00:01:00.000Z");
}
