//! Those who hear of alerts beside the topic: the log, and the Alertmanagers with their watchdog.
//!
//! Input: the configuration, and the site whose events flow or not. Output: what the publisher is given. Limits: [`PATIENCE`] at the end.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::Site;
use super::run::Failure;
use crate::config::{Config, ConfigErrors};
use crate::publish::Output;
use crate::publish::alertmanager::{Alertmanagers, Settings};
use crate::publish::log::Log;
use crate::publish::watchdog::Watchdog;

/// How long the last words may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// All of them.
pub(super) struct Outputs {
    alertmanagers: Arc<Alertmanagers>,
    watchdog: JoinHandle<()>,
}

impl Outputs {
    /// Starts them, on the runtime that it is called in.
    pub(super) fn start(config: &Config, site: &Arc<Site>) -> Result<Self, Failure> {
        let settings =
            Settings::of(config).map_err(|error| Failure::from(ConfigErrors::from(error)))?;
        if settings.urls.is_empty() {
            tracing::warn!("no [alertmanager] urls: nobody is paged");
        }
        let started = Alertmanagers::start(&settings).map_err(super::run::bug)?;
        let alertmanagers = Arc::new(started);
        site.alerting().tells(Arc::clone(&alertmanagers));
        let flowing = Arc::clone(site);
        let watchdog = Watchdog::new(site.name());
        let watchdog = watchdog.run(Arc::clone(&alertmanagers), move || {
            flowing.trouble().is_none()
        });
        Ok(Self {
            alertmanagers,
            watchdog: tokio::spawn(watchdog),
        })
    }

    /// For the publisher.
    pub(super) fn list(&self) -> Vec<Arc<dyn Output>> {
        let alertmanagers: Arc<dyn Output> = Arc::<Alertmanagers>::clone(&self.alertmanagers);
        vec![Arc::new(Log), alertmanagers]
    }

    /// Waits for the last words.
    pub(super) async fn stop(self) {
        self.watchdog.abort();
        match self.alertmanagers.stop(PATIENCE).await {
            0 => {}
            left => tracing::warn!("{left} alerts were not said to an Alertmanager"),
        }
    }
}
