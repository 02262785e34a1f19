//! What only the store can say about a configuration. Asks, and changes nothing.

use std::time::Duration;

use super::surroundings::Found;
use crate::config::Config;
use crate::store::{StoreError, Target};

/// How long it may take to answer.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Asks a store that others hold as well; that of one process may be held by it, and is left alone.
pub(super) fn look(config: &Config, found: &mut Found) {
    match Target::of(config) {
        Err(error) => found.errors.push(error),
        Ok(Some(target @ Target::Cassandra(_))) => match ask(&target) {
            Ok(()) => found.store_answers = true,
            Err(error) => found.warnings.push(format!(
                "cassandra: {}: {error}; the role that stores waits until that is so, and nothing is lost as long as \
                 Kafka has it",
                config.store.contact_points.join(",")
            )),
        },
        Ok(Some(Target::Embedded(_)) | None) => {}
    }
}

fn ask(target: &Target) -> Result<(), StoreError> {
    let away = |why: String| StoreError::Unavailable(why);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| away(error.to_string()))?;
    let opened = runtime.block_on(async { tokio::time::timeout(TIMEOUT, target.open()).await });
    let opened = opened.map_err(|_| away(format!("no answer within {} s", TIMEOUT.as_secs())));
    opened?.map(drop)
}
