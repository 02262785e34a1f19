//! Says every two seconds that something is still going on.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

const INTERVAL: Duration = Duration::from_secs(2);

/// Does `work`; while it takes longer than two seconds, what it is and how long it has taken is printed.
pub fn during<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let (done, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut seconds = 0;
            while ended.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                seconds += INTERVAL.as_secs();
                println!("  {what}: {seconds} s");
            }
        });
        let outcome = work();
        drop(done);
        outcome
    })
}
