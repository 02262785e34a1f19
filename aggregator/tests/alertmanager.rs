//! The client and the shipped configuration against Debian's real Alertmanager, with a receiver behind it.
//!
//! Needs the packages prometheus-alertmanager and openssl; without them the tests say why they are skipped, or fail if
//! `FLOWVITALS_REQUIRE_KERNEL=1` says that everything must run.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, UNIX_EPOCH};

use aggregator::alert::{Alert, utc};
use aggregator::config::{Config, Source};
use aggregator::publish::alertmanager::{Alertmanagers, Books, Settings};
use jiff::Timestamp;
use lab::alertmanager::webhook::{Notification, Webhook};
use lab::alertmanager::{Alertmanager, AlertmanagerError, Options, shipped};
use lab::clock::unix_ms;

const PATIENCE: Duration = Duration::from_secs(60);
/// `group_interval` of the shipped configuration, five times: whatever was to come has come.
const FIVE_GROUP_INTERVALS: Duration = Duration::from_secs(5);

/// One Alertmanager, or a printed reason why there is none.
fn start(options: &Options) -> Option<Alertmanager> {
    match Alertmanager::start(options) {
        Ok(started) => Some(started),
        Err(AlertmanagerError::File { path, source })
            if source.kind() == std::io::ErrorKind::NotFound
                && std::env::var_os("FLOWVITALS_REQUIRE_KERNEL").is_none() =>
        {
            println!("skipped: {}: {source}", path.display());
            None
        }
        Err(error) => panic!("no Alertmanager: {error}"),
    }
}

fn with_receiver() -> Option<(Alertmanager, Webhook)> {
    let webhook = Webhook::start().expect("a receiver");
    let options = Options {
        receivers: Some(webhook.url()),
        ..Options::default()
    };
    Some((start(&options)?, webhook))
}

/// The client, on a runtime of its own.
struct Client {
    alertmanagers: Alertmanagers,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    fn of(settings: &Settings) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let started = runtime.block_on(async { Alertmanagers::start(settings) });
        Self {
            alertmanagers: started.expect("a client"),
            runtime,
        }
    }

    fn new(urls: &[&str]) -> Self {
        Self::of(&Settings {
            urls: urls.iter().map(|url| (*url).to_owned()).collect(),
            ..Settings::default()
        })
    }

    fn say(&self, alerts: &[Alert]) {
        self.alertmanagers.send(alerts.to_vec());
    }

    fn books(&self, n: usize) -> Books {
        self.alertmanagers.books().swap_remove(n).1
    }

    /// Waits until the `n`-th has taken so many.
    fn until_taken(&self, n: usize, count: u64) {
        let took = lab::clock::wait_until(PATIENCE, || self.books(n).taken >= count);
        assert!(
            took,
            "{:?} {:?}",
            self.books(n),
            self.alertmanagers.health()
        );
    }

    fn stop(self) -> usize {
        self.runtime.block_on(self.alertmanagers.stop(PATIENCE))
    }
}

/// An alert as the engine says it.
#[derive(Clone, Copy)]
struct Said<'a> {
    severity: &'a str,
    stream: &'a str,
    start_ms: u64,
}

impl Said<'_> {
    fn ending(self, end_ms: u64) -> Alert {
        let labels = [
            ("alertname", "FlowvitalsRetransRatio"),
            ("rule", "retransmissions"),
            ("site", "ams1"),
            ("stream", self.stream),
            ("severity", self.severity),
        ];
        let labels = labels.iter().filter(|(_, value)| !value.is_empty());
        Alert {
            labels: labels
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            annotations: [("summary".to_owned(), format!("at {}", unix_ms()))].into(),
            starts_at: utc(self.start_ms),
            ends_at: utc(end_ms),
            generator_url: None,
        }
    }

    fn on(self) -> Alert {
        self.ending(unix_ms() + 60_000)
    }

    fn over(self) -> Alert {
        self.ending(unix_ms())
    }
}

fn page(stream: &str) -> Said<'_> {
    Said {
        severity: "page",
        stream,
        start_ms: unix_ms(),
    }
}

/// Receiver and whether it fires, of what came about a stream.
fn about(webhook: &Webhook, stream: &str) -> Vec<(String, bool)> {
    let about = |one: &Notification| one.labels("stream").contains(&stream);
    let all = webhook.notifications().into_iter().filter(about);
    all.map(|one| (one.receiver.clone(), one.is_firing()))
        .collect()
}

fn until(webhook: &Webhook, stream: &str, count: usize) {
    let enough = |all: &[Notification]| {
        let about = all
            .iter()
            .filter(|one| one.labels("stream").contains(&stream));
        about.count() >= count
    };
    let came = webhook.wait(PATIENCE, enough);
    assert!(came, "{stream}: {:?}", about(webhook, stream));
}

fn told(all: &[(&str, bool)]) -> Vec<(String, bool)> {
    all.iter()
        .map(|(receiver, firing)| ((*receiver).to_owned(), *firing))
        .collect()
}

