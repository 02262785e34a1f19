//! Connections one after the other over a loopback of their own: one thread serves, one asks, both
//! with blocking sockets and no pause, so that little but TCP itself takes time.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Result, anyhow};
use lab::netns::Namespace;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};

/// Both threads run here: where the scheduler puts them would make more difference than the sampler.
const CPU: usize = 0;
/// Written and read at a time.
const CHUNK_BYTES: usize = 262_144;

/// A namespace with a server's socket in it.
pub struct Loopback {
    namespace: Namespace,
    listener: TcpListener,
    address: SocketAddr,
}

impl Loopback {
    /// Listens; the cgroup of the process is now the cgroup of all connections' server ends.
    pub fn new(port: u16) -> Result<Self> {
        let namespace = Namespace::new("bench")?;
        // Closed connections wait in a table for a minute, and each round would be slower than
        // the one before.
        namespace.sysctl("net.ipv4.tcp_max_tw_buckets", "0")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = namespace.run_in(|| TcpListener::bind(address))??;
        Ok(Self {
            namespace,
            listener,
            address,
        })
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes `connections` connections, one after the other; on each the server sends `bytes`.
    /// What it took is CPU time of both threads, with what the kernel did in their time.
    pub fn run(&self, connections: usize, bytes: usize) -> Result<Duration> {
        self.namespace.run_in(|| {
            std::thread::scope(|scope| {
                let server = scope.spawn(|| timed(|| serve(&self.listener, connections, bytes)));
                let client = timed(|| ask(self.address, connections, bytes));
                let server = server.join().map_err(|_| anyhow!("the server panicked"))?;
                Ok(client? + server?)
            })
        })?
    }
}

/// CPU time that the calling thread takes for `work`, on the one CPU.
fn timed(work: impl FnOnce() -> io::Result<()>) -> Result<Duration> {
    let mut cpus = CpuSet::new();
    cpus.set(CPU)?;
    sched_setaffinity(Pid::from_raw(0), &cpus)?;
    let now = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from);
    let begin = now()?;
    work()?;
    Ok(now()? - begin)
}

fn serve(listener: &TcpListener, connections: usize, bytes: usize) -> io::Result<()> {
    let chunk = vec![0; CHUNK_BYTES.min(bytes)];
    for _ in 0..connections {
        let (mut stream, _) = listener.accept()?;
        stream.read_exact(&mut [0])?;
        let mut left = bytes;
        while left > 0 {
            left -= stream.write(&chunk[..left.min(chunk.len())])?;
        }
    }
    Ok(())
}

fn ask(server: SocketAddr, connections: usize, bytes: usize) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES.min(bytes)];
    for _ in 0..connections {
        let mut stream = TcpStream::connect(server)?;
        stream.write_all(&[0])?;
        while stream.read(&mut chunk)? > 0 {}
    }
    Ok(())
}
