//! The aggregator's package, from its installation to its purge.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::clock;

use super::machine::Machine;
use super::service::Service;
use super::{Trial, credentials};

const NAME: &str = "flowvitals-aggregator";
const CONFIG: &str = "/etc/flowvitals/aggregator.toml";
const STATE: &str = "/var/lib/flowvitals-aggregator/store";
/// Its exposure as systemd counts it, at most, in tenths.
const EXPOSURE_TENTHS: u32 = 15;
/// Exit status: the configuration is wrong.
const WRONG_CONFIGURATION: u32 = 78;
/// How long its answers may take, on a loaded machine.
const ANSWER: Duration = Duration::from_secs(60);
/// Numbers that systemd gives to users who exist only while a service runs.
const PASSING_USERS: std::ops::RangeInclusive<u32> = 61_184..=65_519;

/// Installed, refused unconfigured, configured, started, asked; whether all of that was right.
pub fn runs(trial: &mut Trial) -> bool {
    let (machine, site, packages) = (trial.machine, trial.site, trial.packages);
    let service = Service::new(machine, NAME);
    let report = &mut *trial.report;
    report.check("aggregator: installs, starts nothing", || {
        machine.install(&packages.first(NAME)?)?;
        let standing = service.standing()?;
        ensure!(standing == "disabled, inactive", "it is {standing}");
        let mode = machine.shell(&format!("stat --format='%a %U:%G' {CONFIG}"))?;
        Ok(format!("{standing}; {CONFIG} {}", mode.trim()))
    }) && report.check("aggregator: unit", || service.exposure(EXPOSURE_TENTHS))
        && report.check("aggregator: not configured", || {
            ensure!(service.systemctl("start").is_err(), "it started");
            // Time enough for a restart that must not come.
            std::thread::sleep(Duration::from_secs(3));
            let (status, restarts) = (
                service.number("ExecMainStatus")?,
                service.number("NRestarts")?,
            );
            let right = status == WRONG_CONFIGURATION && restarts == 0;
            ensure!(
                right,
                "status {status}, {restarts} restarts; {}",
                service.last_words()
            );
            Ok(format!("status {status}, not tried again"))
        })
        && report.check("aggregator: configuration checked", || {
            // The shipped example, with what a site must say itself. The file has the password, and is handed over too.
            let password = &site.access(NAME).properties["sasl.password"];
            let password = format!("\"sasl.password\" = \"{password}\"\n");
            let example = machine.shell(&format!("cat {CONFIG}"))?;
            let kafka = credentials::kafka(site, NAME, "", &password);
            let (before, after) = example
                .split_once("\n[kafka]\n")
                .context("no [kafka] in the example")?;
            let (_, after) = after
                .split_once("\n[kafka.properties]\n")
                .context("no [kafka.properties]")?;
            let before = before.replace("# site = \"default\"", "site = \"ams1\"");
            machine.write(CONFIG, &format!("{before}\n{kafka}{after}"))?;
            credentials::hand_over(machine, site, NAME)?;
            let said = machine.shell(&format!("{NAME} check --offline --config {CONFIG}"))?;
            Ok(said.lines().next().unwrap_or_default().to_owned())
        })
        && report.check("aggregator: starts as nobody's user", || {
            service.systemctl("enable --now")?;
            let process = service.process()?;
            let bare = process
                .capabilities
                .iter()
                .all(|set| set.trim_matches('0').is_empty());
            ensure!(bare && process.confined, "{process:?}");
            ensure!(PASSING_USERS.contains(&process.uid), "{process:?}");
            Ok(format!("uid {}, no capability", process.uid))
        })
        && report.check("aggregator: answers /healthz", || {
            let health = answer(machine, "/healthz", |_| true)?;
            Ok(health.trim().replace('\n', " "))
        })
        && report.check("aggregator: merges the sampler's windows", || {
            answer(machine, "/api/v1/streams", |text| {
                text.contains("\"match\"") && text.contains("\"nodes_reported\":1")
            })
        })
        && report.check("aggregator: stores", || {
            let metrics = answer(machine, "/metrics", |text| rows_written(text) > 0.0)?;
            machine.shell(&format!("test -d {STATE}"))?;
            Ok(format!(
                "{} rows written to {STATE}",
                rows_written(&metrics)
            ))
        })
}

/// What the store's metric says.
fn rows_written(metrics: &str) -> f64 {
    let lines = metrics.lines();
    let rows = lines.filter_map(|line| line.strip_prefix("flowvitals_store_rows_written_total"));
    let values = rows.filter_map(|row| row.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum()
}

/// Stopped and purged: nothing is left but what is the sampler's.
pub fn goes(trial: &mut Trial) {
    let machine = trial.machine;
    let service = Service::new(machine, NAME);
    trial.report.check("aggregator: stop", || {
        service.systemctl("stop")?;
        let result = service.property("Result")?;
        ensure!(result == "success", "{result}; {}", service.last_words());
        Ok(result)
    });
    trial.report.check("aggregator: purge", || {
        machine.shell(&format!("apt-get purge --yes {NAME} 2>&1"))?;
        credentials::take_back(machine, NAME)?;
        let left = machine.shell(&format!(
            "find / -xdev -name '{NAME}*' -not -path '/packages/*'"
        ))?;
        ensure!(left.is_empty(), "left behind: {left}");
        machine.shell(&format!("! test -e {CONFIG}"))?;
        Ok("no file of it".to_owned())
    });
}

/// The answer to a question over HTTP, asked until it is as wanted.
fn answer(machine: &Machine, path: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
    let ask = format!("curl --silent --show-error --fail --max-time 5 http://127.0.0.1:9741{path}");
    let mut last: Result<String> = Ok(String::new());
    let came = clock::wait_until(ANSWER, || {
        last = machine.shell(&ask);
        last.as_ref().is_ok_and(|text| wanted(text))
    });
    let text = last.with_context(|| format!("{path} after {ANSWER:?}"))?;
    ensure!(came, "{path} says after {ANSWER:?} only {text}");
    Ok(text)
}
