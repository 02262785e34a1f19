//! The store that is configured, before anybody asks it.
//!
//! Input: the configuration. Output: what to open, as often as it takes. The files that it names are read once, so that a wrong
//! one is said before anything runs; a store that is away is worth another try.

use std::path::PathBuf;
use std::sync::Arc;

use super::cassandra::{Cassandra, Settings};
use super::{Embedded, Store, StoreError};
use crate::config::{Config, ConfigError, StoreKind};

/// A store that can be opened.
#[derive(Clone, Debug)]
pub enum Target {
    /// Files of one process.
    Embedded(PathBuf),
    /// A cluster, which all members write to and read from.
    Cassandra(Arc<Cassandra>),
}

impl Target {
    /// The one that is configured; none if nothing is stored.
    ///
    /// # Errors
    /// The option whose file cannot be used.
    pub fn of(config: &Config) -> Result<Option<Self>, ConfigError> {
        Ok(match config.store.kind {
            StoreKind::None => None,
            StoreKind::Embedded => Some(Self::Embedded(config.store.directory.clone())),
            StoreKind::Cassandra => {
                let store = Cassandra::new(Settings::of(config)?, &config.site);
                Some(Self::Cassandra(Arc::new(store)))
            }
        })
    }

    /// Opens it: afterwards it answers, and its tables are those of this program.
    ///
    /// # Errors
    /// [`StoreError::Held`] if another process has it; others if it cannot be reached, made, read or written.
    pub async fn open(&self) -> Result<Arc<dyn Store>, StoreError> {
        match self {
            Self::Embedded(directory) => {
                let directory = directory.clone();
                let opened = tokio::task::spawn_blocking(move || Embedded::open(&directory)).await;
                let opened = opened.map_err(|error| StoreError::Unavailable(error.to_string()))?;
                Ok(Arc::new(opened?))
            }
            Self::Cassandra(store) => {
                store.ping().await?;
                Ok(Arc::clone(store) as Arc<dyn Store>)
            }
        }
    }

    /// The store, where also those may read that do not write.
    #[must_use]
    pub fn shared(&self) -> Option<Arc<dyn Store>> {
        match self {
            Self::Embedded(_) => None,
            Self::Cassandra(store) => Some(Arc::clone(store) as Arc<dyn Store>),
        }
    }
}
