//! Nodes that produce in real time, whoever consumes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lab::clock::unix_ms;
use rand::Rng;

use crate::produced::Site;
use crate::writer::Writer;

/// Begin and end of a loss, event time in ms; the end is not known before it is there.
pub type Incident = (u64, Option<u64>);

/// What both sides know.
#[derive(Default)]
struct Shared {
    calm: AtomicBool,
    stop: AtomicBool,
    /// Windows that the brokers have.
    confirmed: AtomicU64,
    incidents: Mutex<Vec<Incident>>,
    /// How long the brokers took to confirm a second's windows.
    waits: Mutex<Vec<Duration>>,
}

pub struct Play {
    shared: Arc<Shared>,
    thread: JoinHandle<Site>,
}

impl Play {
    /// With a loss now and then.
    pub fn start(brokers: &str, seed: u64) -> Self {
        Self::start_with(brokers, seed, true)
    }

    /// Without.
    pub fn start_calm(brokers: &str, seed: u64) -> Self {
        Self::start_with(brokers, seed, false)
    }

    fn start_with(brokers: &str, seed: u64, lossy: bool) -> Self {
        let writer = Writer::new(brokers);
        let shared = Arc::<Shared>::default();
        shared.calm.store(!lossy, Ordering::Relaxed);
        let known = Arc::clone(&shared);
        let thread = thread::spawn(move || play(&writer, seed, &known));
        Self { shared, thread }
    }

    pub fn incidents(&self) -> Vec<Incident> {
        let incidents = self.shared.incidents.lock();
        incidents.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Windows that the brokers have.
    pub fn confirmed(&self) -> u64 {
        self.shared.confirmed.load(Ordering::Relaxed)
    }

    /// How long the brokers took to confirm, of each second since this was asked last.
    pub fn waits(&self) -> Vec<Duration> {
        let waits = self.shared.waits.lock();
        std::mem::take(&mut *waits.unwrap_or_else(PoisonError::into_inner))
    }

    /// No more loss.
    pub fn calm(&self) {
        self.shared.calm.store(true, Ordering::Relaxed);
    }

    /// What was produced, all of it with the brokers.
    pub fn stop(self) -> Site {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it produces")
    }
}

fn play(writer: &Writer, seed: u64, shared: &Shared) -> Site {
    let mut site = Site::new(seed);
    let mut start_ms = unix_ms() / 1_000 * 1_000;
    let (mut number, mut turn_at) = (0, 15);
    while !shared.stop.load(Ordering::Relaxed) {
        let wait_ms = (start_ms + 1_000).saturating_sub(unix_ms());
        thread::sleep(Duration::from_millis(wait_ms));
        let calm = shared.calm.load(Ordering::Relaxed);
        if (number >= turn_at && !calm) || (site.loss > 0 && calm) {
            turn_at = number + turn(&mut site, start_ms, &shared.incidents);
        }
        site.second(writer, start_ms);
        site.heartbeats(writer, start_ms, number);
        let begin = Instant::now();
        writer.flush();
        let mut waits = shared.waits.lock().unwrap_or_else(PoisonError::into_inner);
        waits.push(begin.elapsed());
        drop(waits);
        shared.confirmed.store(site.windows(), Ordering::Relaxed);
        start_ms += 1_000;
        number += 1;
    }
    site.end(writer);
    site
}

/// Loss begins or ends; for so many seconds.
fn turn(site: &mut Site, start_ms: u64, incidents: &Mutex<Vec<Incident>>) -> u64 {
    let mut incidents = incidents.lock().unwrap_or_else(PoisonError::into_inner);
    if site.loss == 0 {
        site.loss = 50;
        incidents.push((start_ms, None));
        return site.random.random_range(15..40);
    }
    site.loss = 0;
    if let Some((_, end)) = incidents.last_mut() {
        *end = Some(start_ms);
    }
    site.random.random_range(12..25)
}
