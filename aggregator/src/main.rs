//! The life of the process: arguments, configuration, runtime, end.

use std::io::{IsTerminal, stderr, stdout};
use std::process::ExitCode;

use aggregator::cli::{Cli, Command, RulesCommand, RunArgs};
use aggregator::config::Config;
use aggregator::{check, daemon, rule_test, schema, test_alert};
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

/// Logs go to standard error; under systemd without times, which the journal adds.
fn telemetry() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
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
