use std::fs;
use std::path::PathBuf;

use super::*;

const SHIPPED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../deploy/config/rules_test.toml"
);

const RULE: &str =
    "[[alert]]\nname = 'loss'\nstreams = ['*']\nmetric = 'retrans_ratio'\nabove = 0.02\n";

fn run_text(text: &str) -> (u8, String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("t.toml");
    fs::write(&file, text).expect("written");
    run_files(vec![file], false)
}

fn run_files(files: Vec<PathBuf>, verbose: bool) -> (u8, String, String) {
    let args = RulesTestArgs { files, verbose };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = run(&args, &mut out, &mut err).expect("written");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (code, text(out), text(err))
}

/// A test of one stream with so many retransmits.
fn one(retrans: &str, expect: &str) -> String {
    format!(
        "{RULE}[[test]]\nname = 'one'\n[[test.input]]\nstream = 's'\nnodes = 2\nretrans_segs = '{retrans}'\n{expect}"
    )
}

#[test]
fn the_shipped_tests_pass() {
    check(Path::new(SHIPPED)).expect("all pass");
}

#[test]
fn the_shipped_tests_can_fail() {
    let text = fs::read_to_string(SHIPPED).expect("the file");
    for (from, to, fails) in [
        ("above = 0.02", "above = 0.05", "loss of 5 %"),
        ("above = 0.02", "above = 0.012", "1.5 % is no alert"),
        ("flows = 29", "flows = 30", "29 sampled flows"),
        ("pulse_ms = 100\n", "pulse_ms = 0\n", "pulses suspect"),
        ("50*60 1500", "50*60 150", "late"),
        ("5000*40", "500*40", "stalls page"),
        ("stopping gone", "gone", "that they stop"),
    ] {
        // The rules and the one test: the others pass all the same.
        let mut parts = text.split("\n[[test]]\n");
        let rules = parts.next().expect("rules");
        let test = parts.find(|test| test.lines().next().is_some_and(|name| name.contains(fails)));
        let one = format!("{rules}\n[[test]]\n{}", test.expect(fails));
        assert!(one.contains(from), "{from}");
        let (code, out, err) = run_text(&one.replace(from, to));
        let failed: Vec<_> = out
            .lines()
            .filter(|line| line.starts_with("  FAILED"))
            .collect();
        assert_eq!(code, FAILED, "{from}: {out}{err}");
        assert!(
            failed.iter().any(|line| line.contains(fails)),
            "{from}: {out}"
        );
    }
}

#[test]
fn a_failure_says_where_what_was_expected_and_what_came() {
    let expect = "[[test.expect]]\nat = '20s'\nalerts = [{ state = 'resolving' }]\n[[test.expect]]\nat = 4\nalerts = [{ state = 'firing' }]\n";
    let (code, out, _) = run_text(&one("200", expect));
    assert_eq!(code, FAILED);
    for part in [
        "t.toml:17:11: at 4 s: expected loss on s firing, got nothing; the value is 5 %",
        "t.toml:14:11: at 20 s: expected loss on s resolving, got loss on s firing since ",
        "  loss on s fires: 5 % (4.",
        "0 passed, 1 failed",
    ] {
        assert!(out.contains(part), "no {part:?} in\n{out}");
    }
    let unexpected = "[[test.expect]]\nat = 30\nalerts = []\n";
    let (_, out, _) = run_text(&one("200", unexpected));
    assert!(
        out.contains("t.toml:12:1: at 30 s: expected nothing of it, got loss on s firing since"),
        "{out}"
    );
}

#[test]
fn every_condition_of_an_alert_can_fail() {
    for (condition, message) in [
        ("severity = 'warn'", "expected severity warn, got page"),
        ("since = '1s'", "expected since 1 s, got since"),
        (
            "value = [0.1, 0.2]",
            "expected a value of 10 % to 20 %, got 5 % (4.",
        ),
        ("nodes = 1", "expected 1 nodes above the threshold, got 2"),
        ("fired_by = 'nodes'", "expected fired_by nodes, got rule"),
        (
            "labels = { site = 'x*' }",
            "expected label site = \"x*\", got \"default\"",
        ),
        (
            "annotations = { no = '*' }",
            "expected annotation no = \"*\", there is none",
        ),
    ] {
        let expect =
            format!("[[test.expect]]\nat = '1m'\nalerts = [{{ state = 'firing', {condition} }}]\n");
        let (code, out, err) = run_text(&one("200", &expect));
        assert_eq!(code, FAILED, "{condition}: {out}{err}");
        assert!(out.contains(message), "no {message:?} in\n{out}");
    }
    let ok = "[[test.expect]]\nat = '1m'\nalerts = [{ state = 'ok' }]\n";
    let (code, out, _) = run_text(&one("200", ok));
    assert_eq!(code, FAILED);
    assert_eq!(
        out.matches("expected loss on s ok, got loss on s firing")
            .count(),
        1,
        "{out}"
    );
    assert!(!out.contains("nothing of it"), "said once: {out}");
}

