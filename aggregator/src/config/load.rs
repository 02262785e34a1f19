//! From a file to a [`Config`]. Every error is reported in one go.

use std::collections::HashMap;
use std::path::Path;

use service::config::error::{ConfigErrors, Findings, Wrong, file_error};
use service::config::file;
use service::config::names::{self, MAX_NAME_BYTES};
use service::config::reader::{Section, text};
use service::config::source::Source;
use sha2::{Digest, Sha256};

use super::rule::AlertRule;
use super::sections::{self, Alertmanager, Http, Kafka, Merge, Store};
use super::{Config, MAX_ALERTS};

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// Everything that is wrong with it, with places.
    pub fn load(file: &Path) -> Result<Self, ConfigErrors> {
        let text = file::read_text(file)
            .map_err(|why| file_error(file, "", why, "a readable TOML file"))?;
        read(Source::new(file, text))
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
    config.roles = sections::roles(&mut section, findings).unwrap_or(default.roles);
    if let Some(mut kafka) = section.table(findings, "kafka", "kafka") {
        config.places.kafka_brokers = kafka.place_if_set("brokers");
        (config.kafka, config.places.kafka_properties) = Kafka::read(kafka, findings);
    }
    if let Some(merge) = section.table(findings, "merge", "merge") {
        config.merge = Merge::read(merge, findings);
    }
    if let Some(store) = section.table(findings, "store", "store") {
        config.store = Store::read(store, findings);
    }
    if let Some(mut http) = section.table(findings, "http", "http") {
        config.places.http_listen = http.place_if_set("listen");
        config.http = Http::read(http, findings);
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
