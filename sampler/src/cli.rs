//! The command line of `flowvitals-sampler`.
//!
//! In: arguments. Out: typed ones; a wrong command line ends with exit code 2.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgGroup, Args, Parser, Subcommand};

use crate::config::{CONTROL_SOCKET, LocalPattern, Wrong};
use crate::control::wire::{MAX_FOR_MS, MIN_FOR_MS, Request};

const EXIT_CODES: &str = "\
Exit codes:
  0   done
  2   the command line is wrong
  69  this kernel cannot do it
  70  a bug in this program
  75  start it again: the disable file is gone (see [limits] disable_file)
  77  a privilege is missing
  78  the configuration is wrong (file:line:column, the option, what is allowed)";

/// Samples live TCP flows in the kernel and reports the vital signs of every stream.
#[derive(Debug, Parser)]
#[command(name = "flowvitals-sampler", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon, or sample ad hoc without a file
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),
    /// Say what is wrong with a configuration, and what a right one means
    #[command(after_help = CHECK_HELP)]
    Check(CheckArgs),
    /// Say what this kernel and these privileges allow, and what to do about each "no"
    #[command(after_help = DOCTOR_HELP)]
    Doctor(DoctorArgs),
    /// Live view of a running sampler
    #[command(after_help = TOP_HELP)]
    Top(TopArgs),
    /// Change the sampling rate of a stream for a while, live
    #[command(subcommand, after_help = RATE_HELP)]
    Rate(RateCommand),
}

const RUN_HELP: &str = "\
Examples:
  flowvitals-sampler run --config /etc/flowvitals/sampler.toml
      the daemon; without [kafka] brokers, events go to standard output as JSON lines
  flowvitals-sampler run --config /etc/flowvitals/sampler.toml --dry-run
      attach, count every flow, sample none, print the load to expect
  flowvitals-sampler run --listen '*:443' --rate 1
      no file: a table per second at a terminal, JSON lines into a pipe

Signals: SIGTERM folds open flows, closes the last window and flushes; SIGHUP reloads.
Exit codes: 0 done, 2 usage, 69 kernel, 70 bug, 75 start again, 77 privilege, 78 configuration";

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["config", "listen"]))]
pub struct RunArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Sample flows to these local addresses and ports, without a file; may be repeated
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "config")]
    pub listen: Vec<LocalPattern>,
    /// Share of the flows to sample with --listen, 0 to 1
    #[arg(long, value_name = "RATE", default_value = "1", value_parser = rate, conflicts_with = "config")]
    pub rate: f64,
    /// Count the population, sample no flow, print what sampling would cost
    #[arg(long)]
    pub dry_run: bool,
}

const CHECK_HELP: &str = "\
Examples:
  flowvitals-sampler check --config /etc/flowvitals/sampler.toml
      what is wrong, or what it means; also looks at the key, cgroups, the metrics port and the
      state directory of this machine
  flowvitals-sampler check --config new.toml --offline
      the files only, for a machine that is not the node
  flowvitals-sampler check --config new.toml --diff /etc/flowvitals/sampler.toml
      what a reload would change, and what that means for flows that live
  flowvitals-sampler check --config new.toml --explain 203.0.113.7:443 --client 198.51.100.9:50000
      which stream takes this flow, why others do not, and whether it is in the sample

Exit codes: 0 the configuration is right, 2 usage, 70 bug, 78 it is wrong";

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Do not look at this machine: no key, no cgroups, no port, no directory
    #[arg(long)]
    pub offline: bool,
    /// Say which stream takes a flow to this local end
    #[arg(long, value_name = "LOCAL", requires = "client")]
    pub explain: Option<SocketAddr>,
    /// The client's end of that flow; without a port, selection cannot be told
    #[arg(long, value_name = "REMOTE", requires = "explain")]
    pub client: Option<Client>,
    /// The listener's cgroup of that flow
    #[arg(long, value_name = "PATH", requires = "explain")]
    pub cgroup: Option<String>,
    /// The mark of that flow
    #[arg(long, value_name = "MARK", requires = "explain", default_value_t = 0)]
    pub mark: u32,
    /// Say what changes against this older file
    #[arg(long, value_name = "OLD")]
    pub diff: Option<PathBuf>,
}

const DOCTOR_HELP: &str = "\
Examples:
  flowvitals-sampler doctor
  flowvitals-sampler doctor --config /etc/flowvitals/sampler.toml --json

Exit codes: 0 it would run, 2 usage, 69 the kernel cannot do it, 77 a privilege is missing,
78 the configuration is wrong";

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Also say what this configuration would sample here
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

const TOP_HELP: &str = "\
Examples:
  flowvitals-sampler top
  flowvitals-sampler top --url http://127.0.0.1:9740

At a terminal: q ends. Into a pipe: one table, then exit.
Exit codes: 0 done, 2 usage, 70 bug";

/// Arguments of `top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Where the sampler's metrics are
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9740")]
    pub url: String,
}

const RATE_HELP: &str = "\
Examples:
  flowvitals-sampler rate set sport-1 1 --for 15m
      every new flow of sport-1 for a quarter of an hour, then the configured rate again; open flows
      keep the rate they were admitted under
  flowvitals-sampler rate list
  flowvitals-sampler rate unset sport-1

The daemon logs who asked. A rate that is set holds over a reload, unless the stream is gone, and ends
with a restart of the daemon. Root and members of the service's group (flowvitals) may ask.
Exit codes: 0 done, 2 usage or no such stream, 69 no sampler there or not now, 70 bug, 77 not allowed";

