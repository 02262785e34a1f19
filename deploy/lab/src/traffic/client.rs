//! The players: carries out plans in one thread, and counts per connection.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::TrafficError;
pub use super::connection::ClientEnd;
use super::connection::Connection;
use super::plan::Plan;
use super::socket::{self, UNKNOWN};
use crate::clock;
use crate::netns::Namespace;

/// New connections per round, so that the ones that are there are served meanwhile.
const LAUNCHES: usize = 256;
/// The stop flag is looked at least this often.
const IDLE: Duration = Duration::from_millis(20);

/// One connection's account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientFlow {
    /// Index of its plan.
    pub plan: usize,
    /// The server's address.
    pub server: SocketAddr,
    /// The client's address; all zero when it never came to be.
    pub client: SocketAddr,
    /// Response bytes read, headers among them.
    pub bytes_read: u64,
    /// Whole responses.
    pub responses: u32,
    /// How it ended.
    pub end: ClientEnd,
}

/// Running players; stopped when dropped.
#[derive(Debug)]
pub struct Client {
    control: Arc<Control>,
    thread: Option<JoinHandle<Result<Vec<ClientFlow>, TrafficError>>>,
}

#[derive(Debug, Default)]
struct Control {
    stop: AtomicBool,
    open: AtomicUsize,
    launched: AtomicUsize,
}

impl Client {
    /// Starts all `plans` at once inside `namespace`.
    ///
    /// # Errors
    /// When a plan names no server or no thread is to be had.
    pub fn start(namespace: &Namespace, plans: &[Plan]) -> Result<Self, TrafficError> {
        socket::raise_file_limit();
        if let Some(plan) = plans.iter().find(|plan| plan.servers.is_empty()) {
            return Err(TrafficError::NoServer(plan.name.clone()));
        }
        let control = Arc::new(Control::default());
        let shared = control.clone();
        let mut engine = Engine::new(plans.to_vec())?;
        // Threads inherit the namespace of the thread that makes them.
        let thread = namespace.run_in(|| {
            std::thread::Builder::new()
                .name("lab-client".into())
                .spawn(move || engine.run(&shared))
        })??;
        Ok(Self {
            control,
            thread: Some(thread),
        })
    }

    /// Connections that are open or being made now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.control.open.load(Ordering::Relaxed)
    }

    /// Connections begun so far.
    #[must_use]
    pub fn launched(&self) -> usize {
        self.control.launched.load(Ordering::Relaxed)
    }

    /// Whether all plans are carried out.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until all plans are carried out; the accounts of all connections.
    ///
    /// # Errors
    /// When the event loop failed.
    pub fn wait(mut self) -> Result<Vec<ClientFlow>, TrafficError> {
        let thread = self.thread.take().ok_or(TrafficError::Panicked)?;
        thread.join().map_err(|_| TrafficError::Panicked)?
    }

    /// Closes what is open, starts nothing more; the accounts of all connections.
    ///
    /// # Errors
    /// When the event loop failed.
    pub fn stop(self) -> Result<Vec<ClientFlow>, TrafficError> {
        self.control.stop.store(true, Ordering::Relaxed);
        self.wait()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.control.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Nobody asked for the accounts.
            let _ = thread.join();
        }
    }
}

/// A connection and its place in the plan.
struct Running {
    connection: Connection,
    plan: usize,
    client: SocketAddr,
    server: SocketAddr,
    waits: EpollFlags,
    timer: Option<Instant>,
}

struct Engine {
    plans: Vec<Plan>,
    launched: Vec<usize>,
    live: Vec<usize>,
    epoll: Epoll,
    running: Vec<Option<Running>>,
    free: Vec<usize>,
    timers: BTreeSet<(Instant, usize)>,
    done: Vec<ClientFlow>,
    buffer: Vec<u8>,
}

impl Engine {
    fn new(plans: Vec<Plan>) -> io::Result<Self> {
        Ok(Self {
            launched: vec![0; plans.len()],
            live: vec![0; plans.len()],
            plans,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            running: Vec::new(),
            free: Vec::new(),
            timers: BTreeSet::new(),
            done: Vec::new(),
            buffer: vec![0; 262_144],
        })
    }

    fn run(&mut self, control: &Control) -> Result<Vec<ClientFlow>, TrafficError> {
        let mut events = vec![EpollEvent::empty(); 1_024];
        let start = clock::now();
        while !control.stop.load(Ordering::Relaxed) && !self.is_done() {
            let next_launch = self.launch(start, clock::now());
            let timeout = self.timeout(next_launch);
            let count = socket::wait(&self.epoll, &mut events, timeout)?.len();
            let now = clock::now();
            for event in &events[..count] {
                // Tokens are indices of our own making.
                self.advance(event.data() as usize, now);
            }
            while let Some(&(moment, slot)) = self.timers.first() {
                if moment > now {
                    break;
                }
                self.timers.pop_first();
                self.advance(slot, now);
            }
            control
                .open
                .store(self.running.len() - self.free.len(), Ordering::Relaxed);
            control
                .launched
                .store(self.launched.iter().sum(), Ordering::Relaxed);
        }
        for slot in 0..self.running.len() {
            self.finish(slot, ClientEnd::Open);
        }
        Ok(std::mem::take(&mut self.done))
    }

