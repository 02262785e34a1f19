//! Secrets that only root can read, handed to a service by systemd (`LoadCredential=`).
//!
//! systemd (252 here) copies them when the service starts, into memory that only the service's user can read: a secret that was
//! replaced is taken with the next restart.

use std::fs;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use super::Trial;
use super::life::Life;
use super::machine::Machine;
use super::sampler::{NAME, words};
use super::service::Service;
use super::site::Site;

/// An administrator's folder; nothing of ours goes there by itself.
const SOURCES: &str = "/etc/flowvitals/credentials";
const PASSWORD: &str = "kafka-password";
const KEY: &str = "sampling.key";
/// Files that librdkafka reads, by its names of them, and ours.
const FILES: [(&str, &str); 3] = [
    ("ssl.ca.location", "kafka-ca.pem"),
    ("ssl.certificate.location", "kafka-client.pem"),
    ("ssl.key.location", "kafka-client.key"),
];
/// The keys of the fleet before and after: 32 hex digits.
const KEYS: [&str; 2] = [
    "00112233445566778899aabbccddeeff",
    "ffeeddccbbaa99887766554433221100",
];
const NEXT_PASSWORD: &str = "changed-while-it-ran";

/// Where a service finds what it was handed.
pub fn place(service: &str, name: &str) -> String {
    format!("/run/credentials/{service}.service/{name}")
}

/// Where root keeps it.
fn source(service: &str, name: &str) -> String {
    format!("{SOURCES}/{service}/{name}")
}

/// Puts a service's secrets where only root can read them, and has systemd hand them over.
pub fn hand_over(machine: &Machine, site: &Site, service: &str) -> Result<()> {
    let access = site.access(service);
    let mut secrets = vec![
        (PASSWORD, access.properties["sasl.password"].clone()),
        (KEY, KEYS[0].to_owned()),
    ];
    for (property, name) in FILES {
        let file = &access.properties[property];
        secrets.push((name, fs::read_to_string(file).context(file.clone())?));
    }
    machine.shell(&format!(
        "umask 077 && mkdir -p {SOURCES}/{service} /run/systemd/system/{service}.service.d"
    ))?;
    let mut drop_in = "[Service]\n".to_owned();
    for (name, text) in secrets {
        let source = source(service, name);
        machine.write(&source, &text)?;
        machine.shell(&format!("chmod 600 {source}"))?;
        drop_in += &format!("LoadCredential={name}:{source}\n");
    }
    let place = format!("/run/systemd/system/{service}.service.d/credentials.conf");
    machine.write(&place, &drop_in)?;
    machine.shell("systemctl daemon-reload")?;
    Ok(())
}

/// `[kafka]` of a service's configuration, `more` being further lines of it and `passed` further properties.
pub fn kafka(site: &Site, service: &str, more: &str, passed: &str) -> String {
    let access = site.access(service);
    let files =
        FILES.map(|(property, name)| format!("\"{property}\" = \"{}\"\n", place(service, name)));
    let own = ["security.protocol", "sasl.mechanism", "sasl.username"];
    let own = own.map(|property| format!("\"{property}\" = \"{}\"\n", access.properties[property]));
    format!(
        "[kafka]\nbrokers = [\"{}\"]\n{more}[kafka.properties]\n{}{}{passed}",
        access.brokers,
        own.concat(),
        files.concat()
    )
}

/// The sampler's: its password has an option of its own.
pub fn sampler_kafka(site: &Site) -> String {
    let password = format!("password_file = \"{}\"\n", place(NAME, PASSWORD));
    kafka(site, NAME, &password, "")
}

/// `[sampling]` of its configuration.
pub fn sampling() -> String {
    format!("[sampling]\nkey_file = \"{}\"\n", place(NAME, KEY))
}

