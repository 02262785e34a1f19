//! Runs the system's own tools (`ip`, `iptables-legacy-restore`, …) and keeps what they complain about.

use std::io::Write;
use std::process::{Command, Output, Stdio};

/// A tool that could not be run, or that ran and said no.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The tool is absent or could not be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// Name of the tool.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The tool ended with a status other than 0.
    #[error("{program} {arguments} failed ({status}): {stderr}")]
    Failed {
        /// Name of the tool.
        program: String,
        /// Its arguments, joined by spaces.
        arguments: String,
        /// Its exit status as text.
        status: String,
        /// Its error output, trimmed.
        stderr: String,
    },
}

/// Runs the command to its end; its standard output as text.
///
/// # Errors
/// When it cannot be started or does not exit with 0.
pub fn run(command: &mut Command) -> Result<String, CommandError> {
    run_with_input(command, "")
}

/// Like [`run`], with `input` on its standard input.
///
/// # Errors
/// When it cannot be started or does not exit with 0.
pub fn run_with_input(command: &mut Command, input: &str) -> Result<String, CommandError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let start = |source| CommandError::Start {
        program: program.clone(),
        source,
    };
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(start)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that ends without reading its input says more by its status than by this error.
        let _ = stdin.write_all(input.as_bytes());
    }
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().map_err(start)?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
    Err(CommandError::Failed {
        program,
        arguments: arguments.join(" "),
        status: status.to_string(),
        stderr: String::from_utf8_lossy(&stderr).trim().to_owned(),
    })
}

/// `ip` with these space-separated arguments.
///
/// # Errors
/// As [`run`].
pub fn ip(arguments: &str) -> Result<String, CommandError> {
    run(Command::new("ip").args(arguments.split_whitespace()))
}
