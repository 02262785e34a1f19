//! Runs tools for the commands.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Runs a tool to its end; its output, or what it complained about.
pub fn output(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        bail!(
            "{shown} failed ({}):\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a tool whose output the user should see.
pub fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command
        .status()
        .with_context(|| format!("cannot start {program}"))?;
    if !status.success() {
        bail!("{command:?} failed ({status})");
    }
    Ok(())
}

/// Goes on as a tool: Ctrl-C waits for its end, and its exit code is ours. Returns only if it cannot be started.
pub fn go_on_as(command: &mut Command) -> Result<()> {
    let error = command.exec();
    let program = command.get_program().to_string_lossy();
    Err(error).with_context(|| format!("cannot start {program}"))
}

/// Cargo itself, with the environment of the toolchain that runs this command.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(crate::paths::root());
    command
}
