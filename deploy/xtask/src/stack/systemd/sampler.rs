//! The sampler's package, from its installation to its purge.

use anyhow::{Context, Result, bail, ensure};
use sampler_event::StreamWindow;

use super::life::Life;
use super::machine::Machine;
use super::service::Service;
use super::site::Site;
use super::{Trial, credentials};

/// Of package, program, service and Kafka's user.
pub const NAME: &str = "flowvitals-sampler";
/// Its configuration.
pub const CONFIG: &str = "/etc/flowvitals/sampler.toml";
/// The capability's number.
const CAP_BPF: u32 = 39;
const DISABLED: &str = "/etc/flowvitals/disabled";
const SOCKET: &str = "/run/flowvitals/sampler.sock";
/// Its exposure as systemd counts it, at most, in tenths.
const EXPOSURE_TENTHS: u32 = 20;
/// The watchdog's minute is a minute of waiting: here it is shorter.
const QUICK: &str = "[Service]\nWatchdogSec=8\n";
const QUICK_FOLDER: &str = "/run/systemd/system/flowvitals-sampler.service.d";

/// The capabilities that it keeps: none, but on kernels before 5.19 CAP_BPF where reading a table takes it.
fn kept(machine: &Machine) -> Result<u64> {
    let closed = machine.shell("cat /proc/sys/kernel/unprivileged_bpf_disabled")?;
    let release = machine.shell("uname -r")?;
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        bail!("a kernel of no version: {release}");
    };
    let takes_it = (major, minor) < (5, 19) && closed.trim() != "0";
    Ok(u64::from(takes_it) << CAP_BPF)
}

/// Installed, configured, started, reloaded; whether all of that was right.
pub fn runs(trial: &mut Trial) -> bool {
    let (machine, site, packages) = (trial.machine, trial.site, trial.packages);
    let service = Service::new(machine, NAME);
    let report = &mut *trial.report;
    report.check("sampler: installs, starts nothing", || {
        machine.install(&packages.first(NAME)?)?;
        let standing = service.standing()?;
        ensure!(standing == "disabled, inactive", "it is {standing}");
        let folder = machine.shell("stat --format='%a %U:%G' /etc/flowvitals")?;
        ensure!(folder.trim() == "750 root:flowvitals", "/etc/flowvitals is {folder}");
        Ok(format!("{standing}; /etc/flowvitals {}", folder.trim()))
    }) && report.check("sampler: unit", || service.exposure(EXPOSURE_TENTHS))
        && report.check("sampler: manual, completions", || {
            machine.shell(&format!(
                "cd /usr/share && gzip --test man/man1/{NAME}*.1.gz && bash -n bash-completion/completions/{NAME} && \
                 ls man/man1/{NAME}*.1.gz | wc --lines"
            ))
            .map(|pages| format!("{} pages", pages.trim()))
        })
        && report.check("sampler: configuration checked", || {
            machine.write(CONFIG, &config(site, "live", "1.0"))?;
            machine.shell(&format!("mkdir {QUICK_FOLDER}"))?;
            machine.write(&format!("{QUICK_FOLDER}/quick.conf"), QUICK)?;
            credentials::hand_over(machine, site, NAME)?;
            // What is handed over at the start cannot be looked at before.
            let said = machine.shell(&format!("{NAME} check --offline --config {CONFIG}"))?;
            Ok(said.lines().next().unwrap_or_default().to_owned())
        })
        && report.check("sampler: starts as its own user", || {
            service.systemctl("enable --now")?;
            let process = service.process()?;
            let expected = machine.shell("id --user flowvitals")?;
            ensure!(process.uid.to_string() == expected.trim(), "{process:?}");
            let kept = kept(machine)?;
            let is_kept = |set: &String| u64::from_str_radix(set, 16) == Ok(kept);
            ensure!(process.capabilities.iter().all(is_kept) && process.confined, "{process:?}");
            let held = machine.attached(process.pid)?.counts();
            let left = if kept == 0 { "no capability" } else { "CAP_BPF" };
            Ok(format!("uid {}, {left} left, {held}", process.uid))
        })
        && report.check("sampler: sees real traffic", || {
            site.window(|window| window.stream == "live").map(|window| words(&window))
        })
        && report.check("sampler: reload, changed file", || {
            let (before, instance) = (service.process()?, site.window(|_| true)?.instance);
            machine.write(CONFIG, &config(site, "match", "1.0"))?;
            service.systemctl("reload")?;
            let window = site.window(|window| window.stream == "match")?;
            ensure!(window.instance == instance, "another life: {window:?}");
            ensure!(service.process()? == before, "another process");
            Ok(format!("same process, {}", words(&window)))
        })
        && report.check("sampler: reload, broken file", || {
            let (before, since) = (service.process()?, machine.shell("date '+%F %T'")?);
            let since_ms: u64 = machine.shell("date +%s%3N")?.trim().parse()?;
            machine.write(CONFIG, &config(site, "match", "7.5"))?;
            service.systemctl("reload")?;
            let later = |window: &StreamWindow| window.window_start_ms > since_ms;
            let window = site.window(|window| window.stream == "match" && later(window))?;
            ensure!(service.process()? == before, "another process");
            let said = service.said("sampler.toml:", since.trim())?;
            let said = said.first().with_context(|| service.last_words())?.clone();
            machine.write(CONFIG, &config(site, "match", "1.0"))?;
            Ok(format!("goes on ({}); says {said:?}", words(&window)))
        })
}

