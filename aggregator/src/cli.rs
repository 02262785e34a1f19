//! The command line of `flowvitals-aggregator`.
//!
//! In: arguments. Out: typed ones; a wrong command line ends with exit code 2.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

const EXIT_CODES: &str = "\
Exit codes:
  0   done
  2   the command line is wrong
  69  something that is needed does not answer or cannot do it
  70  a bug in this program
  77  a privilege is missing
  78  the configuration is wrong (file:line:column, the option, what is allowed)";

/// Merges what the samplers of a site report, answers what all flows of a stream did, raises alerts.
#[derive(Debug, Parser)]
#[command(name = "flowvitals-aggregator", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),
    /// Say what is wrong with a configuration, and what a right one means
    #[command(after_help = CHECK_HELP)]
    Check(CheckArgs),
    /// Send one alert through every output, to see that somebody hears it
    #[command(name = "test-alert", after_help = TEST_ALERT_HELP)]
    TestAlert(TestAlertArgs),

    /// Say which alerts rules would have raised on what Kafka still holds
    #[command(after_help = BACKTEST_HELP)]
    Backtest(BacktestArgs),

    /// What has to do with rules of alerts
    #[command(subcommand)]
    Rules(RulesCommand),
    /// Print the tables of a Cassandra store, or make them
    #[command(after_help = SCHEMA_HELP)]
    Schema(SchemaArgs),
}

/// What is done with rules.
#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// Test rules on events that a file describes
    #[command(after_help = RULES_TEST_HELP)]
    Test(RulesTestArgs),
}

const RUN_HELP: &str = "\
Example:
  flowvitals-aggregator run --config /etc/flowvitals/aggregator.toml
      consumes from [kafka] brokers, answers on [http] listen; a second one beside it takes its
      share of the streams

Exit codes: 0 done, 2 usage, 70 bug, 77 privilege, 78 configuration";

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

const CHECK_HELP: &str = "\
Examples:
  flowvitals-aggregator check --config /etc/flowvitals/aggregator.toml
      what is wrong, or what it means: rules, streams, thresholds, groups, topics; also asks the
      brokers whether they answer and have the topics, and looks at the port
  flowvitals-aggregator check --config new.toml --offline
      the file only, for a machine that is not the aggregator's

A broker that does not answer and a topic that is not there are warnings: `run` waits for them.
Exit codes: 0 the configuration is right, 2 usage, 70 bug, 78 it is wrong";

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Neither ask the brokers nor look at this machine
    #[arg(long)]
    pub offline: bool,
}

const TEST_ALERT_HELP: &str = "\
Examples:
  flowvitals-aggregator test-alert --config /etc/flowvitals/aggregator.toml
      the alert FlowvitalsTest to the topic flowvitals.alert.v1 and to every Alertmanager, and what each of
      them said; it ends by itself after a minute, and in the topic at once
  flowvitals-aggregator test-alert --config /etc/flowvitals/aggregator.toml --severity page
      the same the way of a real page: somebody is woken

Exit codes: 0 every output took it, 2 usage, 69 one did not, 70 bug, 78 configuration";

/// Arguments of `test-alert`.
#[derive(Debug, Args)]
pub struct TestAlertArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Its label `severity`; "page" pages, with deploy/alertmanager's routes
    #[arg(long, value_name = "TEXT", default_value = "test")]
    pub severity: String,
}

const BACKTEST_HELP: &str = "\
Examples:
  flowvitals-aggregator backtest --rules /etc/flowvitals/aggregator.toml --from 2h
      the rules in force, on the last two hours: when each alert went on and for how long, its estimate
      and peak, and whether the running daemons said the same
  flowvitals-aggregator backtest --rules new.toml --config /etc/flowvitals/aggregator.toml \\
        --from 2026-11-22T19:45:00Z --to 2026-11-22T22:45:00Z --stream 'sport-*'
      other rules, the [[alert]] of new.toml, on one evening
  … --export incident.toml
      writes what was read as a test for `rules test`

