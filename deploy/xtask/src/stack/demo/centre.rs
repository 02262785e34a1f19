//! The live command centre: the built aggregator, a real Alertmanager, and a receiver that stands for the pager.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lab::alertmanager::webhook::{Notification, Webhook};
use lab::alertmanager::{Alertmanager, Options};
use lab::cassandra::{self, Cassandra};
use lab::clock;
use lab::netns::Namespace;
use lab::network::Network;

use crate::progress;

/// Where the aggregator answers, in the edge's namespace.
pub const HTTP: &str = "127.0.0.1:9741";

/// A running command centre; ended by force when dropped.
pub struct Centre {
    aggregator: Child,
    pager: Webhook,
    _alertmanager: Alertmanager,
    cassandra: Option<Cassandra>,
}

impl Centre {
    /// Starts everything in the edge's namespace and waits until the aggregator answers.
    pub fn start(
        network: &Network,
        folder: &Path,
        brokers: &[String],
        with_cassandra: bool,
    ) -> Result<Self> {
        let program = std::env::current_exe()?.with_file_name("flowvitals-aggregator");
        if !program.exists() {
            bail!(
                "{} is not built: cargo build --release -p aggregator",
                program.display()
            );
        }
        // A process and a socket live in the namespace in which they were made.
        let (pager, alertmanager) = network.server().run_in(|| -> Result<_> {
            let pager = Webhook::start()?;
            let options = Options {
                receivers: Some(pager.url()),
                ..Options::default()
            };
            let alertmanager = Alertmanager::start(&options)?;
            Ok((pager, alertmanager))
        })??;
        let file = folder.join("aggregator.toml");
        let cassandra = with_cassandra
            .then(|| start_cassandra(network))
            .transpose()?;
        let store = store(folder, cassandra.as_ref());
        fs::write(&file, config(&store, brokers, &alertmanager.url()))?;
        if cassandra.is_some() {
            make_tables(network, &program, &file)?;
        }
        let log = fs::File::create(folder.join("aggregator.log"))?;
        let aggregator = network
            .server()
            .command(&program)
            .args(["run", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C at the terminal is for us; we end it ourselves.
            .process_group(0)
            .spawn()
            .context("cannot start the aggregator")?;
        let mut centre = Self {
            aggregator,
            pager,
            _alertmanager: alertmanager,
            cassandra,
        };
        let answers = clock::wait_until(Duration::from_secs(30), || {
            centre.has_ended() || centre.get(network.server(), "/metrics").is_ok()
        });
        if !answers || centre.has_ended() {
            let log = fs::read_to_string(folder.join("aggregator.log")).unwrap_or_default();
            let last = log.lines().next_back().unwrap_or("it said nothing");
            bail!("the aggregator does not run: {last}");
        }
        Ok(centre)
    }

    /// The store, where it is a Cassandra.
    pub fn cassandra(&self) -> Option<&Cassandra> {
        self.cassandra.as_ref()
    }

    /// What the pager has got so far.
    pub fn notifications(&self) -> Vec<Notification> {
        self.pager.notifications()
    }

    /// The body of what the aggregator answers.
    pub fn get(&self, namespace: &Namespace, path: &str) -> Result<String> {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(HTTP)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            write!(stream, "GET {path} HTTP/1.0\r\nHost: {HTTP}\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = namespace.run_in(ask)??;
        let (_, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        Ok(body.to_owned())
    }

    fn has_ended(&mut self) -> bool {
        self.aggregator
            .try_wait()
            .is_ok_and(|status| status.is_some())
    }
}

impl Drop for Centre {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.aggregator.kill();
        let _ = self.aggregator.wait();
    }
}

/// One node, in the edge's namespace.
fn start_cassandra(network: &Network) -> Result<Cassandra> {
    println!("starting Cassandra (the first time its jars are fetched, 67 MB)");
    let options = cassandra::Options::default();
    progress::during("waiting for CQL", || {
        Cassandra::start(&options, Some(network.server())).context("no Cassandra")
    })
}

/// Makes the tables as an operator does.
fn make_tables(network: &Network, program: &Path, config: &Path) -> Result<()> {
    let mut command = network.server().command(program);
    command.args(["schema", "--apply", "--config"]).arg(config);
    let made = progress::during("making the tables", || command.output())?;
    if !made.status.success() {
        bail!("no tables: {}", String::from_utf8_lossy(&made.stderr));
    }
    Ok(())
}

/// Where the aggregator stores.
fn store(folder: &Path, cassandra: Option<&Cassandra>) -> String {
    cassandra.map_or_else(
        || format!("directory = {:?}", folder.join("store")),
        |cassandra| {
            format!(
                "kind = \"cassandra\"\ncontact_points = {:?}\nlocal_datacenter = \"{}\"",
                cassandra.contact_points(),
                cassandra::DATACENTER
            )
        },
    )
}

/// The aggregator's configuration: a page when even the lower end of 10 s is above 1 %.
fn config(store: &str, brokers: &[String], alertmanager: &str) -> String {
    format!(
        "site = \"demo\"\n\
         [kafka]\nbrokers = {brokers:?}\n\
         [store]\n{store}\n\
         [http]\nlisten = \"{HTTP}\"\n\
         [alertmanager]\nurls = [\"{alertmanager}\"]\n\
         [[alert]]\nname = \"retransmissions\"\nstreams = [\"*\"]\nmetric = \"retrans_ratio\"\n\
         over_s = 10\nabove = 0.01\nhold_s = 1\nclear_for_s = 5\n\
         annotations = {{ runbook_url = \"https://runbooks.example/retransmissions\" }}\n"
    )
}
