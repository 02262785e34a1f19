//! Real delay without netem: a relay thread between two TUN devices, one in each namespace.
//!
//! Each packet leaves `delay` after it came, in the order in which packets came: when the delay
//! shrinks at run time, later packets wait for earlier ones. Limits: 65,536 packets in each
//! direction, what comes above that is dropped and counted; IP only; a few hundred MB/s.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use crate::clock;
use crate::netns::{Namespace, NetnsError};
use crate::network::DEVICE;

const QUEUE_PACKETS: usize = 65_536;
const PACKET_BYTES: usize = 2_048;
/// How many packets are read from one side before the other side has its turn.
const BATCH_PACKETS: usize = 256;
/// The relay looks at its stop flag at least this often.
const IDLE: Duration = Duration::from_millis(20);

/// A relay that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum DelayError {
    /// A namespace said no.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The TUN device cannot be made.
    #[error("cannot make a tun device in network namespace {name}: {source}")]
    Tun {
        /// The namespace.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// No thread to be had.
    #[error("cannot start the relay: {0}")]
    Thread(io::Error),
}

#[derive(Debug, Default)]
struct Shared {
    delay_us: AtomicU64,
    loss_ppm: AtomicU32,
    relayed_packets: AtomicU64,
    lost_packets: AtomicU64,
    overflow_packets: AtomicU64,
    stop: AtomicBool,
}

/// A running relay; it ends when dropped.
#[derive(Debug)]
pub struct DelayLink {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl DelayLink {
    /// Makes a device in both namespaces and starts the relay. `delay` is one way.
    ///
    /// # Errors
    /// When `/dev/net/tun` or a privilege is missing.
    pub fn new(
        server: &Namespace,
        client: &Namespace,
        delay: Duration,
    ) -> Result<Self, DelayError> {
        let ends = [open_device(server)?, open_device(client)?];
        for namespace in [server, client] {
            namespace.ip(&format!("link set {DEVICE} txqueuelen 10000 mtu 1500"))?;
        }
        let shared = Arc::new(Shared::default());
        let link = shared.clone();
        link.delay_us.store(micros(delay), Ordering::Relaxed);
        let thread = std::thread::Builder::new()
            .name("delay-relay".into())
            .spawn(move || relay(ends, &link))
            .map_err(DelayError::Thread)?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Changes the one-way delay for the packets that come from now on.
    pub fn set_delay(&self, delay: Duration) {
        self.shared.delay_us.store(micros(delay), Ordering::Relaxed);
    }

    /// Loses packets by chance in both directions, 0..1; the packet filter can do it apart.
    pub fn set_loss(&self, probability: f64) {
        let ppm = (probability.clamp(0.0, 1.0) * 1e6).round();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to 0..=1,000,000 just above"
        )]
        self.shared.loss_ppm.store(ppm as u32, Ordering::Relaxed);
    }

    /// Packets handed on, lost by chance, and dropped for a full queue.
    #[must_use]
    pub fn packets(&self) -> (u64, u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (
            read(&self.shared.relayed_packets),
            read(&self.shared.lost_packets),
            read(&self.shared.overflow_packets),
        )
    }
}

impl Drop for DelayLink {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It panicked if this fails, and has said so already.
            let _ = thread.join();
        }
    }
}

fn micros(delay: Duration) -> u64 {
    u64::try_from(delay.as_micros()).unwrap_or(u64::MAX / 2)
}

fn open_device(namespace: &Namespace) -> Result<File, DelayError> {
    namespace
        .run_in(|| {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NONBLOCK)
                .open("/dev/net/tun")?;
            // SAFETY: ifreq is plain data, for which all zero bytes are a valid value.
            let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
            for (to, from) in request.ifr_name.iter_mut().zip(DEVICE.bytes()) {
                *to = from.cast_signed();
            }
            // Both flags fit: IFF_TUN is 1, IFF_NO_PI 0x1000.
            request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
            // SAFETY: TUNSETIFF takes a pointer to an ifreq, which lives until the call returns.
            let made = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
            if made < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(file)
        })?
        .map_err(|source| DelayError::Tun {
            name: namespace.name().to_owned(),
            source,
        })
}

/// One direction: packets and when each may leave.
#[derive(Default)]
struct Queue {
    packets: VecDeque<(Instant, Vec<u8>)>,
    /// Packet buffers to use again.
    spare: Vec<Vec<u8>>,
}

impl Queue {
    /// When the next packet is due, if there is one.
    fn due(&self) -> Option<Instant> {
        self.packets.front().map(|(due, _)| *due)
    }

