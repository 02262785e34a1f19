//! From a file to a [`Config`]. Every error is reported in one go.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::Path;

use service::config::error::{ConfigErrors, Findings, Wrong, file_error};
use service::config::file;
use service::config::names::{self, MAX_NAME_BYTES};
use service::config::reader::{Section, text};
use service::config::source::Source;
use sha2::{Digest, Sha256};

use super::http::Http;
use super::rule::AlertRule;
use super::sections::{self, Alertmanager, Kafka, Merge, Store};
use super::{Config, MAX_ALERTS};

/// Options of `[store]` that only the machine can judge.
const STORE_LOGIN: [&str; 3] = ["username", "password_file", "tls_ca"];

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// Everything that is wrong with it, with places.
    pub fn load(file: &Path) -> Result<Self, ConfigErrors> {
        let text = file::read_text(file)
            .map_err(|why| file_error(file, "", why, "a readable TOML file"))?;
        let config = read(Source::new(file, text))?;
        Ok(config.in_state_directory(std::env::var_os("STATE_DIRECTORY")))
    }

    /// Where the service manager gave us a directory for state, files go there unless it is said otherwise.
    fn in_state_directory(mut self, directory: Option<OsString>) -> Self {
        let directory = directory.filter(|directory| Path::new(directory).is_absolute());
        if let (Some(directory), None) = (directory, &self.places.store_directory) {
            self.store.directory = Path::new(&directory).join("store");
        }
        self
    }
}

/// Reads the text of a file.
///
/// # Errors
/// Everything that is wrong with it, with places, in the order of the file.
pub fn read(source: Source) -> Result<Config, ConfigErrors> {
    let mut findings = Findings::default();
    let mut hash = Sha256::new();
    let mut config = Config {
        file: source.name().to_path_buf(),
        ..Config::default()
    };
    file::with_table(&source, &mut hash, &mut findings, |section, findings| {
        read_whole(section, &mut config, findings);
    });
    config.sha256 = hash.finalize().into();
    if findings.errors.is_empty() {
        findings
            .warnings
            .sort_by(|one, other| one.place.cmp(&other.place));
        config.warnings = findings.warnings;
        return Ok(config);
    }
    findings
        .errors
        .sort_by(|one, other| one.place.cmp(&other.place));
    Err(ConfigErrors(findings.errors))
}

fn read_whole(mut section: Section<'_>, config: &mut Config, findings: &mut Findings) {
    let default = Config::default();
    config.site = section.or(findings, "site", default.site, |value| {
        names::name(text(value)?, MAX_NAME_BYTES)
    });
    config.places.roles = section.place_if_set("roles");
    config.roles = sections::roles(&mut section, findings).unwrap_or(default.roles);
    if let Some(mut kafka) = section.table(findings, "kafka", "kafka") {
        config.places.kafka_brokers = kafka.place_if_set("brokers");
        (config.kafka, config.places.kafka_properties) = Kafka::read(kafka, findings);
    }
    if let Some(merge) = section.table(findings, "merge", "merge") {
        config.merge = Merge::read(merge, findings);
    }
    if let Some(mut store) = section.table(findings, "store", "store") {
        config.places.store_directory = store.place_if_set("directory");
        let named = STORE_LOGIN.map(|name| Some((name, store.place_if_set(name)?)));
        config.places.store = named.into_iter().flatten().collect();
        config.store = Store::read(store, findings);
    }
    if let Some(mut http) = section.table(findings, "http", "http") {
        config.places.http_listen = http.place_if_set("listen");
        (config.http, config.places.http_files) = Http::read(http, findings);
    }
    if let Some(alertmanager) = section.table(findings, "alertmanager", "alertmanager") {
        (config.alertmanager, config.places.alertmanager) =
            Alertmanager::read(alertmanager, findings);
    }
    config.alerts = alerts(&mut section, findings);
    section.refuse(findings, "forward", "is not built yet; remove it");
    section.end(findings, &["forward"]);
}

/// All `[[alert]]` of a table.
pub(crate) fn alerts(section: &mut Section<'_>, findings: &mut Findings) -> Vec<AlertRule> {
    let tables = section.tables(findings, "alert");
    if let Some(over) = tables.get(MAX_ALERTS) {
        let message = format!("there are {} rules", tables.len());
        let wrong = Wrong::new(message, format!("at most {MAX_ALERTS}"));
        findings.error(over.place(), "alert", wrong);
        return Vec::new();
    }
    let alerts: Vec<_> = tables
        .into_iter()
        .filter_map(|table| AlertRule::read(table, findings))
        .collect();
    let mut names: HashMap<&str, &AlertRule> = HashMap::new();
    for rule in &alerts {
        let name = rule.rule.name.as_str();
        match names.get(name) {
            Some(first) => {
                let message = format!(
                    "`{name}` is also the name of the rule at {}",
                    first.places.name
                );
                let wrong = Wrong::new(message, "a name of its own for every rule");
                findings.error(rule.places.name.clone(), "alert.name", wrong);
            }
            None => drop(names.insert(name, rule)),
        }
    }
    alerts
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn directory(text: &str, given: Option<&str>) -> PathBuf {
        let config = read(Source::new("main.toml", text.to_owned())).expect("a good file");
        config
            .in_state_directory(given.map(OsString::from))
            .store
            .directory
    }

    #[test]
    fn a_state_directory_is_used_unless_another_is_named() {
        let given = Some("/var/lib/flowvitals-aggregator");
        let expected = Path::new("/var/lib/flowvitals-aggregator/store");
        assert_eq!(directory("", given), expected);
        assert_eq!(directory("", None), Path::new("/var/lib/flowvitals/store"));
        assert_eq!(
            directory("", Some("")),
            Path::new("/var/lib/flowvitals/store")
        );
        let named = "store.directory = '/srv/store'";
        assert_eq!(directory(named, given), Path::new("/srv/store"));
    }
}
