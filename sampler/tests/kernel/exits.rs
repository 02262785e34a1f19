//! Exit statuses of the binary, and what it says with them. Those of the command line and of the
//! configuration need no kernel.

use std::{
    ffi::CString,
    fs,
    io::Read,
    net::TcpListener,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use caps::{CapSet, Capability};
use lab::clock;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use sampler::{exit, kernel::cgroup, kernel::load::CAPABILITIES};

use crate::harness::{PATIENCE, turn};

/// The commands that read a whole configuration.
const BOTH: [&str; 2] = ["check", "run"];
/// Comes to its end by itself where nothing is wrong, and leaves no trace.
const TRIAL: [&str; 4] = ["run", "--listen", "*:8144", "--dry-run"];

fn sampler(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowvitals-sampler"));
    command.args(arguments);
    command
}

/// Runs it to its end: the status, and what it said to standard error.
fn outcome(mut command: Command) -> (u8, String) {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the sampler");
    let mut status = None;
    clock::wait_until(PATIENCE, || {
        status = child.try_wait().expect("a child");
        status.is_some()
    });
    let _ = child.kill();
    let mut said = String::new();
    let mut stderr = child.stderr.take().expect("a pipe");
    stderr.read_to_string(&mut said).expect("text");
    let Some(code) = status.and_then(|status| status.code()) else {
        panic!("{command:?} does not end:\n{said}");
    };
    (code as u8, said)
}

/// It ends with this status and says this.
#[track_caller]
fn check(command: Command, code: u8, expected: &str) {
    let shown = format!("{command:?}");
    let (got, said) = outcome(command);
    assert_eq!(got, code, "{shown}: {said}");
    assert!(said.contains(expected), "{shown}: {said}\nlacks {expected}");
}

/// Files of one configuration.
struct Files(tempfile::TempDir);

impl Files {
    fn new(main: &str) -> Self {
        let files = Self(tempfile::tempdir().expect("a directory"));
        files.write("main.toml", main);
        files
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).expect("a file");
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// Both commands that read the file refuse it for this reason.
    #[track_caller]
    fn refused(&self, commands: &[&str], file: &str, expected: &str) {
        for name in commands {
            let command = sampler(&[name, "--config", &self.path("main.toml")]);
            check(
                command,
                exit::CONFIG,
                &format!("{}{expected}", self.path(file)),
            );
        }
    }
}

#[test]
fn a_wrong_command_line_is_2() {
    for (arguments, expected) in [
        ("", "Usage: flowvitals-sampler"),
        ("fly", "unrecognized subcommand 'fly'"),
        ("run", "required arguments were not provided"),
        ("run --listen nonsense", "`nonsense` has no port (allowed: "),
        ("run --listen *:1 --rate 1.5", "'1.5' for '--rate <RATE>'"),
        ("run --listen *:1 --config x", "cannot be used with"),
        ("run --config x --rate 0.5", "cannot be used with"),
        ("check", "required arguments were not provided"),
        ("check --config x --explain 192.0.2.1:443", "--client"),
        ("top --config x", "unexpected argument '--config'"),
    ] {
        let arguments: Vec<_> = arguments.split_whitespace().collect();
        check(sampler(&arguments), exit::USAGE, expected);
    }
}

#[test]
fn a_wrong_configuration_is_78_with_its_place() {
    let stream =
        |name: &str, local: &str| format!("[[stream]]\nname = {name:?}\nlocal = [{local:?}]\n");
    let hidden = stream("wide", "*:443") + &stream("never", "192.0.2.1:443");
    for (text, expected) in [
        (
            "nod = \"edge-07\"\n",
            ":1:1: nod: unknown option, did you mean `node`?",
        ),
        (
            "[forward]\nbrokers = []\n",
            ":1:2: forward: is not built yet; remove it",
        ),
        (
            "[outbox]\nbytes = 1\n",
            ":1:2: outbox: unknown option (allowed: node, ",
        ),
        (
            &stream("a", "1.2.3:4"),
            ":3:10: stream.local: `1.2.3` is not an address or prefix (allowed: ",
        ),
        (
            &hidden,
            ":6:10: stream.local: `192.0.2.1:443` of stream `never` is never reached",
        ),
        ("[sampling]\nrate = 1.5\n", ":2:8: sampling.rate: "),
    ] {
        Files::new(text).refused(&BOTH, "main.toml", expected);
    }
}

#[test]
fn an_included_file_is_78_with_its_own_place() {
    let files =
        Files::new("include = [\"[ab].toml\"]\n[[stream]]\nname = \"news\"\nlocal = [\"*:80\"]\n");
    files.write(
        "a.toml",
        "[[stream]]\nname = \"sport\"\nlocal = [\"*:81\"]\n",
    );
    files.write(
        "b.toml",
        "\n[[stream]]\nname = \"news\"\nlocal = [\"*:82\"]\n",
    );
    let expected = ":3:8: stream.name: `news` is also the name of the stream at ";
    files.refused(&BOTH, "b.toml", expected);
}

#[test]
fn kafka_properties_that_cannot_be_are_78_with_their_place() {
    let kafka = "[kafka]\nbrokers = [\"127.0.0.1:1\"]\n[kafka.properties]\n";
    for (property, expected) in [
        (
            "\"no.such\" = 1",
            ":4:1: kafka.properties.no.such: No such configuration property",
        ),
        (
            "\"linger.ms\" = \"soon\"",
            ":4:1: kafka.properties.linger.ms: ",
        ),
        (
            "partitioner = \"random\"",
            ":4:1: kafka.properties.partitioner: a stream's events would go to other \
             partitions than its peers' do (allowed: murmur2_random)",
        ),
        // Only librdkafka knows which two of them contradict each other.
        ("acks = 1", ": kafka: `acks` must be set to `all`"),
    ] {
        let state = Files::new("");
        let directory = format!("[state]\ndirectory = {:?}\n", state.path("state"));
        let files = Files::new(&format!("{kafka}{property}\n{directory}"));
        files.refused(&BOTH, "main.toml", expected);
    }
}

/// What only this machine can say of a file: for each, the file's text and what is wrong.
fn wrong_here(commands: &[&str]) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = listener.local_addr().expect("an address");
    let state = Files::new("");
    let directory = state.path("state");
    for (rest, expected) in [
        (
            format!("[metrics]\nlisten = \"{taken}\"\n"),
            format!(":4:10: metrics.listen: {taken} cannot be bound: Address already in use"),
        ),
        (
            format!("[sampling]\nkey_file = {:?}\n", state.path("absent.key")),
            ":4:12: sampling.key_file: ".to_owned(),
        ),
    ] {
        let files = Files::new(&format!("[state]\ndirectory = {directory:?}\n{rest}"));
        files.refused(commands, "main.toml", &expected);
    }
    let file = Files::new("");
    let files = Files::new(&format!(
        "[state]\ndirectory = {:?}\n",
        file.path("main.toml")
    ));
    files.refused(commands, "main.toml", ":2:13: state.directory: ");
}

