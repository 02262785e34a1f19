//! What is asked: rules, brokers, streams, moments.
//!
//! Input: arguments and the time of day, Unix ms. Output: [`Settings`] that make sense, or a [`Failure`] with the exit code that fits.

use std::path::PathBuf;

use glob::Pattern;
use jiff::SignedDuration;
use service::exit;

use super::Failure;
use crate::cli::BacktestArgs;
use crate::config::{self, Config, ConfigErrors};
use crate::consume::Kafka;

/// Settings of a run.
pub(super) struct Settings {
    /// The rules' configuration, with the brokers of the other one if there is one.
    pub config: Config,
    pub kafka: Kafka,
    /// File of the rules.
    pub rules: PathBuf,
    /// First moment, Unix ms; none: all that there is.
    pub from_ms: Option<u64>,
    /// The moment after the last one, Unix ms.
    pub to_ms: u64,
    /// Empty: all streams.
    pub streams: Vec<Pattern>,
    pub export: Option<PathBuf>,
}

impl Settings {
    pub(super) fn of(args: &BacktestArgs, now_ms: u64) -> Result<Self, Failure> {
        let wrong = |errors: ConfigErrors| Failure::new(exit::CONFIG, errors);
        let rules = Config::load(&args.rules).map_err(wrong)?;
        let config = match &args.config {
            None => rules,
            Some(file) => {
                let config = Config::load(file).map_err(wrong)?;
                Config {
                    alerts: rules.alerts,
                    warnings: rules.warnings,
                    ..config
                }
            }
        };
        if config.alerts.is_empty() {
            let file = args.rules.display();
            let message = format!("{file}: there is no [[alert]]: nothing to test");
            return Err(Failure::new(exit::CONFIG, message));
        }
        if config.kafka.brokers.is_empty() {
            let file = args.config.as_ref().unwrap_or(&args.rules).display();
            let message = format!(
                "{file}: kafka.brokers: is missing: where are the events? (allowed: [kafka] brokers there, or --config FILE with the \
                 configuration that has them)"
            );
            return Err(Failure::new(exit::CONFIG, message));
        }
        let kafka = Kafka::of(&config).map_err(|error| wrong(error.into()))?;
        let moment = |text: &Option<String>, option| match text {
            None => Ok(None),
            Some(text) => moment(text, now_ms)
                .map(Some)
                .ok_or_else(|| usage(format!("{option} {text}: is none ({MOMENTS})"))),
        };
        let (from_ms, to_ms) = (moment(&args.from, "--from")?, moment(&args.to, "--to")?);
        let to_ms = to_ms.unwrap_or(now_ms).min(now_ms);
        if from_ms.is_some_and(|from_ms| from_ms >= to_ms) {
            return Err(usage(
                "--from is not before --to, or in the future".to_owned(),
            ));
        }
        let streams = args.stream.iter().map(|text| {
            let wrong = |error: glob::PatternError| {
                usage(format!("--stream {text}: is no glob: {}", error.msg))
            };
            Pattern::new(text).map_err(wrong)
        });
        Ok(Self {
            streams: streams.collect::<Result<_, _>>()?,
            config,
            kafka,
            rules: args.rules.clone(),
            from_ms,
            to_ms,
            export: args.export.clone(),
        })
    }

    /// Whether a stream is asked for and watched by a rule.
    pub(super) fn wants(&self, stream: &str) -> bool {
        let asked = self.streams.is_empty() || self.streams.iter().any(|glob| glob.matches(stream));
        asked
            && self
                .config
                .alerts
                .iter()
                .any(|alert| alert.rule.watches(stream))
    }
}

const MOMENTS: &str =
    "a time of RFC 3339 such as 2026-11-22T19:45:00Z, how long ago such as 2h or 45m, or now";

fn usage(message: String) -> Failure {
    Failure::new(exit::USAGE, message)
}

/// A moment, Unix ms.
fn moment(text: &str, now_ms: u64) -> Option<u64> {
    if text == "now" {
        return Some(now_ms);
    }
    let ago = || {
        let length = text.parse::<SignedDuration>().ok()?;
        now_ms.checked_sub(u64::try_from(length.as_millis()).ok()?)
    };
    config::time_ms(text).or_else(ago)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_795_376_700_000;

    #[test]
    fn moments_are_times_or_ago() {
        assert_eq!(moment("now", NOW_MS), Some(NOW_MS));
        assert_eq!(moment("2h", NOW_MS), Some(NOW_MS - 7_200_000));
        assert_eq!(moment("1h30m", NOW_MS), Some(NOW_MS - 5_400_000));
        assert_eq!(moment("2026-11-22T19:45:00Z", NOW_MS), Some(NOW_MS));
        for none in ["", "-2h", "yesterday", "2026-11-22", "999999999h"] {
            assert_eq!(moment(none, NOW_MS), None, "{none}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_said_with_its_code() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| {
            let file = folder.path().join(name);
            std::fs::write(&file, text).expect("written");
            file
        };
        let rule = "[[alert]]\nname = 'loss'\nstreams = ['sport-*']\nmetric = 'retrans_ratio'\nabove = 0.02\n";
        let rules = file("rules.toml", rule);
        let config = file(
            "aggregator.toml",
            "site = 'ams1'\n[kafka]\nbrokers = ['a:1']\n",
        );
        let args =
            |rules: &PathBuf, config: Option<&PathBuf>, from: &str, stream: &str| BacktestArgs {
                rules: rules.clone(),
                config: config.cloned(),
                from: Some(from.to_owned()),
                to: Some("1h".to_owned()),
                stream: vec![stream.to_owned()],
                export: None,
                json: false,
            };
        let good = Settings::of(&args(&rules, Some(&config), "2h", "*-1"), NOW_MS).expect("good");
        assert_eq!(
            (good.from_ms, good.to_ms),
            (Some(NOW_MS - 7_200_000), NOW_MS - 3_600_000)
        );
        assert_eq!(good.config.site, "ams1");
        let wants = ["sport-1", "sport-2", "news-1"].map(|stream| good.wants(stream));
        assert_eq!(wants, [true, false, false]);
        let broken = file("broken.toml", "[[alert]]\nname = 7\n");
        for (args, code, words) in [
            (
                args(&rules, None, "2h", "*"),
                exit::CONFIG,
                "kafka.brokers: is missing",
            ),
            (
                args(&config, None, "2h", "*"),
                exit::CONFIG,
                "there is no [[alert]]",
            ),
            (
                args(&broken, None, "2h", "*"),
                exit::CONFIG,
                "broken.toml:2:8: alert.name",
            ),
            (
                args(&rules, Some(&config), "30m", "*"),
                exit::USAGE,
                "--from is not before --to",
            ),
            (
                args(&rules, Some(&config), "soon", "*"),
                exit::USAGE,
                "--from soon: is none",
            ),
            (
                args(&rules, Some(&config), "2h", "[*"),
                exit::USAGE,
                "--stream [*: is no glob",
            ),
        ] {
            let failure = Settings::of(&args, NOW_MS).err().expect(words);
            assert_eq!(failure.code, code, "{failure}");
            assert!(failure.message.contains(words), "{failure}");
        }
    }
}
