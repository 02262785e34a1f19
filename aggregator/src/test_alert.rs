//! `test-alert`: one alert through every output, to see that somebody hears it.
//!
//! In: the configuration, whose brokers and Alertmanagers are told. Out: a line per output on `out`: what happened and how long it took;
//! an exit code. The alert is `FlowvitalsTest` and says of itself that it is a test; Alertmanager ends it after [`LASTS_MS`], its record
//! in the topic is taken out again at once.
//! Limits: [`TOPIC_PATIENCE`] for the brokers, [`crate::publish::alertmanager::WHOLE`] for each Alertmanager, all at the same time.

use std::io::{self, Write};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};
use service::{exit, topics};

use crate::alert::{Alert, Key, utc};
use crate::cli::TestAlertArgs;
use crate::config::{Config, ConfigErrors};
use crate::consume::Kafka;
use crate::publish::alertmanager::{Client, Settings};

/// Name of the alert, and of the rule in its key; no rule of the configuration can have it.
pub const NAME: &str = "FlowvitalsTest";

/// How long it is on, ms.
pub const LASTS_MS: u64 = 60_000;

/// The brokers have so long, each of two times.
pub const TOPIC_PATIENCE: Duration = Duration::from_secs(10);

const SUMMARY: &str =
    "This is a test of the way that alerts take. Nothing is wrong; it ends by itself in a minute.";

/// What an output did, and how long that took.
struct Told {
    output: String,
    result: Result<String, String>,
    took: Duration,
}

