//! Starts the built sampler inside a server's namespace and collects its events.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use lab::{
    clock,
    counters::TcpCounters,
    netns::Namespace,
    network::{Network, Options},
    traffic::{
        self,
        plan::Plan,
        report::Report,
        server::{Listen, Server},
    },
};
use sampler_event::{Event, StreamWindow};
use serde_json::Value;

use crate::supervisor::Supervisor;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_flowvitals-sampler");

/// The control socket in a state directory.
pub const CONTROL: &str = "control.sock";

/// The machine has few cores: tests that measure run one after the other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The sampling key of every run.
pub const KEY: [u8; 16] = [7; 16];

/// Longest wait for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The right to run a kernel test now; `None` where the machine cannot (said why).
pub fn turn() -> Option<MutexGuard<'static, ()>> {
    let required = std::env::var_os("FLOWVITALS_REQUIRE_KERNEL").is_some();
    let missing = sampler::kernel::load::missing_capabilities();
    let root = nix::unistd::geteuid().is_root();
    if root && missing.is_empty() {
        return Some(ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner));
    }
    assert!(
        !required,
        "kernel tests are required, but root or {missing:?} is missing"
    );
    eprintln!("skipped: needs root and {missing:?}");
    None
}

/// A network as a test needs it.
pub fn network(options: Options) -> Network {
    Network::new(options).expect("two namespaces and a link between them")
}

/// One stream named "all", every flow of it in the sample.
pub fn all(local: &[impl ToString]) -> String {
    let local: Vec<_> = local.iter().map(ToString::to_string).collect();
    format!("[[stream]]\nname = \"all\"\nrate = 1.0\nlocal = {local:?}\n")
}

/// What everybody counted of some traffic.
pub struct Observed {
    /// Both ends.
    pub report: Report,
    /// The kernel of the server's namespace.
    pub kernel: TcpCounters,
    /// The sampler.
    pub events: Events,
}

/// Traffic from its first connection to its last, beside a sampler that stops after it.
pub fn observe(
    network: &Network,
    sampler: Sampler,
    listens: &[Listen],
    plans: &[Plan],
) -> Observed {
    let before = TcpCounters::read(network.server()).expect("counters");
    let report = traffic::run(network, listens, plans).expect("traffic");
    sampler.wait_windows(2);
    let after = TcpCounters::read(network.server()).expect("counters");
    Observed {
        report,
        kernel: after.since(&before),
        events: sampler.stop(),
    }
}

impl Observed {
    /// Stream "all" has every flow once, and its counters are the kernel's and the server's.
    /// All connections were closed by FIN after everything was read.
    pub fn assert_exact(&self) {
        let Self {
            report,
            kernel,
            events,
        } = self;
        let accepted = report.accepted() as u64;
        assert_eq!(report.failed(), 0, "{:?}", report.groups);
        for field in ["flows_seen", "flows_sampled", "flows_closed"] {
            assert_eq!(events.sum("all", field), accepted, "{field}");
        }
        assert_eq!(
            events.sum("all", "retrans_segs"),
            kernel.data_retrans_segs()
        );
        assert!(events.sum("all", "syn_retrans") <= kernel.syn_retrans);
        assert_eq!(events.sum("all", "bytes_acked"), report.bytes_written());
        events.assert_laws();
    }
}

/// Waits until so many connections are accepted and no counter moves any more; the kernel's then.
pub fn at_rest(network: &Network, server: &Server, connections: usize) -> TcpCounters {
    let mut last = TcpCounters::default();
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let now = TcpCounters::read(network.server()).expect("counters");
        if now.out_segs == last.out_segs && server.accepted() == connections {
            return last;
        }
        last = now;
    }
}

/// By life, the sequences of its events.
pub fn lives(events: impl Iterator<Item = (u64, u64)>) -> BTreeMap<u64, Vec<u64>> {
    let mut lives = BTreeMap::<u64, Vec<u64>>::new();
    for (instance, sequence) in events {
        lives.entry(instance).or_default().push(sequence);
    }
    lives.values_mut().for_each(|of| of.sort_unstable());
    lives
}