    fn push(&mut self, now: Instant, delay: Duration, packet: &[u8]) -> bool {
        if self.packets.len() >= QUEUE_PACKETS {
            return false;
        }
        let last = self.packets.back().map(|(due, _)| *due);
        let due = now + delay;
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(packet);
        self.packets
            .push_back((last.map_or(due, |last| last.max(due)), buffer));
        true
    }

    fn pop_due(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.due()? > now {
            return None;
        }
        self.packets.pop_front().map(|(_, packet)| packet)
    }
}

fn relay(mut ends: [File; 2], shared: &Shared) {
    let mut queues = [Queue::default(), Queue::default()];
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut buffer = vec![0_u8; PACKET_BYTES];
    while !shared.stop.load(Ordering::Relaxed) {
        wait(&ends, &queues);
        let now = clock::now();
        for (from, queue) in ends.iter_mut().zip(&mut queues) {
            receive(from, queue, now, shared, &mut random, &mut buffer);
        }
        let now = clock::now();
        let [server, client] = &mut ends;
        let [from_server, from_client] = &mut queues;
        send(client, from_server, now, shared);
        send(server, from_client, now, shared);
    }
}

/// Sleeps until a packet comes or one is due.
fn wait(ends: &[File; 2], queues: &[Queue; 2]) {
    let due = queues.iter().filter_map(Queue::due).min();
    let timeout = due.map_or(IDLE, |due| {
        due.saturating_duration_since(clock::now()).min(IDLE)
    });
    let mut fds = [
        PollFd::new(ends[0].as_fd(), PollFlags::POLLIN),
        PollFd::new(ends[1].as_fd(), PollFlags::POLLIN),
    ];
    // An interrupted wait is a short wait.
    let _ = ppoll(&mut fds, Some(TimeSpec::from_duration(timeout)), None);
}

fn receive(
    from: &mut File,
    queue: &mut Queue,
    now: Instant,
    shared: &Shared,
    random: &mut Random,
    buffer: &mut [u8],
) {
    let delay = Duration::from_micros(shared.delay_us.load(Ordering::Relaxed));
    let loss_ppm = shared.loss_ppm.load(Ordering::Relaxed);
    for _ in 0..BATCH_PACKETS {
        // Nothing more to read, or the device is down: the next round asks again.
        let Ok(length) = from.read(buffer) else {
            return;
        };
        if loss_ppm > 0 && random.below(1_000_000) < loss_ppm {
            shared.lost_packets.fetch_add(1, Ordering::Relaxed);
        } else if !queue.push(now, delay, &buffer[..length]) {
            shared.overflow_packets.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn send(to: &mut File, queue: &mut Queue, now: Instant, shared: &Shared) {
    while let Some(packet) = queue.pop_due(now) {
        // A device that is down or full loses the packet, as a network does; it is counted.
        let counter = match to.write(&packet) {
            Ok(_) => &shared.relayed_packets,
            Err(_) => &shared.overflow_packets,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if queue.spare.len() < BATCH_PACKETS {
            queue.spare.push(packet);
        }
    }
}

/// xorshift64*: loss needs no better chance.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        // high and bound are below 2^32, so the product fits and its high half is below bound.
        ((high * u64::from(bound)) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_keep_their_order_when_the_delay_shrinks() {
        let start = clock::now();
        let mut queue = Queue::default();
        assert!(queue.push(start, Duration::from_millis(50), b"first"));
        assert!(queue.push(start, Duration::from_millis(1), b"second"));
        assert_eq!(queue.pop_due(start + Duration::from_millis(10)), None);
        let later = start + Duration::from_millis(50);
        assert_eq!(queue.pop_due(later).as_deref(), Some(&b"first"[..]));
        assert_eq!(queue.pop_due(later).as_deref(), Some(&b"second"[..]));
    }

    #[test]
    fn chance_is_about_fair_and_within_bounds() {
        let mut random = Random(1);
        let hits = (0..100_000)
            .filter(|_| random.below(1_000_000) < 50_000)
            .count();
        assert!((4_000..6_000).contains(&hits), "{hits} of 100000 at 5 %");
    }

    #[test]
    fn a_full_queue_refuses() {
        let mut queue = Queue::default();
        let now = clock::now();
        for _ in 0..QUEUE_PACKETS {
            assert!(queue.push(now, Duration::ZERO, b""));
        }
        assert!(!queue.push(now, Duration::ZERO, b""));
    }
}
