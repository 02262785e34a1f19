//! What a right configuration means, as text for a person.

use std::io::{self, Write};

use glob::Pattern;

use super::surroundings::{Found, READ, written};
use crate::alert::{Rule, RuleMetric};
use crate::config::{Config, Http, StoreKind, active_in_words};

/// Writes the summary; `found` is none when neither brokers nor machine were looked at.
pub(super) fn write(config: &Config, found: Option<&Found>, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "site {}", config.site)?;
    writeln!(
        out,
        "configuration: {}, sha256 {}",
        config.file.display(),
        config.sha256_hex()
    )?;
    write_kafka(config, found, out)?;
    writeln!(
        out,
        "merge: a window is waited for until {} ms after its end; a node that is silent for {} s is expected no more",
        config.merge.lateness_ms, config.merge.node_forget_after_s
    )?;
    let answer = match found {
        Some(found) if found.store_answers => "; answers, and has its tables",
        _ => "",
    };
    writeln!(out, "store: {}{answer}", store_text(config))?;
    let running = match found {
        Some(found) if found.already_running => " (one of our daemons answers there already)",
        _ => "",
    };
    writeln!(out, "http: {}{running}", http_text(&config.http))?;
    write_alerts(config, out)
}

fn write_kafka(config: &Config, found: Option<&Found>, out: &mut dyn Write) -> io::Result<()> {
    let brokers = match config.kafka.brokers.as_slice() {
        [] => "no brokers: it cannot run".to_owned(),
        brokers => brokers.join(" "),
    };
    let answer = match found.and_then(|found| found.cluster.as_ref()) {
        Some(cluster) => format!("; answers: {}", cluster.brokers.join(" ")),
        None => String::new(),
    };
    writeln!(out, "kafka: {brokers}{answer}")?;
    let roles = config.running().into_iter();
    let groups: Vec<_> = roles
        .map(|role| format!("{} (role {role})", config.group(role)))
        .collect();
    writeln!(out, "consumer groups: {}", groups.join(", "))?;
    let partitions = |topic: &str| {
        let cluster = found.and_then(|found| found.cluster.as_ref());
        match cluster.map(|cluster| cluster.partitions.get(topic).copied().unwrap_or(0)) {
            None => topic.to_owned(),
            Some(0) => format!("{topic} (not there)"),
            Some(count) => format!("{topic} ({count} partitions)"),
        }
    };
    let listed = |topics: &[&str]| topics.iter().map(|t| partitions(t)).collect::<Vec<_>>();
    writeln!(out, "reads: {}", listed(&READ).join(", "))?;
    writeln!(out, "writes: {}", listed(&written(config)).join(", "))
}

fn store_text(config: &Config) -> String {
    match config.store.kind {
        StoreKind::None => "none: what is older than a rule's horizon is in Kafka only".to_owned(),
        StoreKind::Embedded => format!(
            "embedded in {}: seconds for 48 hours, minutes for 90 days; one process writes, others stand by",
            config.store.directory.display()
        ),
        StoreKind::Cassandra => format!(
            "cassandra at {}, keyspace {}: seconds for 48 hours, minutes for 90 days; processes share the streams",
            config.store.contact_points.join(" "),
            config.store.keyspace
        ),
    }
}

/// Where it answers, and whom.
pub(crate) fn http_text(http: &Http) -> String {
    let scheme = match http.tls {
        None => "http",
        Some(_) => "https",
    };
    let from = match http.is_local() {
        true => "this machine",
        false => "anywhere",
    };
    let mut text = format!("{scheme}://{}/ answers who asks from {from}", http.listen);
    if let Some(file) = &http.token_file {
        text += &format!(" with a token of {}", file.display());
    }
    if let Some(ca) = http.tls.as_ref().and_then(|tls| tls.client_ca.as_ref()) {
        let and = http.token_file.as_ref().map_or("", |_| " and");
        text += &format!("{and} with a certificate that {} signed", ca.display());
    }
    text
}

fn write_alerts(config: &Config, out: &mut dyn Write) -> io::Result<()> {
    if config.alerts.is_empty() {
        return writeln!(out, "no rules: no alert is raised");
    }
    let managers = match config.alertmanager.urls.as_slice() {
        [] => "their topic only, no [alertmanager] urls".to_owned(),
        urls => format!("their topic and to {}", urls.join(" ")),
    };
    writeln!(out, "alerts: go to {managers}")?;
    writeln!(out, "rules: {}", config.alerts.len())?;
    config
        .alerts
        .iter()
        .try_for_each(|rule| writeln!(out, "  {}", rule_text(&rule.rule)))
}

fn rule_text(rule: &Rule) -> String {
    let streams: Vec<_> = rule.streams.iter().map(Pattern::as_str).collect();
    let (hold_s, clear_for_s) = (rule.hold_ms / 1_000, rule.clear_for_ms / 1_000);
    let mut text = format!("{}: each of {}: ", rule.name, streams.join(" "));
    text += &match rule.metric {
        RuleMetric::NoData => format!(
            "fires when more than half of its nodes said nothing for {} s, and {hold_s} s more; clears after \
             {clear_for_s} s with data",
            rule.over_s
        ),
        metric => format!(
            "fires when {metric} over {} s is above {} for {hold_s} s (the lower bound of its 95 % interval, {} sampled \
             flows or more); clears when it is below {} for {clear_for_s} s",
            rule.over_s,
            rule.above,
            rule.min_flows,
            rounded(rule.clear_below),
        ),
    };
    if rule.fast {
        text += "; suspected early from pulses";
    }
    if let Some(active) = rule.active {
        text += &format!("; only {}", active_in_words(active));
    }
    text += &format!("; severity {}", rule.severity);
    for (name, value) in &rule.labels {
        text += &format!(", {name} {value:?}");
    }
    text
}

/// Without the noise of a product of binary fractions.
fn rounded(value: f64) -> f64 {
    format!("{value:.6e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_rounded() {
        assert_eq!(rounded(0.02 * 0.7).to_string(), "0.014");
        assert_eq!(rounded(500.0 * 0.7).to_string(), "350");
        assert_eq!(rounded(1e-9).to_string(), "0.000000001");
    }
}
