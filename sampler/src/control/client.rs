//! `rate set`, `rate unset` and `rate list`: the other end of the control socket.
//!
//! Input: a request and where the daemon listens. Output: text (or JSON) on the given writers, and the exit status.
//! Limits: `PATIENCE` for the answer.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp, Unit};
use nix::unistd::{Uid, User};
use service::exit;

use super::wire::{Answer, Overridden, Refusal, Request};

/// How long the daemon may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket may not be used.
    #[error(
        "{} may be used by root and by members of the service's group only: use sudo, or `usermod -aG flowvitals USER` and a new login",
        .0.display()
    )]
    NotAllowed(PathBuf),
    /// Nobody is there.
    #[error("no sampler answers at {} ({source}): is the service running, and is this its [control] socket?", .path.display())]
    NobodyThere {
        /// Where it was asked.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// It did not answer.
    #[error("the sampler at {} did not answer: {source}", .path.display())]
    NoAnswer {
        /// Where it was asked.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// It said something else.
    #[error("the answer is not understood ({0}): are client and daemon of the same version?")]
    Strange(serde_json::Error),
}

impl ClientError {
    /// The exit status that says it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotAllowed(_) => exit::NO_PRIVILEGE,
            Self::NobodyThere { .. } | Self::NoAnswer { .. } => exit::UNSUPPORTED,
            Self::Strange(_) => exit::BUG,
        }
    }
}

/// Asks the daemon at `socket`.
///
/// # Errors
/// See [`ClientError`].
pub fn ask(socket: &Path, request: &Request) -> Result<Answer, ClientError> {
    let path = || socket.to_owned();
    let mut stream = UnixStream::connect(socket).map_err(|source| match source.kind() {
        ErrorKind::PermissionDenied => ClientError::NotAllowed(path()),
        _ => ClientError::NobodyThere {
            path: path(),
            source,
        },
    })?;
    let text = serde_json::to_string(request).map_err(ClientError::Strange)?;
    let mut talk = || {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        writeln!(stream, "{text}")?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        match answer.is_empty() {
            true => Err(ErrorKind::UnexpectedEof.into()),
            false => Ok(answer),
        }
    };
    let answer = talk().map_err(|source| ClientError::NoAnswer {
        path: path(),
        source,
    })?;
    serde_json::from_slice(&answer).map_err(ClientError::Strange)
}

/// Asks, and says what came of it. `json`: the answer as it is.
///
/// # Errors
/// What writing says.
pub fn run(
    socket: &Path,
    request: &Request,
    json: bool,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<u8> {
    match ask(socket, request) {
        Ok(Answer::Overrides(overrides)) => {
            if json {
                writeln!(out, "{}", serde_json::to_string(&overrides)?)?;
            } else {
                out.write_all(said(request, &overrides).as_bytes())?;
            }
            Ok(exit::OK)
        }
        Ok(Answer::Refused(Refusal { message, code })) => {
            writeln!(err, "flowvitals-sampler: {message}")?;
            Ok(code)
        }
        Err(error) => {
            writeln!(err, "flowvitals-sampler: {error}")?;
            Ok(error.exit_code())
        }
    }
}

/// What was done, for a person.
fn said(request: &Request, overrides: &[Overridden]) -> String {
    let of = |stream: &str| overrides.iter().find(|set| set.stream == stream);
    match request {
        Request::Set { stream, .. } => of(stream).map(set_line).unwrap_or_default(),
        Request::Unset { stream } => format!("{stream}: the configured rate again\n"),
        Request::List => table(overrides),
    }
}

fn set_line(set: &Overridden) -> String {
    let Overridden {
        stream,
        rate,
        configured_rate,
        until_ms,
        left_ms,
        ..
    } = set;
    let (until, left) = (time(*until_ms), span(*left_ms));
    let mut line = format!(
        "{stream}: rate {rate} for new flows until {until} (in {left}), then {configured_rate} again\n"
    );
    if is_halved(set) {
        let now = set.new_flows_rate;
        line.push_str(&format!(
            "rates are halved at present: new flows are selected at {now}\n"
        ));
    }
    line
}

/// Whether new flows are selected at less than was asked for; the kernel side's form of a rate rounds a little.
fn is_halved(set: &Overridden) -> bool {
    set.new_flows_rate < set.rate * 0.75
}

fn table(overrides: &[Overridden]) -> String {
    if overrides.is_empty() {
        return "no rate is set: every stream has its configured one\n".to_owned();
    }
    let mut text = format!(
        "{:<24} {:>7} {:>10} {:>9}  {:<20} {:<10} by\n",
        "stream", "rate", "configured", "new flows", "until", "left"
    );
    for set in overrides {
        text.push_str(&format!(
            "{:<24} {:>7} {:>10} {:>9}  {:<20} {:<10} {}\n",
            set.stream,
            set.rate,
            set.configured_rate,
            (set.new_flows_rate * 1e6).round() / 1e6,
            time(set.until_ms),
            span(set.left_ms),
            user(set.by.uid),
        ));
    }
    text
}

fn user(uid: u32) -> String {
    let known = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    known.map_or_else(|| format!("uid {uid}"), |user| user.name)
}

/// A time to the second, RFC 3339.
fn time(ms: u64) -> String {
    let second = i64::try_from(ms / 1000).ok();
    let time = second.and_then(|s| Timestamp::from_second(s).ok());
    time.map_or_else(|| format!("{ms} ms"), |time| time.to_string())
}

/// A time span to the second, as `15m`.
fn span(ms: u64) -> String {
    let whole = SignedDuration::from_millis(i64::try_from(ms).unwrap_or(i64::MAX));
    let rounded = whole.round(Unit::Second).unwrap_or(whole);
    format!("{rounded:#}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::wire::Peer;

    fn set() -> Overridden {
        Overridden {
            stream: "sport-1".into(),
            rate: 0.5,
            configured_rate: 0.25,
            new_flows_rate: 0.5,
            left_ms: 899_990,
            until_ms: 1_795_376_700_000,
            by: Peer { uid: 0, pid: 1 },
        }
    }

    #[test]
    fn what_was_done_is_said() {
        let request = Request::Set {
            stream: "sport-1".into(),
            rate: 0.5,
            for_ms: 900_000,
        };
        assert_eq!(
            said(&request, &[set()]),
            "sport-1: rate 0.5 for new flows until 2026-11-22T19:45:00Z (in 15m), then 0.25 again\n"
        );
        let halved = Overridden {
            new_flows_rate: 0.125,
            ..set()
        };
        assert!(said(&request, &[halved]).contains("selected at 0.125"));
        assert!(said(&Request::List, &[]).contains("no rate is set"));
        let table = said(&Request::List, &[set()]);
        assert!(table.contains("15m") && table.contains("root"), "{table}");
    }

    #[test]
    fn nobody_there_is_said_with_its_status() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("no.sock");
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(&path, &Request::List, false, &mut out, &mut err).expect("written");
        let err = String::from_utf8(err).expect("text");
        assert_eq!((code, out.len()), (exit::UNSUPPORTED, 0));
        assert!(err.contains("no sampler answers at"), "{err}");
        let denied = ClientError::NotAllowed(path);
        assert_eq!(denied.exit_code(), exit::NO_PRIVILEGE);
        assert!(denied.to_string().contains("service's group"));
    }
}
