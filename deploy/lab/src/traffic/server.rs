//! The edge: answers requests on many ports in one thread, and counts per connection.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::TrafficError;
use super::reply::{Next, Reply};
use super::socket::{self, UNKNOWN};
use crate::clock;
use crate::netns::Namespace;

/// Writes in one turn, so that a fast connection leaves room for the others.
const WRITES: u32 = 32;

/// Congestion control of the server's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Congestion {
    /// BBR.
    Bbr,
    /// CUBIC.
    Cubic,
    /// Reno.
    Reno,
}

impl Congestion {
    /// The kernel's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bbr => "bbr",
            Self::Cubic => "cubic",
            Self::Reno => "reno",
        }
    }
}

/// One port to serve on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Address and port.
    pub address: SocketAddr,
    /// An IPv6 address that takes IPv4 connections too, as v4-mapped ones.
    pub dual_stack: bool,
    /// Congestion control of its connections.
    pub congestion: Congestion,
    /// A server that is slow at the transport: the kernel holds data back (SO_MAX_PACING_RATE).
    pub pacing_bytes_per_s: Option<u32>,
    /// Kernel's send buffer (SO_SNDBUF).
    pub send_buffer_bytes: Option<usize>,
    /// Takes data in the SYN; also needs the sysctl `net.ipv4.tcp_fastopen`.
    pub fast_open: bool,
    /// Mark of its packets (SO_MARK), of every connection's too.
    pub mark: Option<u32>,
}

impl Listen {
    /// CUBIC and no other option.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            dual_stack: false,
            congestion: Congestion::Cubic,
            pacing_bytes_per_s: None,
            send_buffer_bytes: None,
            fast_open: false,
            mark: None,
        }
    }

    /// The same with another congestion control.
    #[must_use]
    pub fn with(mut self, congestion: Congestion) -> Self {
        self.congestion = congestion;
        self
    }
}

/// How a connection ended, as the server saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerEnd {
    /// The client sent FIN, then the server.
    ClientFin,
    /// The server sent FIN first.
    ServerFin,
    /// The client reset, or the kernel gave up.
    Reset,
    /// The server reset.
    ResetSent,
    /// Open when the server stopped.
    Open,
}

/// One connection's account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerFlow {
    /// The server's address, IPv4 also where it was v4-mapped.
    pub server: SocketAddr,
    /// The client's address, IPv4 also where it was v4-mapped.
    pub client: SocketAddr,
    /// Response bytes that the kernel took.
    pub bytes_written: u64,
    /// Request bytes that came.
    pub bytes_read: u64,
    /// How it ended.
    pub end: ServerEnd,
}

/// A running server; stops when dropped.
#[derive(Debug)]
pub struct Server {
    control: Arc<Control>,
    thread: Option<JoinHandle<io::Result<Vec<ServerFlow>>>>,
}

#[derive(Debug, Default)]
struct Control {
    stop: AtomicBool,
    open: AtomicUsize,
    accepted: AtomicUsize,
}

impl Server {
    /// Listens on all of `listens` inside `namespace`.
    ///
    /// # Errors
    /// When one of them cannot be listened on.
    pub fn start(namespace: &Namespace, listens: &[Listen]) -> Result<Self, TrafficError> {
        socket::raise_file_limit();
        let listeners = namespace.run_in(|| {
            let open = |listen: &Listen| {
                socket::listener(listen).map_err(|source| TrafficError::Listen {
                    address: listen.address,
                    source,
                })
            };
            listens.iter().map(open).collect::<Result<Vec<_>, _>>()
        })??;
        let control = Arc::new(Control::default());
        let shared = control.clone();
        let mut engine = Engine::new(listeners)?;
        let thread = std::thread::Builder::new()
            .name("lab-server".into())
            .spawn(move || engine.run(&shared))?;
        Ok(Self {
            control,
            thread: Some(thread),
        })
    }

    /// Connections that the server has open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.control.open.load(Ordering::Relaxed)
    }

    /// Connections that it has accepted since its start.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.control.accepted.load(Ordering::Relaxed)
    }

    /// Waits until no connection is open; whether that came true in time.
    #[must_use = "connections may still be open"]
    pub fn idle_within(&self, timeout: Duration) -> bool {
        clock::wait_until(timeout, || self.open() == 0)
    }

    /// Ends it, closing what is open, and hands over the accounts of all connections.
    ///
    /// # Errors
    /// When its event loop failed.
    pub fn stop(mut self) -> Result<Vec<ServerFlow>, TrafficError> {
        self.control.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().ok_or(TrafficError::Panicked)?;
        let flows = thread.join().map_err(|_| TrafficError::Panicked)?;
        Ok(flows?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.control.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Nobody asked for the accounts.
            let _ = thread.join();
        }
    }
}

struct Connection {
    stream: TcpStream,
    flow: ServerFlow,
    reply: Reply,
    client_done: bool,
    waits: EpollFlags,
}

struct Engine {
    epoll: Epoll,
    listeners: Vec<TcpListener>,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    timers: BTreeSet<(Instant, usize)>,
    done: Vec<ServerFlow>,
    buffer: Vec<u8>,
}

