//! Word to the service manager (`Type=notify`).
//!
//! Input: the daemon's life cycle, and every closed window edge with the monotonic time.
//! Output: READY, RELOADING, STATUS, STOPPING and WATCHDOG datagrams to `$NOTIFY_SOCKET`; nothing where that is unset.
//! Limits: a ping at most every `interval / 4`, a STATUS only when its text changed. The watchdog lives on window edges
//! alone: a daemon that is awake but produces no windows is restarted.
//! Units: `Duration` since the monotonic clock's start.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

/// What the service manager hears from this process.
#[derive(Debug)]
pub struct Notifier {
    ping_every: Option<Duration>,
    last_ping: Option<Duration>,
    last_status: String,
    complained: bool,
}

impl Notifier {
    /// A notifier with the watchdog interval that the service manager asked for in the environment, if it did.
    pub fn from_env() -> Self {
        Self::new(sd_notify::watchdog_enabled())
    }

    /// A notifier that is restarted when it stays silent for `interval` (none: no watchdog).
    pub fn new(interval: Option<Duration>) -> Self {
        Self {
            ping_every: interval.map(|whole| whole / 4),
            last_ping: None,
            last_status: String::new(),
            complained: false,
        }
    }

    /// The configuration is read and the program attached: the start, or a reload, is over.
    pub fn ready(&mut self, status: &str) {
        status.clone_into(&mut self.last_status);
        self.send(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// A reload begins; `now` is the monotonic clock, which the manager compares with the time of its own signal.
    /// [`Notifier::ready`] ends it, whether the new configuration was taken or not.
    pub fn reloading(&mut self, now: Duration) {
        let usec = i128::try_from(now.as_micros()).unwrap_or(i128::MAX);
        self.send(&[NotifyState::Reloading, NotifyState::MonotonicUsec(usec)]);
    }

    /// One line for `systemctl status`; sent when it differs from the last one.
    pub fn status(&mut self, status: &str) {
        if self.last_status != status {
            status.clone_into(&mut self.last_status);
            self.send(&[NotifyState::Status(status)]);
        }
    }

    /// The daemon begins to stop.
    pub fn stopping(&mut self, status: &str) {
        self.send(&[NotifyState::Stopping, NotifyState::Status(status)]);
    }

    /// A window was closed at `now`: feeds the watchdog, at most every quarter of its interval.
    pub fn window_closed(&mut self, now: Duration) {
        if self.ping_due(now) {
            self.last_ping = Some(now);
            self.send(&[NotifyState::Watchdog]);
        }
    }

    fn ping_due(&self, now: Duration) -> bool {
        match (self.ping_every, self.last_ping) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(every), Some(last)) => now.saturating_sub(last) >= every,
        }
    }

    fn send(&mut self, states: &[NotifyState<'_>]) {
        let Err(error) = sd_notify::notify(states) else {
            self.complained = false;
            return;
        };
        // Once per outage: a dead socket would otherwise fill the log at the window rate.
        if !std::mem::replace(&mut self.complained, true) {
            warn!(%error, "the service manager's notify socket does not take messages");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;

    use super::*;

    #[test]
    fn pings_at_most_every_quarter_of_the_interval() {
        let mut notifier = Notifier::new(Some(Duration::from_secs(60)));
        let mut pinged_at_s = Vec::new();
        for now_s in 100..140 {
            let now = Duration::from_secs(now_s);
            if notifier.ping_due(now) {
                pinged_at_s.push(now_s);
            }
            notifier.window_closed(now);
        }
        assert_eq!(pinged_at_s, [100, 115, 130]);
        assert!(!Notifier::new(None).ping_due(Duration::from_secs(1)));
    }

    /// The environment cannot be set safely inside a threaded test, so the test starts itself as the talking child.
    #[test]
    fn tells_the_manager_the_whole_life() {
        const CHILD: &str = "FLOWVITALS_NOTIFY_TEST_CHILD";
        if std::env::var_os(CHILD).is_some() {
            let mut notifier = Notifier::from_env();
            notifier.ready("sampling 3 streams");
            notifier.window_closed(Duration::from_secs(1));
            notifier.window_closed(Duration::from_secs(2));
            notifier.status("sampling 3 streams");
            notifier.status("sink: degraded");
            notifier.reloading(Duration::from_micros(77));
            notifier.ready("sampling 4 streams");
            notifier.stopping("flushing");
            return;
        }
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("bind");
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("timeout");
        let status = Command::new(std::env::current_exe().expect("own path"))
            .args(["notify::tests::tells_the_manager_the_whole_life", "--exact"])
            .env(CHILD, "1")
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "60000000")
            .output()
            .expect("child");
        assert!(status.status.success(), "{status:?}");
        for expected in [
            "READY=1\nSTATUS=sampling 3 streams\n",
            "WATCHDOG=1\n",
            "STATUS=sink: degraded\n",
            "RELOADING=1\nMONOTONIC_USEC=77\n",
            "READY=1\nSTATUS=sampling 4 streams\n",
            "STOPPING=1\nSTATUS=flushing\n",
        ] {
            let mut buffer = [0; 256];
            let length = socket.recv(&mut buffer).expect("message");
            assert_eq!(String::from_utf8_lossy(&buffer[..length]), expected);
        }
    }
}