Reading begins 15 minutes before --from, so that levels are learned. Nothing is written to Kafka, no group
is joined. An episode is known by rule and stream; of older ones the alert topic may have nothing left.

Exit codes: 0 done, 2 usage, 69 the brokers do not answer or a topic is missing, 70 bug, 78 a file is wrong";

/// Arguments of `backtest`.
#[derive(Debug, Args)]
pub struct BacktestArgs {
    /// The file whose alert rules are tried
    #[arg(long, value_name = "FILE")]
    pub rules: PathBuf,

    /// The configuration with site, kafka and merge, if the rules' file has none
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// First moment: a time of RFC 3339, or how long ago (2h); default: all that Kafka holds
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,

    /// Last moment, likewise; default: now
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,

    /// Only streams that a glob takes; may be given several times
    #[arg(long, value_name = "GLOB")]
    pub stream: Vec<String>,

    /// Write what was read as a test for `rules test`: this file, and the events beside it
    #[arg(long, value_name = "FILE.toml")]
    pub export: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

const RULES_TEST_HELP: &str = "\
Examples:
  flowvitals-aggregator rules test /etc/flowvitals/rules_test.toml
      every [[test]] of the file: what nodes do, and which alerts must be on at which moment; for one
      that fails what was expected, what came, and what was said when
  flowvitals-aggregator rules test --verbose incident.toml
      the same with what was said for those that pass too; `backtest --export incident.toml` writes
      such a file of what Kafka holds

deploy/config/rules_test.toml documents such a file.

Exit codes: 0 all pass, 1 a test failed, 2 usage, 70 bug, 78 a file is wrong";

/// Arguments of `rules test`.
#[derive(Debug, Args)]
pub struct RulesTestArgs {
    /// Files of tests
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// Say what was said for tests that pass too
    #[arg(long, short)]
    pub verbose: bool,
}

const SCHEMA_HELP: &str = "\
Examples:
  flowvitals-aggregator schema --config /etc/flowvitals/aggregator.toml --copies 3 | cqlsh 10.0.0.1
      for a ring, by somebody who may make keyspaces
  flowvitals-aggregator schema --config /etc/flowvitals/aggregator.toml --apply
      for a single node, as the user of [store]; applying again changes nothing

Exit codes: 0 done, 2 usage, 69 Cassandra does not answer or says no, 70 bug, 78 configuration";

/// Arguments of `schema`.
#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Make what is missing, instead of printing it
    #[arg(long)]
    pub apply: bool,
    /// Copies of every row, in a keyspace that is not there yet: 3 in a ring
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub copies: u8,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("flowvitals-aggregator").chain(line.split(' ')))
    }

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn good_lines() {
        let run = parse("run --config a.toml").expect("run").command;
        assert!(matches!(run, Command::Run(args) if args.config.as_os_str() == "a.toml"));
        for (line, offline) in [
            ("check --config a.toml", false),
            ("check --offline --config=a.toml", true),
        ] {
            let check = parse(line).expect(line).command;
            assert!(
                matches!(check, Command::Check(args) if args.offline == offline),
                "{line}"
            );
        }
    }

    #[test]
    fn wrong_lines_end_with_2() {
        for line in [
            "run",
            "run --config",
            "run --config a.toml --offline",
            "run a.toml",
            "check",
            "check --offline",
            "check --config a.toml --diff b.toml",
            "schema",
            "schema --config a.toml --copies 0",
            "merge",
            "test-alert",
            "test-alert --config a.toml b.toml",
            "backtest",
            "backtest --config a.toml",
            "rules",
            "rules test",
            "rules check a.toml",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), i32::from(service::exit::USAGE), "{line}");
        }
    }

    #[test]
    fn help_says_the_exit_codes() {
        for line in [
            "--help",
            "run --help",
            "check --help",
            "test-alert --help",
            "rules test --help",
            "backtest --help",
            "schema --help",
        ] {
            let help = parse(line).expect_err(line);
            assert_eq!(help.exit_code(), 0, "{line}");
            assert!(help.to_string().contains("78"), "{line}: {help}");
        }
    }
}
