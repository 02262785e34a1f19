//! All Alertmanagers hear of every alert.
//!
//! Input: alerts, each with its times fixed by who decided on them: `startsAt` frozen, `endsAt` a minute ahead and said again every 15 s
//! while the alert is on, in the past once it is over. Output: requests to every configured URL, metrics, and words about what is wrong.
//! Every URL has a task, a queue and a connection of its own: one that is dead or hangs delays no other. What fails in passing is said
//! again, after pauses that grow to [`LONGEST_PAUSE`], as long as it holds; what is refused is told and counted.
//! Limits: [`queue::MOST_WAITING`] alerts wait per URL, [`MOST_AT_ONCE`] go in one request, one request at a time.

mod books;
mod client;
mod queue;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use service::metrics::Family;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use self::books::Books;
pub use self::client::{CONNECT, Client, ClientError, PostError, WHOLE};
pub use self::queue::{MOST_WAITING, Now, Put, Queue, SAY_RESOLVED_FOR_MS, Waiting};
pub use self::settings::Settings;
use crate::alert::Alert;

/// Alerts of one request: some 300 KiB.
pub const MOST_AT_ONCE: usize = 256;

const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// An Alertmanager that comes back has everything after this.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// The Alertmanagers; their tasks end when it is dropped.
#[derive(Debug)]
pub struct Alertmanagers {
    targets: Vec<Arc<Target>>,
    tasks: Vec<JoinHandle<()>>,
}

/// One of them.
#[derive(Debug)]
struct Target {
    url: String,
    state: Mutex<State>,
    /// How many alerts wait or are on their way.
    open: watch::Sender<usize>,
    begin: Instant,
}

#[derive(Debug, Default)]
struct State {
    queue: Queue,
    books: Books,
    in_flight: usize,
}

impl Alertmanagers {
    /// Starts a task for every URL, on the runtime that it is called in. Nothing is sent before the first alert.
    ///
    /// # Errors
    /// If TLS does not work here.
    pub fn start(settings: &Settings) -> Result<Self, ClientError> {
        let mut started = Self {
            targets: Vec::new(),
            tasks: Vec::new(),
        };
        for url in &settings.urls {
            let client = Client::new(url, settings)?;
            let target = Arc::new(Target::new(url));
            let task = tokio::spawn(serve(Arc::clone(&target), client));
            started.targets.push(target);
            started.tasks.push(task);
        }
        Ok(started)
    }

    /// Says alerts to all of them; waits for nobody.
    pub fn send(&self, alerts: Vec<Alert>) {
        for target in &self.targets {
            target.put(&alerts);
        }
    }

    /// What is wrong with them, in words; empty: nothing, as far as is known.
    #[must_use]
    pub fn health(&self) -> Vec<String> {
        let trouble = |target: &Arc<Target>| {
            let state = target.state();
            let waiting = state.queue.len() + state.in_flight;
            state
                .books
                .trouble(&target.url, waiting, target.begin.elapsed())
        };
        self.targets.iter().filter_map(trouble).collect()
    }

    /// What became of the alerts, by URL.
    #[must_use]
    pub fn books(&self) -> Vec<(String, Books)> {
        let books = |target: &Arc<Target>| (target.url.clone(), target.state().books.clone());
        self.targets.iter().map(books).collect()
    }

    /// Its metrics.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let all: Vec<_> = self
            .targets
            .iter()
            .map(|target| {
                let state = target.state();
                let waiting = state.queue.len() + state.in_flight;
                (target.url.as_str(), state.books.clone(), waiting)
            })
            .collect();
        books::families(&all)
    }

    /// Waits until all has been said, `patience` at most; what is left then is counted as not said.
    pub async fn stop(&self, patience: Duration) -> usize {
        let said = async {
            for target in &self.targets {
                let mut open = target.open.subscribe();
                // The sender lives in the target.
                let _ = open.wait_for(|open| *open == 0).await;
            }
        };
        let _ = tokio::time::timeout(patience, said).await;
        let open = self.targets.iter().map(|target| *target.open.borrow());
        open.sum()
    }
}

