//! Rates set live: the window task's side of the control socket.
//!
//! Input: requests with who made them. Output: streams at other rates, a log line for each change, answers.

use service::{config::reader::nearest, exit};

use super::{node::Node, time};
use crate::{
    control::{
        overrides::Override,
        wire::{Answer, MAX_FOR_MS, MIN_FOR_MS, Overridden, Peer, Request},
    },
    stage::clock::Now,
};

/// A return that finds no room is tried again after this.
const RETRY_US: u64 = 1_000_000;

impl Node {
    /// Does what is asked, or says why not; `true` if rates changed.
    pub(super) fn answer(&mut self, request: &Request, by: Peer) -> (Answer, bool) {
        let now = time::now();
        let changed = match request {
            Request::Set {
                stream,
                rate,
                for_ms,
            } => self
                .set_rate(stream, *rate, *for_ms, by, now)
                .map(|()| true),
            Request::Unset { stream } => self.unset_rate(stream, by).map(|()| true),
            Request::List => Ok(false),
        };
        match changed {
            Ok(changed) => (Answer::Overrides(self.overridden(now)), changed),
            Err(refused) => {
                if let Answer::Refused(refusal) = &refused {
                    tracing::warn!(
                        uid = by.uid,
                        pid = by.pid,
                        ?request,
                        "refused: {}",
                        refusal.message
                    );
                }
                (refused, false)
            }
        }
    }

    fn set_rate(
        &mut self,
        stream: &str,
        rate: f64,
        for_ms: u64,
        by: Peer,
        now: Now,
    ) -> Result<(), Answer> {
        self.known(stream)?;
        if !(0.0..=1.0).contains(&rate) {
            let message = format!("rate {rate} is out of range (allowed: 0 to 1)");
            return Err(Answer::refused(exit::USAGE, message));
        }
        if !(MIN_FOR_MS..=MAX_FOR_MS).contains(&for_ms) {
            let message = format!("{for_ms} ms are out of range (allowed: 1 s to 24 h)");
            return Err(Answer::refused(exit::USAGE, message));
        }
        let set = Override {
            rate,
            until_us: now.monotonic_us + for_ms * 1000,
            by,
        };
        let before = self.overrides.set(stream, set);
        if let Err(why) = self.apply_rate(stream) {
            match before {
                Some(before) => self.overrides.set(stream, before),
                None => self.overrides.unset(stream),
            };
            return Err(Answer::refused(
                exit::UNSUPPORTED,
                format!("{stream}: {why}"),
            ));
        }
        tracing::info!(
            stream,
            rate,
            for_s = for_ms / 1000,
            uid = by.uid,
            pid = by.pid,
            "rate set over the control socket"
        );
        Ok(())
    }

    fn unset_rate(&mut self, stream: &str, by: Peer) -> Result<(), Answer> {
        let Some(before) = self.overrides.unset(stream) else {
            self.known(stream)?;
            let message = format!("{stream} has its configured rate: nothing is set");
            return Err(Answer::refused(exit::USAGE, message));
        };
        if let Err(why) = self.apply_rate(stream) {
            self.overrides.set(stream, before);
            return Err(Answer::refused(
                exit::UNSUPPORTED,
                format!("{stream}: {why}"),
            ));
        }
        tracing::info!(
            stream,
            uid = by.uid,
            pid = by.pid,
            "rate unset over the control socket"
        );
        Ok(())
    }

    /// Ends what has had its time; `true` if rates changed.
    pub(super) fn expire_rates(&mut self, now: Now) -> bool {
        let ended = self.overrides.expire(now.monotonic_us);
        for (stream, mut set) in ended.iter().cloned() {
            match self.apply_rate(&stream) {
                Ok(()) => tracing::info!(stream, "the time is over: the configured rate again"),
                Err(why) => {
                    tracing::warn!(stream, "the configured rate cannot return yet: {why}");
                    set.until_us = now.monotonic_us + RETRY_US;
                    self.overrides.set(&stream, set);
                }
            }
        }
        !ended.is_empty()
    }

    /// Ends what was set for streams that the configuration no longer has.
    pub(super) fn drop_rates_of_gone(&mut self) {
        let streams = &self.config().streams;
        let names: Vec<String> = streams.iter().map(|s| s.name.clone()).collect();
        let gone = self
            .overrides
            .retain(|name| names.iter().any(|n| n == name));
        for (stream, _) in gone {
            tracing::warn!(
                stream,
                "the stream is gone, and the rate that was set with it"
            );
        }
    }

    fn known(&self, stream: &str) -> Result<(), Answer> {
        if let Some(off) = &self.off {
            return Err(Answer::refused(exit::UNSUPPORTED, off.limited()));
        }
        let names = || self.config().streams.iter().map(|s| s.name.as_str());
        if names().any(|name| name == stream) {
            return Ok(());
        }
        let message = match nearest(stream, names()) {
            Some(near) => format!("no stream is named `{stream}`, did you mean `{near}`?"),
            None if names().next().is_none() => {
                format!("no stream is named `{stream}`: none is configured")
            }
            None => format!("no stream is named `{stream}`"),
        };
        Err(Answer::refused(exit::USAGE, message))
    }

    fn overridden(&self, now: Now) -> Vec<Overridden> {
        let entry = |(name, set): (&str, &Override)| {
            let config = self.config().streams.iter().find(|s| s.name == name)?;
            let id = self.stage().streams.id(name)?;
            let left_ms = set.until_us.saturating_sub(now.monotonic_us) / 1000;
            Some(Overridden {
                stream: name.to_owned(),
                rate: set.rate,
                configured_rate: config.rate,
                new_flows_rate: self.stage().streams.streams()[id as usize].rate(),
                left_ms,
                until_ms: now.wall_ms + left_ms,
                by: set.by,
            })
        };
        self.overrides.iter().filter_map(entry).collect()
    }
}
