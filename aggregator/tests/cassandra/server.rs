//! The nodes of the tests: one with login and TLS, or several plain ones.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use aggregator::config::Config;
use lab::cassandra::{self, Options, PASSWORD, USER};
use lab::server::ServerError;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;

/// On a loaded machine of two cores, with some room.
const PATIENCE: Duration = Duration::from_secs(120);

/// Running nodes, and files for their clients.
pub struct Server {
    nodes: cassandra::Cassandra,
    folder: tempfile::TempDir,
    login: bool,
}

impl Server {
    /// One with login and TLS. None where it cannot be started and need not be.
    pub fn secured() -> Option<Self> {
        Self::start(&Options {
            login: true,
            tls: true,
            ..Options::default()
        })
    }

    /// So many, open to everybody on this machine. None where they cannot be started and need not be.
    pub fn plain(nodes: usize) -> Option<Self> {
        Self::start(&Options {
            nodes,
            ..Options::default()
        })
    }

    fn start(options: &Options) -> Option<Self> {
        // In a thread of its own: it asks the nodes by a runtime of its own.
        let started = std::thread::scope(|scope| {
            let start = scope.spawn(|| cassandra::Cassandra::start(options, None));
            start.join().expect("no panic")
        });
        match started {
            Ok(nodes) => Some(Self {
                nodes,
                folder: tempfile::tempdir().expect("a folder"),
                login: options.login,
            }),
            Err(ServerError::Command(error))
                if std::env::var_os("FLOWVITALS_REQUIRE_KERNEL").is_none() =>
            {
                println!("skipped: {error}");
                None
            }
            Err(error) => panic!("no node: {error}"),
        }
    }

    /// A configuration with which everything is right, once the tables are there.
    pub fn config(&self) -> Config {
        let mut config = Config {
            site: super::SITE.to_owned(),
            ..Config::default()
        };
        config.store.contact_points = self.nodes.contact_points();
        if self.login {
            config.store.username = Some(USER.to_owned());
            config.store.password_file = Some(self.file("password", &format!("{PASSWORD}\n")));
        }
        config.store.tls_ca = self.nodes.certificate().map(PathBuf::from);
        config
    }

    /// A file of its own with a text.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    /// A certificate that has signed nothing of the node's.
    pub fn foreign_certificate(&self) -> PathBuf {
        let (store, pem) = ("foreign.p12", self.folder.path().join("foreign.pem"));
        let store = self.folder.path().join(store);
        let keytool = |arguments: &[&str]| {
            let mut keytool = Command::new("keytool");
            keytool
                .args(arguments)
                .args(["-alias", "node", "-storepass", "flowvitals"]);
            let output = keytool.arg("-keystore").arg(&store).output();
            assert!(output.expect("keytool").status.success());
        };
        keytool(&["-genkeypair", "-keyalg", "EC", "-dname", "CN=foreign"]);
        let file = pem.to_string_lossy();
        keytool(&["-exportcert", "-rfc", "-file", &*file]);
        pem
    }

    /// A client of its own, for what the store does not ask.
    pub async fn session(&self) -> Session {
        let session = SessionBuilder::new()
            .known_nodes(self.nodes.contact_points())
            .user(USER, PASSWORD);
        session.build().await.expect("a session")
    }

    /// SIGKILL to a node, counted from 1.
    pub fn kill(&mut self, id: usize) {
        self.nodes.kill(id);
    }

    /// On the old data.
    pub fn restart(&mut self, id: usize) {
        self.nodes.restart(id, None).expect("back");
    }

    /// Ends the only node orderly; the bytes of each table's files.
    pub fn table_bytes(&mut self) -> BTreeMap<String, u64> {
        self.nodes.drain();
        let tables = std::fs::read_dir(self.nodes.data(1).join("flowvitals")).expect("tables");
        let sizes = tables.map(|table| {
            let table = table.expect("a table");
            let name = table.file_name().to_string_lossy().into_owned();
            let name = name.split_once('-').expect("name and id").0.to_owned();
            let files = std::fs::read_dir(table.path()).expect("files");
            let bytes = files.map(|file| file.and_then(|file| file.metadata()).expect("a file"));
            (
                name,
                bytes.filter(Metadata::is_file).map(|file| file.len()).sum(),
            )
        });
        sizes.collect()
    }

    /// Waits until something is true.
    pub async fn until(&self, what: &str, mut is_true: impl AsyncFnMut() -> bool) {
        let start = Instant::now();
        while !is_true().await {
            assert!(
                start.elapsed() < PATIENCE,
                "not within {PATIENCE:?}: {what}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