#[test]
fn what_is_wrong_with_a_file_has_its_place_and_ends_with_78() {
    let good = one("8", "[[test.expect]]\nat = 5\nalerts = []\n");
    assert_eq!(run_text(&good).0, exit::OK);
    for (from, to, message) in [
        (
            "name = 'loss'",
            "name = 7",
            "t.toml:2:8: alert.name: is of type integer",
        ),
        (
            "'8'",
            "'8*'",
            "t.toml:11:16: input.retrans_segs: `8*` has no number after *",
        ),
        (
            "stream = 's'",
            "stream = 'a b'",
            "t.toml:9:10: input.stream: ",
        ),
        ("nodes = 2\n", "", "input.nodes: is missing"),
        ("at = 5\n", "", "t.toml:12:1: expect.at: is missing"),
        (
            "at = 5",
            "at = 'x'",
            "t.toml:13:6: expect.at: `x` is no time of the test",
        ),
        (
            "alerts = []",
            "alerts = [{ state = 'on' }]",
            "t.toml:14:21: alerts.state: `on` is not a choice",
        ),
        (
            "alerts = []",
            "alerts = [{ rule = 'x', state = 'ok' }]",
            "alerts.rule: there is no rule `x`",
        ),
        (
            "alerts = []",
            "alert = []",
            "expect.alert: unknown option, did you mean `alerts`?",
        ),
        ("name = 'one'", "", "test.name: is missing"),
        (RULE, "", "rules: there are no rules to test"),
        (
            RULE,
            "rules = 'nowhere.toml'\n",
            "nowhere.toml: cannot be read",
        ),
        (
            "[[test.input]]",
            "[[test.input]]\nevents = 'no.jsonl'\n[[test.input]]",
            "no.jsonl:0: cannot be read",
        ),
    ] {
        assert!(good.contains(from), "{from}");
        let (code, out, err) = run_text(&good.replacen(from, to, 1));
        assert_eq!(code, exit::CONFIG, "{to}: {out}{err}");
        assert!(err.contains(message), "no {message:?} in\n{err}");
    }
    let (code, _, err) = run_files(vec![PathBuf::from("/nowhere/t.toml")], false);
    assert_eq!(code, exit::CONFIG, "{err}");
}

#[test]
fn a_file_can_name_a_configuration_and_recorded_events() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    let rules = format!("site = 'ams1'\n[kafka]\nbrokers = ['a:1']\n{RULE}");
    fs::write(file("aggregator.toml"), rules).expect("written");
    // What the nodes of a test do, as lines.
    let made = one("8*20 200*30 8", "[[test.expect]]\nat = '2m'\nalerts = []\n");
    fs::write(file("made.toml"), &made).expect("written");
    let described = File::load(&file("made.toml")).expect("a file");
    let (begin_ms, events) = described.tests[0].events(&described).expect("events");
    let mut lines = fs::File::create(file("e.jsonl")).expect("a file");
    for recorded in &events {
        recorded::write(&recorded.event, recorded.append_ms, &mut lines).expect("written");
    }
    let text = "rules = 'aggregator.toml'\n[[test]]\nname = 'recorded'\nfired = 1\n[[test.input]]\nevents = 'e.jsonl'\n\
        [[test.expect]]\nat = '40s'\nalerts = [{ stream = 's', state = 'firing', value = [0.04, 0.06], labels = { site = 'ams1' } }]\n\
        [[test.expect]]\nat = '2026-01-01T00:02:00Z'\nalerts = []\n";
    fs::write(file("t.toml"), text).expect("written");
    let loaded = File::load(&file("t.toml")).expect("a file");
    let (recorded_ms, read_back) = loaded.tests[0].events(&loaded).expect("events");
    assert_eq!((recorded_ms, &read_back), (begin_ms, &events));
    let (code, out, err) = run_files(vec![file("t.toml")], true);
    assert_eq!(code, exit::OK, "{out}{err}");
    assert!(out.contains("loss on s fires: 3.56 % ("), "{out}");
}

#[test]
fn the_same_file_always_ends_the_same_way() {
    let verbose = || run_files(vec![PathBuf::from(SHIPPED)], true);
    let first = verbose();
    assert_eq!(first.0, exit::OK);
    assert_eq!(first, verbose());
}