/// What the sampler was handed is its alone, and taken anew at a restart; whether all of that was right.
pub fn rotate(trial: &mut Trial) -> bool {
    let (machine, site) = (trial.machine, trial.site);
    let service = Service::new(machine, NAME);
    let report = &mut *trial.report;
    report.check("sampler: credentials are its own", || own(machine, site))
        && report.check("sampler: changed password", || {
            let life = Life::now(machine, site)?;
            site.set_password(NAME, NEXT_PASSWORD)?;
            replace(machine, PASSWORD, NEXT_PASSWORD)?;
            ensure!(
                machine.shell(&format!("cat {}", place(NAME, PASSWORD)))? != NEXT_PASSWORD,
                "this systemd renews credentials by itself: say so where they are documented"
            );
            service.restart()?;
            let window = life.goes_on(machine, site)?;
            Ok(format!(
                "restart takes it; same kernel side, {}",
                words(&window)
            ))
        })
        && report.check("sampler: changed sampling key", || {
            let life = Life::now(machine, site)?;
            replace(machine, KEY, KEYS[1])?;
            service.restart()?;
            let node = site.heartbeat(|node| node.instance != life.instance)?;
            let window = life.next(machine, site)?;
            ensure!(window.sampling_key_id == id(KEYS[1])?, "{window:?}");
            machine.gone(&life.attached)?;
            let (reason, cut_ms) = (&node.uncounted_reason, node.uncounted_ms);
            ensure!(reason.contains("sampling key"), "{node:?}");
            Ok(format!(
                "says: uncounted for {cut_ms} ms, {reason}; {}",
                words(&window)
            ))
        })
}

/// Who can read what it was handed, and that it is used.
fn own(machine: &Machine, site: &Site) -> Result<String> {
    let names = FILES.map(|(_, name)| name);
    let mut last = String::new();
    for name in names.into_iter().chain([PASSWORD, KEY]) {
        let (source, place) = (source(NAME, name), place(NAME, name));
        let mode = machine.shell(&format!("stat --format='%a %U:%G' {source}"))?;
        ensure!(mode.trim() == "600 root:root", "{source} is {mode}");
        let reads = |user: &str, file: &str| {
            let read = format!("setpriv --reuid={user} --clear-groups cat {file} 2>/dev/null >&2");
            machine.shell(&read).is_ok()
        };
        ensure!(
            reads("flowvitals", &place),
            "the service cannot read {place}"
        );
        ensure!(!reads("nobody", &place), "anybody can read {place}");
        ensure!(
            !reads("flowvitals", &source),
            "the service can read {source}"
        );
        last = machine.shell(&format!("stat --format='%a %U:%G' {place}"))?;
    }
    let window = site.window(|_| true)?;
    ensure!(window.sampling_key_id == id(KEYS[0])?, "{window:?}");
    Ok(format!(
        "{} from files of root alone, there {}; {} under that key",
        names.len() + 2,
        last.trim(),
        words(&window)
    ))
}

/// As an administrator replaces a file: the mode stays.
fn replace(machine: &Machine, name: &str, text: &str) -> Result<()> {
    machine.write(&source(NAME, name), text)
}

/// Id of a key: the head of its digest.
fn id(key: &str) -> Result<u32> {
    let bytes: Result<Vec<u8>, _> = (0..key.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&key[at..at + 2], 16))
        .collect();
    let digest = Sha256::digest(bytes?);
    Ok(u32::from_be_bytes([
        digest[0], digest[1], digest[2], digest[3],
    ]))
}

/// What an administrator put there is still there; taken away, as he would.
pub fn take_back(machine: &Machine, service: &str) -> Result<()> {
    machine.shell(&format!("test -s {}", source(service, PASSWORD)))?;
    machine.shell(&format!(
        "rm -r {SOURCES}/{service} /run/systemd/system/{service}.service.d"
    ))?;
    machine.shell(&format!(
        "rmdir --ignore-fail-on-non-empty {SOURCES} && systemctl daemon-reload"
    ))?;
    Ok(())
}
