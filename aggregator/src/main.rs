//! The life of the process: arguments, configuration, runtime, end.

use std::io::{IsTerminal, stderr, stdout};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use aggregator::cli::{Cli, Command, RulesCommand, RunArgs};
use aggregator::config::Config;
use aggregator::{backtest, check, daemon, rule_test, schema, test_alert};
use clap::Parser;
use service::exit;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let code = match &Cli::parse().command {
        Command::Run(args) => run(args),
        Command::Check(args) => {
            check::run(args, &mut stdout().lock(), &mut stderr().lock()).unwrap_or(exit::BUG)
        }
        Command::TestAlert(args) => {
            let (out, err) = (&mut stdout().lock(), &mut stderr().lock());
            test_alert::run(args, out, err).unwrap_or(exit::BUG)
        }
        Command::Backtest(args) => {
            let unix = SystemTime::now().duration_since(UNIX_EPOCH);
            let now_ms = unix.unwrap_or_default().as_millis() as u64;
            let watched = stderr().is_terminal();
            let (out, err) = (&mut stdout().lock(), &mut stderr().lock());
            backtest::run(args, now_ms, watched, out, err).unwrap_or(exit::BUG)
        }
        Command::Rules(RulesCommand::Test(args)) => {
            let (out, err) = (&mut stdout().lock(), &mut stderr().lock());
            rule_test::run(args, out, err).unwrap_or(exit::BUG)
        }
        Command::Schema(args) => {
            schema::run(args, &mut stdout().lock(), &mut stderr().lock()).unwrap_or(exit::BUG)
        }
    };
    ExitCode::from(code)
}

fn run(args: &RunArgs) -> u8 {
    telemetry();
    match try_run(args) {
        Ok(()) => exit::OK,
        Err(failure) => {
            eprintln!("flowvitals-aggregator: {failure}");
            failure.code
        }
    }
}

fn try_run(args: &RunArgs) -> Result<(), daemon::Failure> {
    let config = Config::load(&args.config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| daemon::Failure {
            code: exit::BUG,
            message: error.to_string(),
        })?;
    runtime.block_on(daemon::run(config))
}

/// What is logged. The driver of Cassandra tells of every attempt at a connection; the store says what comes of them.
const LOGGED: &str = "info,scylla=error";

/// Logs go to standard error; under systemd without times, which the journal adds.
fn telemetry() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOGGED));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_target(false)
        .with_ansi(stderr().is_terminal());
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.without_time().init();
    } else {
        builder.init();
    }
}
