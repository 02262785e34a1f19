//! Players that note when bytes came: the receiver's own view of a stall.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use lab::netns::Namespace;

/// The readers look at their stop flag at least this often.
const IDLE: Duration = Duration::from_millis(50);

/// Running players, a thread each.
pub struct Readers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Duration>>>,
}

impl Readers {
    /// Connects `count` players, each of which asks for so many bytes and reads what comes.
    pub fn start(namespace: &Namespace, server: SocketAddr, count: usize, bytes: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = namespace
            .run_in(|| {
                (0..count)
                    .map(|_| {
                        let stop = Arc::clone(&stop);
                        let mut stream = TcpStream::connect(server).expect("a connection");
                        writeln!(stream, "GET {bytes}").expect("a request");
                        stream.set_read_timeout(Some(IDLE)).expect("a time-out");
                        std::thread::spawn(move || read(stream, &stop))
                    })
                    .collect()
            })
            .expect("the namespace");
        Self { stop, threads }
    }

    /// Closes all; for each player the times between one read and the next.
    pub fn stop(self) -> Vec<Vec<Duration>> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads
            .into_iter()
            .map(|thread| thread.join().expect("a reader"))
            .collect()
    }
}

fn read(mut stream: TcpStream, stop: &AtomicBool) -> Vec<Duration> {
    let mut gaps = Vec::new();
    let mut last: Option<Instant> = None;
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(_) => {
                let now = Instant::now();
                gaps.extend(last.map(|last| now - last));
                last = Some(now);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => panic!("a read failed: {error}"),
        }
    }
    gaps
}