#[test]
fn repeats_and_flapping_notify_once_and_the_end_is_told() {
    let Some((alertmanager, webhook)) = with_receiver() else {
        return;
    };
    let client = Client::new(&[&alertmanager.url()]);
    let steady = page("steady");
    let said_ms = unix_ms();
    client.say(&[steady.on()]);
    until(&webhook, "steady", 1);
    let first = &webhook.notifications()[0];
    let came = first.wall.duration_since(UNIX_EPOCH).expect("now");
    println!(
        "said to receiver: {} ms; said to taken, median: {:.1} ms",
        came.as_millis() as u64 - said_ms,
        client.books(0).reached.quantile_s(0.5).unwrap_or_default() * 1e3
    );
    // It writes a fraction of a second without the zeros at its end.
    let starts_at = first.body["alerts"][0]["startsAt"].as_str();
    let starts_at: Timestamp = starts_at.expect("a time").parse().expect("RFC 3339");
    assert_eq!(starts_at.as_millisecond() as u64, steady.start_ms);

    // On, over and on again, faster than a group is told of; and the other one said again and again.
    let mut flapping = page("flapping");
    for _ in 0..6 {
        client.say(&[flapping.on(), steady.on()]);
        sleep(Duration::from_millis(50));
        client.say(&[flapping.over()]);
        sleep(Duration::from_millis(50));
        flapping.start_ms = unix_ms();
    }
    client.say(&[flapping.on(), steady.on()]);
    sleep(FIVE_GROUP_INTERVALS);
    assert_eq!(about(&webhook, "steady"), told(&[("page", true)]));
    assert_eq!(about(&webhook, "flapping"), told(&[("page", true)]));

    // Over, and said to be over more than once.
    for _ in 0..3 {
        client.say(&[flapping.over(), steady.over()]);
        sleep(Duration::from_millis(100));
    }
    until(&webhook, "steady", 2);
    until(&webhook, "flapping", 2);
    sleep(FIVE_GROUP_INTERVALS);
    let both = told(&[("page", true), ("page", false)]);
    assert_eq!(about(&webhook, "steady"), both);
    assert_eq!(about(&webhook, "flapping"), both);
    assert_eq!(client.books(0).refused, 0);
    assert_eq!(client.stop(), 0);
}

#[test]
fn a_suspect_is_shown_and_gives_way_to_its_page_and_streams_to_their_site() {
    let Some((alertmanager, webhook)) = with_receiver() else {
        return;
    };
    let client = Client::new(&[&alertmanager.url()]);
    let suspect = |stream| Said {
        severity: "suspect",
        ..page(stream)
    };
    let watchdog = Alert::watchdog("ams1", unix_ms(), unix_ms() + 60_000);
    client.say(&[suspect("shown").on(), page("paged").on(), watchdog]);
    until(&webhook, "shown", 1);
    until(&webhook, "paged", 1);
    // Its page is on already; and the site's alert inhibits the page of a stream.
    client.say(&[suspect("paged").on()]);
    client.say(&[page("").on()]);
    until(&webhook, "", 2);
    client.say(&[page("elsewhere").on(), suspect("elsewhere").on()]);
    client.until_taken(0, 7);
    sleep(FIVE_GROUP_INTERVALS);
    assert_eq!(about(&webhook, "shown"), told(&[("show", true)]));
    assert_eq!(about(&webhook, "paged"), told(&[("page", true)]));
    assert_eq!(about(&webhook, "elsewhere"), []);
    let mut without_stream = about(&webhook, "");
    without_stream.sort();
    // The watchdog is told again every minute.
    without_stream.dedup();
    assert_eq!(without_stream, told(&[("page", true), ("watchdog", true)]));
    assert_eq!(client.stop(), 0);
}

#[test]
fn all_hear_of_everything_and_one_that_is_dead_or_hangs_delays_nothing() {
    let Some((first, one)) = with_receiver() else {
        return;
    };
    let Some((mut second, other)) = with_receiver() else {
        return;
    };
    let client = Client::new(&[&first.url(), &second.url()]);
    client.say(&[page("both").on()]);
    until(&one, "both", 1);
    until(&other, "both", 1);

    second.pause();
    client.say(&[page("while-one-hangs").on()]);
    until(&one, "while-one-hangs", 1);
    assert_eq!(client.books(1).taken, 1, "the other one hangs");
    second.resume();
    until(&other, "while-one-hangs", 1);

    second.kill();
    client.say(&[page("while-one-is-dead").on()]);
    until(&one, "while-one-is-dead", 1);
    let dead = || client.alertmanagers.health();
    assert!(
        lab::clock::wait_until(PATIENCE, || dead().len() == 1),
        "{:?}",
        dead()
    );
    println!("dead: {}", dead()[0]);
    second.restart().expect("up again");
    until(&other, "while-one-is-dead", 1);
    client.until_taken(1, 3);
    assert_eq!(dead(), [""; 0]);
    let books = client.books(0);
    assert_eq!((books.taken, books.retries), (3, 0));
    assert_eq!(client.stop(), 0);
}