/// What `rate` does.
#[derive(Debug, Subcommand)]
pub enum RateCommand {
    /// Sample new flows of a stream at another rate, with automatic return
    #[command(after_help = RATE_HELP)]
    Set {
        /// Name of the stream
        stream: String,
        /// Share of new flows to sample, 0 to 1
        #[arg(value_parser = rate)]
        rate: f64,
        /// For how long, such as 90s, 15m or 2h; at most 24h
        #[arg(long = "for", value_name = "TIME", value_parser = for_ms)]
        for_ms: u64,
        /// How to ask
        #[command(flatten)]
        asking: Asking,
    },
    /// Return to the configured rate of a stream now
    Unset {
        /// Name of the stream
        stream: String,
        /// How to ask
        #[command(flatten)]
        asking: Asking,
    },
    /// Show the rates that are set, until when and by whom
    List {
        /// How to ask
        #[command(flatten)]
        asking: Asking,
    },
}

/// How a running daemon is asked.
#[derive(Debug, Args)]
pub struct Asking {
    /// Where it listens (`[control] socket`)
    #[arg(long, value_name = "PATH", default_value = CONTROL_SOCKET)]
    pub socket: PathBuf,
    /// All rates that are set afterwards, as JSON
    #[arg(long)]
    pub json: bool,
}

impl RateCommand {
    /// What the daemon is asked, and how.
    pub fn request(self) -> (Request, Asking) {
        match self {
            Self::Set {
                stream,
                rate,
                for_ms,
                asking,
            } => (
                Request::Set {
                    stream,
                    rate,
                    for_ms,
                },
                asking,
            ),
            Self::Unset { stream, asking } => (Request::Unset { stream }, asking),
            Self::List { asking } => (Request::List, asking),
        }
    }
}

fn for_ms(text: &str) -> Result<u64, Wrong> {
    const ALLOWED: &str = "1s to 24h, such as 90s, 15m or 1h30m";
    let time = text.parse::<jiff::SignedDuration>();
    let ms = time
        .ok()
        .and_then(|time| u64::try_from(time.as_millis()).ok());
    match ms {
        Some(ms @ MIN_FOR_MS..=MAX_FOR_MS) => Ok(ms),
        Some(_) => Err(Wrong::new(format!("`{text}` is out of range"), ALLOWED)),
        None => Err(Wrong::new(format!("`{text}` is no time span"), ALLOWED)),
    }
}

fn rate(text: &str) -> Result<f64, Wrong> {
    let wrong = || Wrong::new(format!("`{text}` is no rate"), "a number from 0 to 1");
    let rate = text.parse().map_err(|_| wrong())?;
    crate::config::check_rate(rate)
}

/// A client's address, with or without its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// Address.
    pub address: IpAddr,
    /// Port, if given.
    pub port: Option<u16>,
}

impl FromStr for Client {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        if let Ok(both) = text.parse::<SocketAddr>() {
            return Ok(Self {
                address: both.ip(),
                port: Some(both.port()),
            });
        }
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(text);
        match bare.parse() {
            Ok(address) => Ok(Self {
                address,
                port: None,
            }),
            Err(_) => Err(Wrong::new(
                format!("`{text}` is not a client's address"),
                "198.51.100.9:50000, [2001:db8::9]:50000, or without a port",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("flowvitals-sampler").chain(line.split(' ')))
    }

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn good_lines() {
        for line in [
            "run --config a.toml",
            "run --config a.toml --dry-run",
            "run --listen *:443 --rate 1",
            "run --listen *:443 --listen [2001:db8::7]:80",
            "check --config a.toml --offline --diff b.toml",
            "check --config a.toml --explain 203.0.113.7:443 --client 198.51.100.9:50000",
            "check --config a.toml --explain [::1]:443 --client ::1 --mark 7 --cgroup /a",
            "doctor",
            "doctor --json --config a.toml",
            "top --url http://127.0.0.1:1",
            "rate set sport-1 0.5 --for 15m",
            "rate set sport-1 1 --for 1h30m --socket /run/a.sock --json",
            "rate unset sport-1",
            "rate list --json",
        ] {
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn wrong_lines_end_with_2() {
        for line in [
            "run",
            "run --config a.toml --listen *:443",
            "run --config a.toml --rate 0.5",
            "run --rate 0.5",
            "run --listen *:0",
            "run --listen *:443 --rate 1.5",
            "run --listen *:443 --rate NaN",
            "run --listen *:443 --rate x",
            "check",
            "check --config a.toml --explain 203.0.113.7:443",
            "check --config a.toml --client 198.51.100.9:50000",
            "check --config a.toml --explain 203.0.113.7 --client 198.51.100.9",
            "check --config a.toml --explain 203.0.113.7:443 --client x",
            "check --config a.toml --mark 7",
            "flood",
            "rate",
            "rate set sport-1 0.5",
            "rate set sport-1 0.5 --for 15",
            "rate set sport-1 0.5 --for -15m",
            "rate set sport-1 0.5 --for 25h",
            "rate set sport-1 0.5 --for 10ms",
            "rate set sport-1 1.5 --for 15m",
            "rate set 0.5 --for 15m",
            "rate unset",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), i32::from(service::exit::USAGE), "{line}");
        }
    }

    #[test]
    fn clients_with_and_without_port() {
        let check = |text: &str, address: &str, port| {
            let expected = Client {
                address: address.parse().unwrap(),
                port,
            };
            assert_eq!(text.parse::<Client>().unwrap(), expected);
        };
        check("198.51.100.9:50000", "198.51.100.9", Some(50_000));
        check("198.51.100.9", "198.51.100.9", None);
        check("[2001:db8::9]:1", "2001:db8::9", Some(1));
        check("[2001:db8::9]", "2001:db8::9", None);
        check("2001:db8::9", "2001:db8::9", None);
    }
}