    fn is_done(&self) -> bool {
        let started = self.plans.iter().zip(&self.launched);
        self.running.len() == self.free.len()
            && started.into_iter().all(|(p, n)| *n >= p.connections)
    }

    /// Starts what is due; when the next one is, if that is known.
    fn launch(&mut self, start: Instant, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        let mut budget = LAUNCHES;
        for plan in 0..self.plans.len() {
            loop {
                let (n, options) = (self.launched[plan], &self.plans[plan]);
                let full = options.concurrency > 0 && self.live[plan] >= options.concurrency;
                if n >= options.connections || full {
                    break;
                }
                let due = start + spread(options.start_spread, n, options.connections);
                if due > now || budget == 0 {
                    next = Some(next.map_or(due, |other| other.min(due)));
                    break;
                }
                budget -= 1;
                self.launch_one(plan, n, now);
            }
        }
        next
    }

    fn launch_one(&mut self, plan: usize, n: usize, now: Instant) {
        self.launched[plan] += 1;
        let options = &self.plans[plan];
        let server = options.servers[n % options.servers.len()];
        let slot = self.free.pop().unwrap_or_else(|| {
            self.running.push(None);
            self.running.len() - 1
        });
        let waits = EpollFlags::EPOLLOUT;
        let made = socket::connecting(options, n).and_then(|stream| {
            self.epoll
                .add(&stream, EpollEvent::new(waits, slot as u64))?;
            Ok(stream)
        });
        match made {
            Ok(stream) => {
                self.live[plan] += 1;
                let fast_open = options.fast_open;
                let client = stream.local_addr().unwrap_or(UNKNOWN);
                self.running[slot] = Some(Running {
                    connection: Connection::new(stream, options, now),
                    plan,
                    client: socket::canonical(client),
                    server: socket::canonical(server),
                    waits,
                    timer: None,
                });
                if fast_open {
                    // The SYN leaves with the first write.
                    self.advance(slot, now);
                }
            }
            Err(error) => {
                self.free.push(slot);
                self.done.push(ClientFlow {
                    plan,
                    server: socket::canonical(server),
                    client: UNKNOWN,
                    bytes_read: 0,
                    responses: 0,
                    end: ClientEnd::ConnectFailed(error.kind()),
                });
            }
        }
    }

    fn timeout(&self, next_launch: Option<Instant>) -> EpollTimeout {
        let timer = self.timers.first().map(|(moment, _)| *moment);
        let next = timer.into_iter().chain(next_launch).min();
        let left = next.map_or(IDLE, |moment| {
            moment.saturating_duration_since(clock::now()).min(IDLE)
        });
        // Rounded up: a wait that ends too early would spin.
        EpollTimeout::try_from(left.as_micros().div_ceil(1_000)).unwrap_or(EpollTimeout::ZERO)
    }

    fn advance(&mut self, slot: usize, now: Instant) {
        let Some(running) = self.running.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        let plan = &self.plans[running.plan];
        match running.connection.advance(plan, now, &mut self.buffer) {
            Err(end) => self.finish(slot, end),
            Ok(next) => {
                if running.timer != next.until {
                    if let Some(old) = running.timer {
                        self.timers.remove(&(old, slot));
                    }
                    running.timer = next.until;
                    if let Some(moment) = next.until {
                        self.timers.insert((moment, slot));
                    }
                }
                let waits = socket::interest(next.read, next.write);
                if waits != running.waits {
                    running.waits = waits;
                    let mut event = EpollEvent::new(waits, slot as u64);
                    // Fails only for a descriptor that is not there, which this one is.
                    let _ = self.epoll.modify(&running.connection.stream, &mut event);
                }
            }
        }
    }

    fn finish(&mut self, slot: usize, end: ClientEnd) {
        let Some(running) = self.running[slot].take() else {
            return;
        };
        self.free.push(slot);
        self.live[running.plan] -= 1;
        if let Some(moment) = running.timer {
            self.timers.remove(&(moment, slot));
        }
        let stream = running.connection.stream;
        // The port is chosen at connect, the address perhaps then too.
        let client = stream
            .local_addr()
            .map_or(running.client, socket::canonical);
        self.done.push(ClientFlow {
            plan: running.plan,
            server: running.server,
            client,
            bytes_read: running.connection.bytes_read,
            responses: running.connection.responses,
            end,
        });
        if end == ClientEnd::ResetSent {
            socket::reset(stream);
        }
    }
}

/// When connection `n` of `all` starts.
fn spread(over: Duration, n: usize, all: usize) -> Duration {
    let part = n as f64 / all.max(1) as f64;
    over.mul_f64(part)
}