/// Runs `test-alert`; the result is the exit code.
///
/// # Errors
/// If `out` or `err` cannot be written.
pub fn run(args: &TestAlertArgs, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<u8> {
    let (config, kafka, settings) = match load(args) {
        Ok(loaded) => loaded,
        Err(errors) => {
            errors.report(&args.config, err)?;
            return Ok(exit::CONFIG);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let all = runtime.block_on(tell_all(&config, &kafka, &settings, &args.severity));
    // A client that waits for an answer must not keep us.
    runtime.shutdown_background();
    let mut failed = 0;
    for told in &all {
        let ms = told.took.as_secs_f64() * 1e3;
        match &told.result {
            Ok(what) => writeln!(out, "{}: {what}, {ms:.1} ms", told.output)?,
            Err(why) => {
                failed += 1;
                writeln!(out, "{}: FAILED after {ms:.0} ms: {why}", told.output)?;
            }
        }
    }
    if settings.urls.is_empty() {
        writeln!(err, "warning: no [alertmanager] urls: nobody is paged")?;
    }
    if failed == 0 {
        return Ok(exit::OK);
    }
    writeln!(err, "{failed} of {} outputs did not take it", all.len())?;
    Ok(exit::UNSUPPORTED)
}

fn load(args: &TestAlertArgs) -> Result<(Config, Kafka, Settings), ConfigErrors> {
    let one = |error| ConfigErrors(vec![error]);
    let config = Config::load(&args.config)?;
    config.ready_to_run().map_err(one)?;
    let kafka = Kafka::of(&config).map_err(one)?;
    let settings = Settings::of(&config).map_err(one)?;
    Ok((config, kafka, settings))
}

async fn tell_all(
    config: &Config,
    kafka: &Kafka,
    settings: &Settings,
    severity: &str,
) -> Vec<Told> {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = unix.unwrap_or_default().as_millis() as u64;
    let key = Key {
        rule: NAME.to_owned(),
        site: config.site.clone(),
        stream: "test".to_owned(),
    };
    let alert = alert(&key, severity, now_ms);
    let record = record(&key, &alert, now_ms);
    let asked: Vec<_> = settings
        .urls
        .iter()
        .map(|url| {
            let (url, client) = (url.clone(), Client::new(url, settings));
            let alert = alert.clone();
            tokio::spawn(async move {
                let begin = Instant::now();
                let result = match client {
                    Ok(client) => client
                        .post(&[&alert])
                        .await
                        .map_err(|error| error.to_string()),
                    Err(error) => Err(error.to_string()),
                };
                Told {
                    output: url,
                    result: result.map(|()| "took it".to_owned()),
                    took: begin.elapsed(),
                }
            })
        })
        .collect();
    let mut all = vec![tell_topic(kafka, &key.to_string(), &record).await];
    for (told, url) in asked.into_iter().zip(&settings.urls) {
        all.push(told.await.unwrap_or_else(|error| Told {
            output: url.clone(),
            result: Err(error.to_string()),
            took: Duration::ZERO,
        }));
    }
    all
}

fn alert(key: &Key, severity: &str, now_ms: u64) -> Alert {
    let labels = [
        ("alertname", NAME),
        ("rule", &key.rule),
        ("site", &key.site),
        ("stream", &key.stream),
        ("severity", severity),
    ];
    Alert {
        labels: labels
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        annotations: [("summary".to_owned(), SUMMARY.to_owned())].into(),
        starts_at: utc(now_ms),
        ends_at: utc(now_ms + LASTS_MS),
        generator_url: None,
    }
}

/// As [`crate::alert::Record`] is written.
fn record(key: &Key, alert: &Alert, now_ms: u64) -> Value {
    json!({
        "rule": key.rule,
        "site": key.site,
        "stream": key.stream,
        "kind": "fired",
        "state": "firing",
        "owner_epoch": 0,
        "episode_id": format!("test-{now_ms}"),
        "said_ms": now_ms,
        "starts_at_ms": now_ms,
        "ends_at_ms": now_ms + LASTS_MS,
        "onset_ms": now_ms,
        "fired_by": null,
        "peak": null,
        "duration_ms": null,
        "ended": null,
        "labels": alert.labels,
        "annotations": alert.annotations,
    })
}

async fn tell_topic(kafka: &Kafka, key: &str, record: &Value) -> Told {
    let begin = Instant::now();
    let result = write_and_take_out(kafka, key, record).await;
    Told {
        output: format!("topic {}", topics::ALERT),
        took: begin.elapsed(),
        result,
    }
}

async fn write_and_take_out(kafka: &Kafka, key: &str, record: &Value) -> Result<String, String> {
    let mut settings = kafka.producer().map_err(|error| error.to_string())?;
    settings.set("message.timeout.ms", TOPIC_PATIENCE.as_millis().to_string());
    settings
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "0");
    let producer: FutureProducer = settings.create().map_err(|error| error.to_string())?;
    let text = record.to_string();
    let written = FutureRecord::to(topics::ALERT).key(key).payload(&text);
    let why = |error| format!("{error}; `flowvitals-aggregator check` says more about the brokers");
    let place = producer.send(written, TOPIC_PATIENCE).await;
    let place = place.map_err(|(error, _)| why(error))?;
    let tombstone = FutureRecord::<str, str>::to(topics::ALERT).key(key);
    let gone = producer.send(tombstone, TOPIC_PATIENCE).await;
    gone.map_err(|(error, _)| format!("took it, but not its end: {}", why(error)))?;
    let (partition, offset) = (place.partition, place.offset);
    Ok(format!(
        "took it and its end (partition {partition}, offset {offset})"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Record;

    #[test]
    fn its_record_is_one_and_both_say_what_they_are() {
        let key = Key {
            rule: NAME.to_owned(),
            site: "ams1".to_owned(),
            stream: "test".to_owned(),
        };
        let alert = alert(&key, "test", 1_795_376_700_000);
        assert_eq!(alert.labels["alertname"], "FlowvitalsTest");
        assert_eq!(alert.ends_at, "2026-11-22T19:46:00.000Z");
        assert!(alert.annotations["summary"].contains("test"));
        let record: Record =
            serde_json::from_value(record(&key, &alert, 1_795_376_700_000)).expect("a record");
        assert_eq!((record.key, record.labels), (key, alert.labels));
    }

    #[test]
    fn a_wrong_file_is_78() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.toml");
        for (text, place) in [
            ("site = 7", "1:8: site: "),
            ("site = 'a'", "kafka.brokers: is missing"),
            (
                "[kafka]\nbrokers = ['a:1']\n[alertmanager]\ntoken_file = '/nowhere'",
                "4:14: alertmanager.token_file: /nowhere: ",
            ),
        ] {
            std::fs::write(&file, text).expect("written");
            let args = TestAlertArgs {
                config: file.clone(),
                severity: "test".to_owned(),
            };
            let (mut out, mut err) = (Vec::new(), Vec::new());
            assert_eq!(
                run(&args, &mut out, &mut err).expect("written"),
                exit::CONFIG
            );
            let err = String::from_utf8(err).expect("text");
            assert!(err.contains(place), "{err}");
            assert!(out.is_empty());
        }
    }
}
