//! What only the machine can say about a configuration. Reads, and changes nothing.

use std::fs;
use std::io;
use std::path::Path;

use nix::unistd::{AccessFlags, access, geteuid};
use service::port::{self, Port};

use crate::config::key::{Key, KeyError};
use crate::config::{Config, ConfigError, ConfigWarning};
use crate::daemon::{kafka_error, kafka_settings, spool_error};
use crate::kernel::cgroup::{cgroup_id, cgroup2_mount};
use crate::spool::directory::{self, DirectoryError};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) errors: Vec<ConfigError>,
    pub(super) warnings: Vec<ConfigWarning>,
    /// The sampling key; none: it is wrong, or will be made at the first start.
    pub(super) key: Option<Key>,
    /// The metrics port is held by a sampler that runs.
    pub(super) already_running: bool,
}

/// Looks at everything that the configuration names.
pub(super) fn look(config: &Config) -> Report {
    let mut report = Report::default();
    look_at_key(config, &mut report);
    look_at_kafka(config, &mut report);
    look_at_cgroups(config, &mut report);
    look_at_port(config, &mut report);
    look_at_state(config, &mut report);
    look_at_spool(config, &mut report);
    report
}

fn look_at_key(config: &Config, report: &mut Report) {
    match config.sampling_key().read() {
        Ok(key) => report.key = key,
        Err(KeyError::File(error)) => report.errors.push(error),
        Err(error) => report.errors.push(ConfigError {
            place: config.place_or_file(&config.places.state_directory),
            option: "state.directory".to_owned(),
            message: error.to_string(),
            allowed: "a directory of the service's user".to_owned(),
        }),
    }
}

fn look_at_kafka(config: &Config, report: &mut Report) {
    if let Some(settings) = kafka_settings(config)
        && let Err(error) = settings.validate()
    {
        report.errors.push(kafka_error(config, error));
    }
}

fn look_at_cgroups(config: &Config, report: &mut Report) {
    let mut with_cgroup = config
        .streams
        .iter()
        .filter_map(|s| Some((s, s.cgroup.as_deref()?)))
        .peekable();
    if with_cgroup.peek().is_none() {
        return;
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mount = cgroup2_mount(&mounts);
    for (stream, path) in with_cgroup {
        let absent = match &mount {
            Some(mount) if cgroup_id(mount, path).is_some() => continue,
            Some(mount) => format!("is not below {}", mount.display()),
            None => "cannot be found: no cgroup2 file system is mounted".to_owned(),
        };
        report.warnings.push(ConfigWarning {
            place: stream.places.stream.clone(),
            option: "stream.cgroup".to_owned(),
            message: format!(
                "cgroup {path} of stream `{}` {absent}: the stream is degraded until it comes",
                stream.name
            ),
        });
    }
}

fn look_at_port(config: &Config, report: &mut Report) {
    let listen = config.metrics.listen;
    match port::look(listen) {
        Port::Free => {}
        Port::Ours => report.already_running = true,
        Port::Refused(error) => report.errors.push(ConfigError {
            place: config.place_or_file(&config.places.metrics_listen),
            option: "metrics.listen".to_owned(),
            message: format!("{listen} cannot be bound: {error}"),
            allowed: "a free loopback port".to_owned(),
        }),
    }
}

/// Where events go to brokers they may have to wait on the disk.
fn look_at_spool(config: &Config, report: &mut Report) {
    let path = &config.spool.directory;
    if config.kafka.brokers.is_empty() {
        return;
    }
    let error = match directory::judge(path) {
        Ok(()) => return,
        Err(DirectoryError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
            match unusable(path) {
                None => return,
                Some(why) => DirectoryError::Io(io::Error::other(why)),
            }
        }
        Err(error) => error,
    };
    report.errors.push(spool_error(config, &error));
}

/// Why a directory cannot be used, if so.
fn unusable(directory: &Path) -> Option<String> {
    match fs::metadata(directory) {
        Ok(found) if !found.is_dir() => Some("is not a directory".to_owned()),
        Ok(_) => (!writable(directory)).then(|| format!("cannot be written by user {}", geteuid())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match directory.ancestors().find(|ancestor| ancestor.exists()) {
                Some(parent) if writable(parent) => None,
                _ => Some(format!(
                    "is not there and cannot be made by user {}",
                    geteuid()
                )),
            }
        }
        Err(error) => Some(format!("cannot be read: {error}")),
    }
}

fn look_at_state(config: &Config, report: &mut Report) {
    let directory = &config.state.directory;
    let Some(refused) = unusable(directory) else {
        return;
    };
    report.errors.push(ConfigError {
        place: config.place_or_file(&config.places.state_directory),
        option: "state.directory".to_owned(),
        message: format!("{} {refused}", directory.display()),
        allowed: "a directory that the service's user may write, or whose parent it may".to_owned(),
    });
}

fn writable(directory: &Path) -> bool {
    directory.is_dir() && access(directory, AccessFlags::W_OK | AccessFlags::X_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_cgroup2_mount_is_found() {
        let check = |mounts: &str, expected: Option<&str>| {
            assert_eq!(
                cgroup2_mount(mounts).as_deref(),
                expected.map(Path::new),
                "{mounts}"
            );
        };
        check("", None);
        check("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n", None);
        check(
            "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n",
            Some("/sys/fs/cgroup"),
        );
        check(
            "none /sys/fs/cgroup/unified cgroup2 rw 0 0",
            Some("/sys/fs/cgroup/unified"),
        );
        check(
            "none /mnt/with\\040space cgroup2 rw 0 0",
            Some("/mnt/with space"),
        );
    }

    #[test]
    fn a_cgroup_is_known_by_its_inode() {
        let mount = tempfile::tempdir().unwrap();
        fs::create_dir_all(mount.path().join("a/b")).unwrap();
        let inode = fs::metadata(mount.path().join("a/b")).unwrap().ino();
        assert_eq!(cgroup_id(mount.path(), "/a/b"), Some(inode));
        assert_eq!(cgroup_id(mount.path(), "/a/c"), None);
        assert!(cgroup_id(mount.path(), "/").is_some());
    }
}
