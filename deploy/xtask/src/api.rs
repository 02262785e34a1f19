//! `cargo xtask api`: the HTTP interface, tried by schemathesis with what its OpenAPI document allows and forbids.
//!
//! The server is the real one over a site whose nodes report every second, on a free port of the loopback. schemathesis comes from
//! PyPI, every package in a pinned version, into a virtual environment below target/. Nothing else is changed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::{paths, process};

/// Cases of an operation in a phase at most: all phases together take less than a minute.
const MAX_EXAMPLES: &str = "150";
/// Times that requests mostly ask for, seconds before the start.
const MOMENTS_S: [u64; 11] = [0, 1, 5, 10, 20, 30, 45, 59, 300, 1_000, 100_000];

/// Tries it; fails where an answer is not what the document says.
pub fn run() -> Result<()> {
    let program = schemathesis()?;
    process::run(process::cargo().args([
        "build",
        "--quiet",
        "--package",
        "aggregator",
        "--example",
        "api_site",
    ]))?;
    let folder = paths::target().join("xtask-api");
    fs::create_dir_all(&folder)?;
    let config = folder.join("schemathesis.toml");
    let settled = fs::read_to_string(source("schemathesis.toml"))?;
    fs::write(&config, settled + &moments())?;
    let mut server = Server::start()?;
    let mut tests = Command::new(program);
    tests.arg("--config-file").arg(&config).args([
        "run",
        "--no-color",
        "--checks=all",
        "--generation-deterministic",
        "--max-examples",
        MAX_EXAMPLES,
    ]);
    tests.arg(format!("{}/openapi.json", server.url));
    let tried = process::run(tests.current_dir(&folder));
    server.still_runs()?;
    tried
}

fn source(name: &str) -> PathBuf {
    paths::root().join("aggregator/tests").join(name)
}

/// The dictionary of times, which the rest of the configuration names.
fn moments() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_s = since.unwrap_or_default().as_secs();
    let values = MOMENTS_S.map(|before_s| format!("{}000", now_s.saturating_sub(before_s)));
    format!(
        "\n[dictionaries.moments]\nvalues = [{}]\n",
        values.join(", ")
    )
}

/// The program, installed if it is not there in these very versions.
fn schemathesis() -> Result<PathBuf> {
    let folder = paths::target().join("schemathesis");
    let wanted = fs::read_to_string(source("schemathesis.txt"))?;
    let installed = folder.join("installed.txt");
    if fs::read_to_string(&installed).is_ok_and(|found| found == wanted) {
        return Ok(folder.join("bin/schemathesis"));
    }
    println!("installing schemathesis below {}", folder.display());
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    process::output(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    let mut install = Command::new(folder.join("bin/python"));
    install.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]);
    install.arg("--no-deps").arg("--requirement");
    process::output(install.arg(source("schemathesis.txt")))?;
    fs::write(&installed, wanted)?;
    Ok(folder.join("bin/schemathesis"))
}

/// The server under test; ends with its standard input.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start() -> Result<Self> {
        let program: &Path = &paths::target().join("debug/examples/api_site");
        let mut child = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| program.display().to_string())?;
        let output = child.stdout.take().context("it has a standard output")?;
        let mut url = String::new();
        BufReader::new(output).read_line(&mut url)?;
        let url = url.trim().to_owned();
        let server = Self { child, url };
        if server.url.is_empty() {
            bail!("{} did not say where it answers", program.display());
        }
        Ok(server)
    }

    fn still_runs(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the server ended meanwhile ({status})"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