impl Drop for Alertmanagers {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Target {
    fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            state: Mutex::default(),
            open: watch::Sender::new(0),
            begin: Instant::now(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        Now {
            unix_ms: unix.unwrap_or_default().as_millis() as u64,
            monotonic: self.begin.elapsed(),
        }
    }

    fn put(&self, alerts: &[Alert]) {
        let now = self.now();
        let mut state = self.state();
        let mut crowded = 0;
        for alert in alerts {
            let put = state.queue.put(alert.clone(), now);
            crowded += usize::from(matches!(put, Put::Full | Put::Crowded));
            state.books.put(put);
        }
        if crowded > 0 {
            let url = &self.url;
            tracing::warn!(url, crowded, "too many alerts wait for an Alertmanager");
        }
        self.tell(&state);
    }

    fn tell(&self, state: &State) {
        self.open.send_replace(state.queue.len() + state.in_flight);
    }

    /// The next alerts to say.
    fn take(&self) -> Vec<Waiting> {
        let now = self.now();
        let mut state = self.state();
        state.books.expired += state.queue.expire(now.unix_ms) as u64;
        let batch = state.queue.take(MOST_AT_ONCE);
        state.in_flight = batch.len();
        self.tell(&state);
        batch
    }

    fn taken(&self, batch: &[Waiting]) {
        let now = self.now().monotonic;
        let mut state = self.state();
        let times = batch.iter().map(|one| now.saturating_sub(one.since));
        if state.books.taken(times) {
            tracing::info!(url = self.url, "an Alertmanager takes alerts again");
        }
        state.in_flight -= batch.len();
        self.tell(&state);
    }

    fn refused(&self, batch: &[Waiting], error: &PostError) {
        let mut state = self.state();
        state.books.refused += batch.len() as u64;
        if state.books.failed(error, self.begin.elapsed()) {
            let (url, labels) = (&self.url, batch.first().map(|one| &one.alert.labels));
            let alerts = batch.len();
            tracing::warn!(url, alerts, ?labels, %error, "an Alertmanager refuses alerts");
        }
        state.in_flight -= batch.len();
        self.tell(&state);
    }

    fn failed(&self, batch: Vec<Waiting>, error: &PostError) {
        let mut state = self.state();
        state.in_flight -= batch.len();
        let (replaced, crowded) = state.queue.take_back(batch);
        state.books.replaced += replaced as u64;
        state.books.crowded += crowded as u64;
        state.books.retries += 1;
        if state.books.failed(error, self.begin.elapsed()) {
            tracing::warn!(url = self.url, %error, "an Alertmanager takes no alerts");
        }
        self.tell(&state);
    }
}

/// Says what waits, for ever.
async fn serve(target: Arc<Target>, client: Client) {
    let mut open = target.open.subscribe();
    let mut pause = FIRST_PAUSE;
    loop {
        // The sender lives in the target.
        let _ = open.wait_for(|open| *open > 0).await;
        let batch = target.take();
        if say(&target, &client, batch).await {
            pause = FIRST_PAUSE;
        } else {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Says a batch, and where one alert spoils it each part on its own; whether the Alertmanager answered.
async fn say(target: &Target, client: &Client, batch: Vec<Waiting>) -> bool {
    let mut parts = VecDeque::from([batch]);
    while let Some(mut part) = parts.pop_front() {
        if part.is_empty() {
            continue;
        }
        let alerts: Vec<_> = part.iter().map(|one| &one.alert).collect();
        match client.post(&alerts).await {
            Ok(()) => target.taken(&part),
            Err(error) if error.is_passing() => {
                part.extend(parts.into_iter().flatten());
                target.failed(part, &error);
                return false;
            }
            Err(error) if error.is_about_content() && part.len() > 1 => {
                let second = part.split_off(part.len() / 2);
                parts.extend([part, second]);
            }
            Err(error) => target.refused(&part, &error),
        }
    }
    true
}