/// The answer of the sampler's endpoint in this namespace, with its head.
pub fn http_get(namespace: &Namespace, path: &str) -> String {
    let ask = || {
        let mut stream = TcpStream::connect(("127.0.0.1", 9740)).expect("the endpoint");
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        .expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    namespace.run_in(ask).expect("the namespace")
}

/// A running sampler.
pub struct Sampler {
    child: Child,
    events: Arc<Mutex<Vec<Value>>>,
    log: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
    state: tempfile::TempDir,
}

impl Sampler {
    /// Starts with these `[[stream]]` tables (and whatever else), windows to standard output,
    /// and waits until it is attached.
    pub fn start(namespace: &Namespace, config: &str) -> Self {
        Self::start_in(namespace, Self::configured(config))
    }

    /// Kills it without a warning, which leaves what it has in its state directory.
    pub fn kill(mut self) -> tempfile::TempDir {
        self.signal(nix::sys::signal::Signal::SIGKILL);
        self.child.wait().expect("an exit status");
        let empty = tempfile::tempdir().expect("a directory");
        std::mem::replace(&mut self.state, empty)
    }

    /// A state directory with a configuration, for [`Sampler::start_in`] and [`Sampler::start_under`].
    pub fn configured(config: &str) -> tempfile::TempDir {
        let state = tempfile::tempdir().expect("a state directory");
        let file = state.path().join("sampler.toml");
        std::fs::write(&file, config_text(&state, config)).expect("a configuration");
        state
    }

    /// Starts in the state directory of an earlier one, with its configuration.
    pub fn start_in(namespace: &Namespace, state: tempfile::TempDir) -> Self {
        Self::spawn(namespace.command(PROGRAM), state).attached()
    }

    /// A command with a configuration that ends by itself: what it said, and its exit status.
    pub fn ask(namespace: &Namespace, config: &str, command: &str) -> Output {
        let state = Self::configured(config);
        let mut asked = namespace.command(PROGRAM);
        asked.args([command, "--config"]);
        asked.arg(state.path().join("sampler.toml"));
        asked.output().expect("the sampler")
    }

    /// Has a service manager start it, and does not wait.
    pub fn start_under(
        supervisor: &Supervisor,
        namespace: &Namespace,
        state: tempfile::TempDir,
    ) -> Self {
        Self::spawn(supervisor.command(namespace, PROGRAM), state)
    }

    /// Waits until it is attached.
    pub fn attached(self) -> Self {
        self.wait_for("it is attached", |s| s.log().contains("attached at"));
        self
    }

    fn spawn(mut command: Command, state: tempfile::TempDir) -> Self {
        let file = state.path().join("sampler.toml");
        let mut child = command
            .args(["run", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the sampler");
        let events = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::new(Mutex::new(String::new()));
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let sink = Arc::clone(&events);
        let log_sink = Arc::clone(&log);
        let readers = vec![
            std::thread::spawn(move || {
                for line in stdout.lines().map_while(Result::ok) {
                    let event = serde_json::from_str(&line).expect("a JSON line");
                    sink.lock().expect("events").push(event);
                }
            }),
            std::thread::spawn(move || {
                for line in stderr.lines().map_while(Result::ok) {
                    let mut log = log_sink.lock().expect("log");
                    log.push_str(&line);
                    log.push('\n');
                }
            }),
        ];
        Self {
            child,
            events,
            log,
            readers,
            state,
        }
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("log").clone()
    }

    /// Waits until `done`, or panics with the log.
    pub fn wait_for(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let begin = Instant::now();
        while !done(self) {
            assert!(
                begin.elapsed() < PATIENCE,
                "waited in vain until {what}:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Events so far.
    pub fn events(&self) -> Events {
        Events(self.events.lock().expect("events").clone())
    }

    /// Waits for `count` more windows to close, by their heartbeats.
    pub fn wait_windows(&self, count: usize) {
        let heartbeats = |s: &Self| s.events().of_type("node").count();
        let before = heartbeats(self);
        self.wait_for("windows are closed", |s| heartbeats(s) >= before + count);
    }

    /// Writes another configuration and sends SIGHUP.
    pub fn reload(&self, config: &str) {
        let file = self.state.path().join("sampler.toml");
        std::fs::write(file, config_text(&self.state, config)).expect("a configuration");
        self.signal(nix::sys::signal::Signal::SIGHUP);
    }

    /// Sends a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(self.pid(), signal).expect("a signal");
    }

    /// Its state directory.
    pub fn state(&self) -> &Path {
        self.state.path()
    }

    /// Waits until it ends by itself: its exit status, and its state directory.
    pub fn ended(mut self) -> (Option<i32>, tempfile::TempDir) {
        let end = clock::wait_until(PATIENCE, || {
            self.child.try_wait().is_ok_and(|status| status.is_some())
        });
        assert!(end, "it does not end:\n{}", self.log());
        let status = self.child.wait().expect("an exit status");
        let empty = tempfile::tempdir().expect("a directory");
        (status.code(), std::mem::replace(&mut self.state, empty))
    }

    /// SIGTERM, then its state directory.
    pub fn stop_and_leave(mut self) -> tempfile::TempDir {
        self.end();
        let empty = tempfile::tempdir().expect("a directory");
        std::mem::replace(&mut self.state, empty)
    }

    /// Its process id.
    pub fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.child.id() as i32)
    }

    /// SIGTERM, then all that it logged.
    pub fn stop_with_log(mut self) -> String {
        self.end();
        self.log()
    }

    /// SIGTERM, then all its events.
    pub fn stop(mut self) -> Events {
        self.end();
        self.events()
    }

    fn end(&mut self) {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        let status = self.child.wait().expect("an exit status");
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader");
        }
        assert!(status.success(), "{status}:\n{}", self.log());
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        // Only after a failed test; `stop` has waited for it already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn config_text(state: &tempfile::TempDir, config: &str) -> String {
    let key = state.path().join("sampling.key");
    if !key.exists() {
        std::fs::write(&key, KEY).expect("a key");
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&key, mode).expect("a mode");
    }
    // As it is built for tests it costs more than a service may.
    let limits = match config.contains("[limits]") {
        true => "",
        false => "[limits]\naction = \"log\"\n",
    };
    format!(
        "site = \"test\"\n[state]\ndirectory = {:?}\n[metrics]\nlisten = \"127.0.0.1:9740\"\n[control]\nsocket = {:?}\n{limits}{config}",
        state.path(),
        state.path().join(CONTROL)
    )
}

/// Events of a run.
pub struct Events(pub Vec<Value>);

impl Events {
    /// Those of a type: window, pulse or node.
    pub fn of_type<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter(move |e| e["type"] == kind)
    }

    /// Windows of a stream.
    pub fn windows<'a>(&'a self, stream: &'a str) -> impl Iterator<Item = &'a Value> {
        self.of_type("window")
            .filter(move |e| e["stream"] == stream)
    }

    /// Sum of a field over all windows of a stream.
    pub fn sum(&self, stream: &str, field: &str) -> u64 {
        self.windows(stream).map(|w| number(w, field)).sum()
    }

    /// Sum of a field over all windows of all streams.
    pub fn sum_all(&self, field: &str) -> u64 {
        self.of_type("window").map(|w| number(w, field)).sum()
    }

    /// All of them as what they are.
    pub fn decoded(&self) -> impl Iterator<Item = Event> {
        self.0
            .iter()
            .map(|event| serde_json::from_value(event.clone()).expect("an event"))
    }

    /// Windows of a stream as what they are.
    pub fn stream_windows(&self, stream: &str) -> Vec<StreamWindow> {
        self.decoded()
            .filter_map(|event| match event {
                Event::Window(window) if window.stream == stream => Some(*window),
                _ => None,
            })
            .collect()
    }

    /// The last heartbeat.
    pub fn last_heartbeat(&self) -> &Value {
        self.of_type("node").last().expect("a heartbeat")
    }

    /// All laws.
    pub fn assert_laws(&self) {
        self.assert_ledger();
        self.assert_wholes();
    }

    /// The laws of the ledger, and that no sequence has a gap.
    pub fn assert_ledger(&self) {
        let last = self.last_heartbeat();
        let n = |field| number(last, field);
        assert_eq!(
            n("flows_selected"),
            n("flows_sampled") + n("flows_refused"),
            "{last}"
        );
        assert_eq!(
            n("flows_sampled") + n("flows_picked_up"),
            n("flows_closed") + n("flows_open"),
            "{last}"
        );
        for kind in ["window", "pulse"] {
            let mut next = std::collections::HashMap::<&str, u64>::new();
            for event in self.of_type(kind) {
                let expected = next
                    .entry(event["stream"].as_str().expect("a name"))
                    .or_default();
                assert_eq!(number(event, "sequence"), *expected, "{event}");
                *expected += 1;
            }
        }
        for field in [
            "flows_selected",
            "flows_sampled",
            "flows_picked_up",
            "flows_closed",
        ] {
            assert_eq!(self.sum_all(field), n(field), "{field}: windows and ledger");
        }
    }

    /// Every retransmitted segment has one cause, and groups add up to their whole. Over the
    /// run only: a window's words are read one by one while callbacks add to them.
    fn assert_wholes(&self) {
        let n = |field| self.sum_all(field);
        assert_eq!(
            n("retrans_segs"),
            n("retrans_rto_segs") + n("retrans_fast_segs") + n("retrans_other_segs")
        );
        for (group, whole) in [
            ("g_retrans_segs", "retrans_segs"),
            ("g_data_segs_out", "data_segs_out"),
            ("g_rtt_count", "rtt_count"),
        ] {
            let groups = self
                .of_type("window")
                .filter_map(|w| w[group].as_array())
                .flatten();
            assert_eq!(
                groups.filter_map(Value::as_u64).sum::<u64>(),
                n(whole),
                "{group}"
            );
        }
    }
}

/// A field as a number.
pub fn number(event: &Value, field: &str) -> u64 {
    event[field]
        .as_u64()
        .unwrap_or_else(|| panic!("{field} of {event}"))
}