#[test]
fn a_configuration_that_is_wrong_here_is_78_with_its_place() {
    wrong_here(&["check"]);
}

#[test]
fn and_run_says_it_too() {
    let Some(_turn) = turn() else { return };
    wrong_here(&["run"]);
}

#[test]
fn a_missing_privilege_is_77_and_named() {
    let Some(_turn) = turn() else { return };
    let without = |missing: Vec<Capability>| {
        let mut command = sampler(&TRIAL);
        // SAFETY: between fork and exec only prctl(2) is called.
        unsafe {
            command.pre_exec(move || {
                for capability in &missing {
                    caps::drop(None, CapSet::Bounding, *capability)
                        .map_err(|_| std::io::ErrorKind::PermissionDenied)?;
                }
                Ok(())
            });
        }
        command
    };
    for capability in CAPABILITIES {
        let expected = format!("missing {capability}: run as root, or give the service");
        check(without(vec![capability]), exit::NO_PRIVILEGE, &expected);
    }
    let all = CAPABILITIES.map(|c| c.to_string()).join(", ");
    let command = without(CAPABILITIES.to_vec());
    check(command, exit::NO_PRIVILEGE, &format!("missing {all}: "));
}

/// The same machine with other mounts, for one command.
fn with_mounts(change: impl Fn() -> nix::Result<()> + Send + Sync + 'static) -> Command {
    let mut command = sampler(&TRIAL);
    // SAFETY: between fork and exec only unshare(2), mount(2) and umount2(2) are called.
    unsafe {
        command.pre_exec(move || {
            unshare(CloneFlags::CLONE_NEWNS)?;
            // What is changed here is changed nowhere else.
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            let none = None::<&str>;
            mount(none, "/", none, private, none)?;
            Ok(change()?)
        });
    }
    command
}

#[test]
fn a_kernel_that_cannot_do_it_is_69() {
    let Some(_turn) = turn() else { return };
    let mounts = fs::read_to_string("/proc/self/mounts").expect("the mounts");
    let lines = mounts.lines().filter_map(cgroup::cgroup2_mount);
    let cgroups: Vec<_> = lines
        .map(|path| CString::new(path.into_os_string().into_encoded_bytes()).expect("a path"))
        .collect();
    let no_cgroup = with_mounts(move || {
        cgroups
            .iter()
            .try_for_each(|path| umount2(path.as_c_str(), MntFlags::MNT_DETACH))
    });
    let expected = "no cgroup v2 file system is mounted";
    check(no_cgroup, exit::UNSUPPORTED, expected);

    let no_types = with_mounts(|| {
        let nothing = MsFlags::empty();
        mount(
            Some("none"),
            "/sys/kernel/btf",
            Some("tmpfs"),
            nothing,
            None::<&str>,
        )
    });
    let expected = "this kernel has no type information (/sys/kernel/btf/vmlinux: ";
    check(no_types, exit::UNSUPPORTED, expected);
}