/// Hangs, is killed, is upgraded; whether it came back each time.
pub fn survives(trial: &mut Trial) -> bool {
    let (machine, site, packages) = (trial.machine, trial.site, trial.packages);
    let service = Service::new(machine, NAME);
    let report = &mut *trial.report;
    let killed = |signal: &str, result: &str| -> Result<String> {
        let (restarts, life) = (service.number("NRestarts")?, Life::now(machine, site)?);
        let since = machine.shell("date '+%F %T'")?;
        service.signal(signal)?;
        let process = service.restarted(restarts)?;
        let said = service.said(result, since.trim())?;
        let said = said.first().with_context(|| service.last_words())?.clone();
        let window = life.goes_on(machine, site)?;
        Ok(format!(
            "{said:?}; back as process {} with the same kernel side, {}",
            process.pid,
            words(&window)
        ))
    };
    report.check("sampler: watchdog missed (SIGSTOP)", || {
        killed("SIGSTOP", "Watchdog timeout")
    }) && report.check("sampler: kill -9", || killed("SIGKILL", "code=killed"))
        && report.check("sampler: upgrade", || {
            let life = Life::now(machine, site)?;
            let version = format!("dpkg-query --show --showformat='${{Version}}' {NAME}");
            let old = machine.shell(&version)?;
            machine.install(&packages.newer(NAME)?)?;
            let new = machine.shell(&version)?;
            machine.shell(&format!("dpkg --compare-versions {new} gt {old}"))?;
            let kept = machine.shell(&format!("cat {CONFIG}"))?;
            ensure!(kept == config(site, "match", "1.0"), "{CONFIG} is {kept}");
            let window = life.goes_on(machine, site)?;
            Ok(format!(
                "{old} -> {new}, file and kernel side kept, {}",
                words(&window)
            ))
        })
}

/// Another rate for a while, and nothing at all while the disable file is there.
pub fn is_held_back(trial: &mut Trial) -> bool {
    let (machine, site) = (trial.machine, trial.site);
    let service = Service::new(machine, NAME);
    let report = &mut *trial.report;
    report.check("sampler: rate set for a while", || {
        let socket = machine.shell(&format!("stat --format='%a %U:%G' {SOCKET}"))?;
        ensure!(
            socket.trim() == "660 flowvitals:flowvitals",
            "{SOCKET} is {socket}"
        );
        let said = machine.shell(&format!("{NAME} rate set match 0.5 --for 5s"))?;
        site.window(|window| window.sampling_rate == 0.5)?;
        let refused = machine.shell(&format!(
            "setpriv --reuid=nobody --clear-groups {NAME} rate list || test $? = 77 && echo refused"
        ))?;
        ensure!(refused.trim() == "refused", "anybody may: {refused}");
        Ok(said.trim().to_owned())
    }) && report.check("sampler: disable file", || {
        let (restarts, life) = (service.number("NRestarts")?, Life::now(machine, site)?);
        machine.shell(&format!("touch {DISABLED}"))?;
        machine.gone(&life.attached)?;
        ensure!(service.process()? == life.process, "another process");
        machine.shell(&format!("rm {DISABLED}"))?;
        let process = service.restarted(restarts)?;
        let window = life.next(machine, site)?;
        let held = machine.attached(process.pid)?.counts();
        let counts = life.attached.counts();
        Ok(format!(
            "nothing left of {counts}; file gone: {held}, {}",
            words(&window)
        ))
    })
}

/// Stopped, started again, purged: nothing is left.
pub fn goes(trial: &mut Trial) {
    let machine = trial.machine;
    let service = Service::new(machine, NAME);
    trial.report.check("sampler: stop", || {
        let attached = machine.attached(service.process()?.pid)?;
        service.systemctl("stop")?;
        let result = service.property("Result")?;
        ensure!(result == "success", "{result}; {}", service.last_words());
        machine.gone(&attached)?;
        Ok(format!("nothing left of {}", attached.counts()))
    });
    trial.report.check("sampler: purge while it runs", || {
        service.restart()?;
        let process = service.process()?;
        let attached = machine.attached(process.pid)?;
        machine.shell(&format!("apt-get purge --yes {NAME} 2>&1"))?;
        machine.gone(&attached)?;
        machine.shell(&format!("! test -e /proc/{}", process.pid))?;
        credentials::take_back(machine, NAME)?;
        machine.shell("rmdir /etc/flowvitals")?;
        trial.files.nothing_more(machine)?;
        let user = machine.shell("getent passwd flowvitals")?;
        Ok(format!(
            "no file but the credentials, which are an administrator's, no BPF object; the user stays: {}",
            user.trim()
        ))
    });
}

/// A configuration with one stream, at the edge's port.
pub fn config(site: &Site, stream: &str, rate: &str) -> String {
    format!(
        "node = \"edge-01\"\nsite = \"ams1\"\n{}{}[[stream]]\nname = \"{stream}\"\nlocal = [\"*:80\"]\nrate = {rate}\n",
        credentials::sampling(),
        credentials::sampler_kafka(site)
    )
}

/// What a window shows.
pub fn words(window: &StreamWindow) -> String {
    let (stream, flows) = (&window.stream, window.flows_sampled);
    let kilobytes = window.bytes_acked / 1_000;
    format!("a window of {stream}: {flows} flows, {kilobytes} kB acknowledged")
}