impl Engine {
    fn new(listeners: Vec<TcpListener>) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for (token, listener) in (0..).zip(&listeners) {
            epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
        }
        Ok(Self {
            epoll,
            listeners,
            connections: Vec::new(),
            free: Vec::new(),
            timers: BTreeSet::new(),
            done: Vec::new(),
            buffer: vec![0; 65_536],
        })
    }

    fn run(&mut self, control: &Control) -> io::Result<Vec<ServerFlow>> {
        let mut events = vec![EpollEvent::empty(); 1_024];
        while !control.stop.load(Ordering::Relaxed) {
            let count = socket::wait(&self.epoll, &mut events, self.timeout())?.len();
            for event in &events[..count] {
                // Tokens are indices of our own making.
                let token = event.data() as usize;
                if token < self.listeners.len() {
                    self.accept(token, control);
                } else {
                    self.advance(token - self.listeners.len(), event.events());
                }
            }
            self.fire_timers();
            let open = self.connections.len() - self.free.len();
            control.open.store(open, Ordering::Relaxed);
        }
        let open = self.connections.iter_mut().filter_map(Option::take);
        self.done.extend(open.map(|connection| connection.flow));
        Ok(std::mem::take(&mut self.done))
    }

    /// At most 20 ms, so that the stop flag is seen soon.
    fn timeout(&self) -> EpollTimeout {
        let idle = Duration::from_millis(20);
        let next = self.timers.first().map_or(idle, |(moment, _)| {
            moment.saturating_duration_since(clock::now()).min(idle)
        });
        // Rounded up: a wait that ends too early would spin.
        let ms = next.as_micros().div_ceil(1_000);
        EpollTimeout::try_from(ms).unwrap_or(EpollTimeout::ZERO)
    }

    fn fire_timers(&mut self) {
        let now = clock::now();
        while let Some(&(moment, slot)) = self.timers.first() {
            if moment > now {
                return;
            }
            self.timers.pop_first();
            self.advance(slot, EpollFlags::empty());
        }
    }

    fn accept(&mut self, listener: usize, control: &Control) {
        // Until none is waiting; other errors concern the one connection that is gone already.
        loop {
            match self.listeners[listener].accept() {
                Ok((stream, client)) => {
                    control.accepted.fetch_add(1, Ordering::Relaxed);
                    control.open.fetch_add(1, Ordering::Relaxed);
                    self.admit(stream, client);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(_) => return,
            }
        }
    }

    fn admit(&mut self, stream: TcpStream, client: SocketAddr) {
        let server = stream.local_addr().unwrap_or(UNKNOWN);
        if stream.set_nonblocking(true).is_err() || stream.set_nodelay(true).is_err() {
            return;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        let waits = EpollFlags::EPOLLIN;
        let token = (slot + self.listeners.len()) as u64;
        if self
            .epoll
            .add(&stream, EpollEvent::new(waits, token))
            .is_err()
        {
            self.free.push(slot);
            return;
        }
        self.connections[slot] = Some(Connection {
            stream,
            flow: ServerFlow {
                server: socket::canonical(server),
                client: socket::canonical(client),
                bytes_written: 0,
                bytes_read: 0,
                end: ServerEnd::Open,
            },
            reply: Reply::default(),
            client_done: false,
            waits,
        });
    }

    /// Reads and writes what can be; ends or re-arms the connection.
    fn advance(&mut self, slot: usize, events: EpollFlags) {
        let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        let readable = EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        let outcome = if events.intersects(readable) && !connection.client_done {
            connection.read(&mut self.buffer)
        } else if events.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            Err(ServerEnd::Reset)
        } else {
            Ok(())
        };
        let step = outcome.and_then(|()| connection.write());
        match step {
            Ok(next) => self.rearm(slot, next),
            Err(end) => self.finish(slot, end),
        }
    }

    fn rearm(&mut self, slot: usize, next: Next) {
        let Some(connection) = self.connections[slot].as_mut() else {
            return;
        };
        if let Next::Wait(moment) = next {
            self.timers.insert((moment, slot));
        }
        let write = matches!(next, Next::Write(_));
        let waits = socket::interest(!connection.client_done, write);
        if waits == connection.waits {
            return;
        }
        connection.waits = waits;
        let token = (slot + self.listeners.len()) as u64;
        let mut event = EpollEvent::new(waits, token);
        // Fails only for a descriptor that is not there, which this one is.
        let _ = self.epoll.modify(&connection.stream, &mut event);
    }

    fn finish(&mut self, slot: usize, end: ServerEnd) {
        if let Some(mut connection) = self.connections[slot].take() {
            connection.flow.end = end;
            self.done.push(connection.flow);
            self.free.push(slot);
            self.timers.retain(|(_, owner)| *owner != slot);
            if end == ServerEnd::ResetSent {
                socket::reset(connection.stream);
            }
        }
    }
}

impl Connection {
    fn read(&mut self, buffer: &mut [u8]) -> Result<(), ServerEnd> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => {
                    self.client_done = true;
                    return Ok(());
                }
                Ok(count) => {
                    self.flow.bytes_read += count as u64;
                    if !self.reply.feed(&buffer[..count]) {
                        return Err(ServerEnd::ResetSent);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(ServerEnd::Reset),
            }
        }
    }

    /// Writes until the kernel is full or nothing is to be said; the end if it has come.
    fn write(&mut self) -> Result<Next, ServerEnd> {
        static ZEROS: [u8; 65_536] = [0; 65_536];
        let mut writes = 0;
        loop {
            let now = clock::now();
            let next = self.reply.next(now);
            let bytes = match next {
                Next::Write(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
                Next::Close => return Err(ServerEnd::ServerFin),
                Next::Reset => return Err(ServerEnd::ResetSent),
                Next::Idle if self.client_done => return Err(ServerEnd::ClientFin),
                Next::Idle | Next::Wait(_) => return Ok(next),
            };
            writes += 1;
            if writes > WRITES {
                return Ok(next);
            }
            match self.stream.write(&ZEROS[..bytes.min(ZEROS.len())]) {
                Ok(count) => {
                    self.flow.bytes_written += count as u64;
                    self.reply.written(count as u64, now);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(next),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(ServerEnd::Reset),
            }
        }
    }
}
