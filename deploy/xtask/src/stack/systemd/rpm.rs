//! The .rpm of both programs, installed, upgraded and erased by rpm itself, after the .deb have gone.
//!
//! Limits: the machine is Debian. rpm knows nothing there of what dpkg installed, so dependencies are not looked at; and Debian
//! enables what no preset forbids, so the machine gets the preset that Fedora and RHEL have, and the folders.

use anyhow::ensure;

use super::files::Files;
use super::life::Life;
use super::sampler::{CONFIG, NAME, config, words};
use super::service::Service;
use super::{Trial, credentials};

const AGGREGATOR: &str = "flowvitals-aggregator";
const PRESET: &str = "/etc/systemd/system-preset/99-default-disable.preset";
/// Folders that belong to other packages there.
const THEIRS: [&str; 4] = [
    "/etc/systemd/system-preset",
    "/usr/share/fish/vendor_completions.d",
    "/usr/share/licenses",
    "/usr/share/zsh/site-functions",
];
/// What an erased package leaves: what was configured, and what was counted. rpm knows no purge.
const LEFT: [&str; 2] = [
    "/etc/flowvitals/sampler.toml.rpmsave",
    "/var/lib/flowvitals",
];

/// Installed, started, upgraded, erased.
pub fn comes_and_goes(trial: &mut Trial) {
    let (machine, site, packages) = (trial.machine, trial.site, trial.packages);
    let service = Service::new(machine, NAME);
    let mut before = None;
    let report = &mut *trial.report;
    let rpm = |words: &str| machine.shell(&format!("rpm {words} 2>&1"));
    let _ = report.check("rpm: installs, starts nothing", || {
        // The user that the .deb has left.
        machine.shell("userdel flowvitals")?;
        machine.shell(&format!("mkdir -p {}", THEIRS.join(" ")))?;
        machine.write(PRESET, "disable *\n")?;
        before = Some(Files::now(machine)?);
        rpm(&format!("--install --nodeps {}", packages.rpm("", NAME)?))?;
        let standing = service.standing()?;
        ensure!(standing == "disabled, inactive", "it is {standing}");
        rpm(&format!("--verify --nodeps {NAME}"))?;
        let folder = machine.shell("stat --format='%a %U:%G' /etc/flowvitals")?;
        ensure!(
            folder.trim() == "750 root:flowvitals",
            "/etc/flowvitals is {folder}"
        );
        Ok(format!(
            "{standing}; files as packed; /etc/flowvitals {}",
            folder.trim()
        ))
    }) && report.check("rpm: starts as its own user", || {
        machine.write(CONFIG, &config(site, "match", "1.0"))?;
        credentials::hand_over(machine, site, NAME)?;
        service.systemctl("enable --now")?;
        let process = service.process()?;
        let expected = machine.shell("id --user flowvitals")?;
        ensure!(
            process.uid.to_string() == expected.trim() && process.confined,
            "{process:?}"
        );
        let window = site.window(|window| window.stream == "match")?;
        Ok(format!("uid {}, {}", process.uid, words(&window)))
    }) && report.check("rpm: upgrade", || {
        let life = Life::now(machine, site)?;
        let version = format!("--query --queryformat='%{{VERSION}}' {NAME}");
        let old = rpm(&version)?;
        rpm(&format!(
            "--upgrade --nodeps {}",
            packages.rpm("newer/", NAME)?
        ))?;
        let new = rpm(&version)?;
        let kept = machine.shell(&format!("cat {CONFIG}"))?;
        ensure!(kept == config(site, "match", "1.0"), "{CONFIG} is {kept}");
        let window = life.goes_on(machine, site)?;
        let standing = service.standing()?;
        ensure!(standing == "enabled, active", "it is {standing}");
        Ok(format!(
            "{old} -> {new}, file and kernel side kept, {}",
            words(&window)
        ))
    }) && report.check("rpm: erase while it runs", || {
        let process = service.process()?;
        let attached = machine.attached(process.pid)?;
        rpm(&format!("--erase {NAME}"))?;
        machine.gone(&attached)?;
        machine.shell(&format!("! test -e /proc/{}", process.pid))?;
        credentials::take_back(machine, NAME)?;
        machine.shell(&format!(
            "for it in {}; do test -e $it && rm -r $it || exit; done",
            LEFT.join(" ")
        ))?;
        machine.shell("rmdir /etc/flowvitals")?;
        if let Some(files) = &before {
            files.nothing_more(machine)?;
        }
        Ok(format!(
            "no BPF object, and no file but {}",
            LEFT.join(", ")
        ))
    }) && report.check("rpm: aggregator comes and goes", || {
        let service = Service::new(machine, AGGREGATOR);
        rpm(&format!(
            "--install --nodeps {}",
            packages.rpm("", AGGREGATOR)?
        ))?;
        let standing = service.standing()?;
        ensure!(standing == "disabled, inactive", "it is {standing}");
        rpm(&format!("--verify --nodeps {AGGREGATOR}"))?;
        rpm(&format!("--erase {AGGREGATOR}"))?;
        if let Some(files) = &before {
            files.nothing_more(machine)?;
        }
        Ok(format!("{standing}; files as packed; nothing left"))
    });
}