#[test]
fn logs_in_over_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = |name: &str| folder.path().join(name);
    let made = Command::new("openssl")
        .args("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost".split(' '))
        .arg("-keyout")
        .arg(place("key.pem"))
        .arg("-out")
        .arg(place("cert.pem"))
        .output();
    let made = match made {
        Ok(made) => made,
        Err(error) if std::env::var_os("FLOWVITALS_REQUIRE_KERNEL").is_none() => {
            return println!("skipped: openssl: {error}");
        }
        Err(error) => panic!("openssl: {error}"),
    };
    assert!(made.status.success(), "{made:?}");
    // The hash is of "word", as `htpasswd -bnBC 4 "" word` makes it.
    let web = format!(
        "tls_server_config: {{cert_file: {}, key_file: {}}}\nbasic_auth_users: {{flowvitals: {BCRYPT}}}\n",
        place("cert.pem").display(),
        place("key.pem").display()
    );
    fs::write(place("web.yml"), web).expect("written");
    fs::write(place("password"), "word\n").expect("written");
    fs::write(place("wrong"), "sword\n").expect("written");
    let options = Options {
        web_config: Some(place("web.yml")),
        ..Options::default()
    };
    let Some(alertmanager) = start(&options) else {
        return;
    };
    let settings = |password: &str, ca: bool| {
        let mut text = format!(
            "[alertmanager]\nurls = ['{}']\nusername = 'flowvitals'\npassword_file = '{}'\n",
            alertmanager.url(),
            place(password).display()
        );
        if ca {
            text += &format!("tls_ca = '{}'\n", place("cert.pem").display());
        }
        let config: Config = aggregator::config::read(Source::new("a.toml", text)).expect("valid");
        Settings::of(&config)
    };
    let missing = settings("nowhere", true)
        .expect_err("no such file")
        .to_string();
    assert!(
        missing.starts_with("a.toml:4:17: alertmanager.password_file: "),
        "{missing}"
    );

    let client = Client::of(&settings("password", true).expect("readable"));
    client.say(&[page("a").on()]);
    client.until_taken(0, 1);
    assert_eq!(client.stop(), 0);

    for (password, ca, count) in [("wrong", true, (1, 0)), ("password", false, (0, 1))] {
        let client = Client::of(&settings(password, ca).expect("readable"));
        client.say(&[page("a").on()]);
        let failed = || {
            let books = client.books(0);
            (books.refused, books.retries.min(1)) == count
        };
        assert!(
            lab::clock::wait_until(PATIENCE, failed),
            "{:?}",
            client.books(0)
        );
        println!(
            "{password}, authority {ca}: {}",
            client.alertmanagers.health()[0]
        );
        assert_eq!(client.books(0).taken, 0);
    }
}

/// Of "word".
const BCRYPT: &str = "$2b$04$3Z1wMSWPWE.0SbV/C9aDQeVZ5AKqnIL1XuMB40RuiasVQWWorUXuG";

fn amtool(arguments: &[&str]) -> Option<String> {
    let file = shipped();
    let mut command = Command::new("amtool");
    command.args(arguments);
    let made = match arguments.first() {
        Some(&"check-config") => command.arg(&file).output(),
        _ => command
            .arg(format!("--config.file={}", file.display()))
            .output(),
    };
    match made {
        Ok(made) => {
            let errors = String::from_utf8_lossy(&made.stderr).into_owned();
            assert!(made.status.success(), "{arguments:?}: {errors}");
            Some(String::from_utf8_lossy(&made.stdout).trim().to_owned())
        }
        Err(error) if std::env::var_os("FLOWVITALS_REQUIRE_KERNEL").is_none() => {
            println!("skipped: amtool: {error}");
            None
        }
        Err(error) => panic!("amtool: {error}"),
    }
}

#[test]
fn the_shipped_configuration_is_right_and_routes_as_it_says() {
    let Some(found) = amtool(&["check-config"]) else {
        return;
    };
    assert!(found.contains("SUCCESS"), "{found}");
    let alertname = |name: &str| format!("alertname={name}");
    let retrans = alertname("FlowvitalsRetransRatio");
    for (name, severity, receiver) in [
        (&retrans, "severity=page", "page"),
        (&retrans, "severity=suspect", "show"),
        (&retrans, "severity=ticket", "show"),
        (&alertname("FlowvitalsTest"), "severity=test", "show"),
        (&alertname("FlowvitalsTest"), "severity=page", "page"),
        (
            &alertname("FlowvitalsWatchdog"),
            "severity=none",
            "dead-mans-switch",
        ),
    ] {
        let labels = [name.as_str(), severity, "site=ams1", "stream=sport-1"];
        let route = [&["config", "routes", "test"], &labels[..]].concat();
        assert_eq!(amtool(&route).as_deref(), Some(receiver), "{labels:?}");
    }
    let text = fs::read_to_string(shipped()).expect("readable");
    for promised in ["group_wait: 0s", "group_interval: 1s"] {
        assert!(text.contains(promised), "{promised}");
    }
    assert!(Path::new(&shipped()).ends_with("deploy/alertmanager/alertmanager.yml"));
}
