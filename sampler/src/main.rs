//! The life of the process: arguments, configuration, kernel side, runtime, end.

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
};

use clap::Parser;
use sampler::{
    check,
    cli::{Cli, Command, DoctorArgs, RateCommand, RunArgs, TopArgs},
    config::Config,
    control::client,
    daemon::{self, Failure, Mode},
    doctor,
    kernel::{memory::Size, probe::Probe},
    top,
};
use service::exit;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let code = match cli.command {
        Command::Run(args) => run(&args),
        Command::Check(args) => check::run(
            &args,
            &mut std::io::stdout().lock(),
            &mut std::io::stderr().lock(),
        )
        .unwrap_or(exit::BUG),
        Command::Doctor(args) => examine(&args),
        Command::Top(args) => live(&args),
        Command::Rate(command) => rate(command),
    };
    ExitCode::from(code)
}

/// Logs go to standard error: standard output is the events'. Under systemd without colours
/// and times, which the journal adds.
fn telemetry() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal());
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.without_time().init();
    } else {
        builder.init();
    }
}

fn report(failure: &Failure) -> u8 {
    let more = if failure.detail.is_empty() {
        ""
    } else {
        tracing::debug!("{}", failure.detail);
        "; RUST_LOG=debug shows all that it said"
    };
    eprintln!("flowvitals-sampler: {}{more}", failure.message);
    failure.code
}

fn run(args: &RunArgs) -> u8 {
    telemetry();
    match try_run(args) {
        Ok(()) => exit::OK,
        Err(failure) => report(&failure),
    }
}

fn try_run(args: &RunArgs) -> Result<(), Failure> {
    let (config, mode) = match &args.config {
        Some(path) => (Config::load(path)?, Mode::File(path.clone())),
        None => {
            let config = Config::ad_hoc(&args.listen, args.rate).map_err(|wrong| Failure {
                code: exit::USAGE,
                message: format!("--listen: {} (allowed: {})", wrong.message, wrong.allowed),
                detail: String::new(),
            })?;
            (config, Mode::AdHoc)
        }
    };
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let prepared = daemon::prepare(config, mode, args.dry_run)?;
    if args.dry_run {
        return daemon::dry_run(&prepared, &mut std::io::stdout().lock()).map_err(bug);
    }
    runtime().map_err(bug)?.block_on(daemon::run(prepared))
}

fn bug(error: std::io::Error) -> Failure {
    Failure {
        code: exit::BUG,
        message: error.to_string(),
        detail: String::new(),
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}

fn examine(args: &DoctorArgs) -> u8 {
    let config = match args.config.as_deref().map(Config::load).transpose() {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return exit::CONFIG;
        }
    };
    let loaded = Probe::load(Size::new(1, 1));
    let trial = doctor::trial(loaded.as_ref(), config.as_ref());
    let subject = config.as_ref().map(doctor::Subject::of);
    let result = doctor::examine(&doctor::Machine::this(), subject.as_ref(), trial);
    let text = if args.json {
        result.to_json()
    } else {
        result.to_string()
    };
    if writeln!(std::io::stdout(), "{text}").is_err() {
        return exit::BUG;
    }
    result.exit_code()
}

fn rate(command: RateCommand) -> u8 {
    let (request, asking) = command.request();
    let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr().lock());
    client::run(&asking.socket, &request, asking.json, &mut out, &mut err).unwrap_or(exit::BUG)
}

fn live(args: &TopArgs) -> u8 {
    let result = runtime().map(|rt| rt.block_on(top::run(&args.url)));
    match result {
        Ok(Ok(())) => exit::OK,
        Ok(Err(error)) => {
            eprintln!("flowvitals-sampler: {error}");
            exit::BUG
        }
        Err(error) => {
            eprintln!("flowvitals-sampler: {error}");
            exit::BUG
        }
    }
}
