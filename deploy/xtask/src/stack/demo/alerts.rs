//! Loss as it was announced, and what was said about it, each with its delay.

use std::collections::BTreeMap;

use lab::alertmanager::webhook::Notification;
use lab::clock::{unix_ms, unix_ms_of};
use serde_json::Value;

/// What is known of each stream's newest loss.
#[derive(Default)]
pub struct Alerts {
    /// When it began, Unix ms.
    began_ms: BTreeMap<String, u64>,
    /// Notifications of the pager that were printed.
    printed: usize,
}

impl Alerts {
    /// A stream begins to lose.
    pub fn began(&mut self, stream: &str) {
        self.began_ms.insert(stream.to_owned(), unix_ms());
    }

    fn since(&self, stream: &str, at_ms: u64) -> String {
        let began_ms = self.began_ms.get(stream);
        began_ms.map_or_else(String::new, |began_ms| {
            let seconds = (at_ms as f64 - *began_ms as f64) / 1e3;
            format!(" {seconds:+.1} s after its loss began")
        })
    }

    /// Prints a record of the alert topic that was appended at a moment.
    pub fn said(&self, record: &Value, append_ms: u64) {
        let text = |name: &str| record[name].as_str().unwrap_or_default();
        let word = match text("kind") {
            "suspected" => "suspect",
            "fired" => "alert",
            "resolved" => "over",
            _ => return,
        };
        let summary = record["annotations"]["summary"]
            .as_str()
            .unwrap_or_default();
        let since = self.since(text("stream"), append_ms);
        println!("   >> {word}{since}: {summary}");
    }

    /// Prints what is new at the pager.
    pub fn paged(&mut self, notifications: &[Notification]) {
        for one in notifications.iter().skip(self.printed) {
            let pages = one.receiver == "page" && one.is_firing();
            for stream in one.labels("stream").into_iter().filter(|_| pages) {
                let since = self.since(stream, unix_ms_of(one.wall));
                println!("   >> page at the pager, behind Alertmanager,{since}");
            }
        }
        self.printed = notifications.len();
    }
}
