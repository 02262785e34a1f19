//! The settings of each node, and the key that TLS needs.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::KIND;
use crate::command;
use crate::server::{ServerError, file_error};

/// Opens the key store; it protects nothing that another machine could reach.
const STORE_PASSWORD: &str = "flowvitals";

/// The loopback address of node `id`, counted from 1.
pub(super) fn address(id: usize) -> IpAddr {
    let last = u8::try_from(id).unwrap_or(u8::MAX);
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
}

/// What all nodes share.
pub(super) struct Setup {
    pub(super) nodes: usize,
    pub(super) cql_port: u16,
    pub(super) storage_port: u16,
    pub(super) login: bool,
    /// Key store for TLS; none: no TLS.
    pub(super) key_store: Option<PathBuf>,
}

impl Setup {
    /// Writes the settings of node `id` into its folder, without data of an earlier life.
    pub(super) fn write_node(&self, id: usize, place: &Path) -> Result<(), ServerError> {
        if place.exists() {
            fs::remove_dir_all(place).map_err(file_error(place))?;
        }
        fs::create_dir_all(place).map_err(file_error(place))?;
        let template = KIND.deploy_folder().join("cassandra.yaml.in");
        let text = fs::read_to_string(&template).map_err(file_error(&template))?;
        let path = place.join("cassandra.yaml");
        fs::write(&path, self.fill(&text, id)).map_err(file_error(&path))
    }

    fn fill(&self, template: &str, id: usize) -> String {
        let seeds = (1..=self.nodes).map(|id| format!("{}:{}", address(id), self.storage_port));
        let commitlog_sync = match self.nodes {
            1 => "commitlog_sync: batch",
            _ => "commitlog_sync: periodic\ncommitlog_sync_period: 10000ms",
        };
        let login = match self.login {
            true => "authenticator: PasswordAuthenticator\nauthorizer: CassandraAuthorizer",
            false => "authenticator: AllowAllAuthenticator",
        };
        let tls = self.key_store.as_deref().map_or_else(String::new, tls);
        let words = [
            ("{token}", self.token(id).to_string()),
            ("{seeds}", seeds.collect::<Vec<_>>().join(",")),
            ("{address}", address(id).to_string()),
            ("{storage_port}", self.storage_port.to_string()),
            ("{cql_port}", self.cql_port.to_string()),
            ("{commitlog_sync}", commitlog_sync.to_owned()),
            ("{login}", login.to_owned()),
            ("{tls}", tls),
        ];
        words
            .iter()
            .fold(template.to_owned(), |text, (word, value)| {
                text.replace(word, value)
            })
    }

    /// Tokens at equal distances: every node owns as much as the others.
    fn token(&self, id: usize) -> i128 {
        let step = (1_i128 << 64) / self.nodes.max(1) as i128;
        i128::from(i64::MIN) + step * (id as i128 - 1)
    }
}

/// TLS for those clients who ask for it, on the one port.
fn tls(key_store: &Path) -> String {
    format!(
        "client_encryption_options:\n  enabled: true\n  optional: true\n  keystore: {}\n  \
         keystore_password: {STORE_PASSWORD}\n  store_type: PKCS12",
        key_store.display()
    )
}

/// Makes a key with a certificate that signs itself: the key store, and the certificate as PEM.
pub(super) fn make_key(folder: &Path) -> Result<(PathBuf, PathBuf), ServerError> {
    fs::create_dir_all(folder).map_err(file_error(folder))?;
    let (store, certificate) = (folder.join("key.p12"), folder.join("ca.pem"));
    for old in [&store, &certificate] {
        // Mostly there is none; a store that is there would get a second key.
        let _ = fs::remove_file(old);
    }
    let keytool = || {
        let mut keytool = Command::new("keytool");
        keytool.args(["-alias", "node", "-storetype", "PKCS12"]);
        keytool.args(["-storepass", STORE_PASSWORD, "-keystore"]);
        keytool.arg(&store);
        keytool
    };
    let names = ["-dname", "CN=flowvitals lab", "-ext", "san=ip:127.0.0.1"];
    let kind = ["-genkeypair", "-keyalg", "EC", "-validity", "2"];
    command::run(keytool().args(kind).args(names))?;
    command::run(
        keytool()
            .args(["-exportcert", "-rfc", "-file"])
            .arg(&certificate),
    )?;
    Ok((store, certificate))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(nodes: usize, id: usize) -> String {
        let setup = Setup {
            nodes,
            cql_port: 9042,
            storage_port: 7000,
            login: nodes == 1,
            key_store: (nodes == 1).then(|| PathBuf::from("/tmp/x/key.p12")),
        };
        setup.fill(include_str!("../../../cassandra/cassandra.yaml.in"), id)
    }

    #[test]
    fn every_word_of_the_template_is_filled_in() {
        let text = filled(3, 2);
        let has = |text: &str, line: &str| {
            assert!(text.lines().any(|own| own == line), "{line} in {text}");
        };
        has(&text, "initial_token: '-3074457345618258603'");
        has(&text, "listen_address: 127.0.0.2");
        has(&text, "commitlog_sync: periodic");
        assert!(text.contains("127.0.0.1:7000,127.0.0.2:7000,127.0.0.3:7000"));
        let alone = filled(1, 1);
        has(&alone, "commitlog_sync: batch");
        has(&alone, "authenticator: PasswordAuthenticator");
        has(&alone, "  keystore: /tmp/x/key.p12");
        for text in [text, alone] {
            let values = text.lines().filter(|line| !line.starts_with('#'));
            let left = |line: &str| line.contains('{') && !line.contains("{ seeds");
            assert!(!values.into_iter().any(left), "{text}");
        }
    }
}
