//! One life of the sampler, and whether the next one goes on where it ended.

use anyhow::{Result, ensure};
use sampler_event::StreamWindow;

use super::machine::Machine;
use super::sampler::NAME;
use super::service::{Process, Service};
use super::site::Site;
use crate::attached::Attached;

/// What a life has that the next one is held against.
pub struct Life {
    /// Its random id.
    pub instance: u64,
    /// Its process.
    pub process: Process,
    /// What it holds of the kernel.
    pub attached: Attached,
}

impl Life {
    /// The one that goes on now.
    pub fn now(machine: &Machine, site: &Site) -> Result<Self> {
        let process = Service::new(machine, NAME).process()?;
        Ok(Self {
            instance: site.window(|_| true)?.instance,
            attached: machine.attached(process.pid)?,
            process,
        })
    }

    /// A window of the next life. Fails where that is the same process, or follows another life.
    pub fn next(&self, machine: &Machine, site: &Site) -> Result<StreamWindow> {
        let process = Service::new(machine, NAME).process()?;
        ensure!(
            process.pid != self.process.pid,
            "the old process goes on: {process:?}"
        );
        let window = site.window(|window| window.instance != self.instance)?;
        let before = window.previous_instance;
        ensure!(
            before == self.instance,
            "the life before is {before}, not {}",
            self.instance
        );
        Ok(window)
    }

    /// The same of a life that goes on with the same kernel side: nothing was counted twice or lost in between.
    pub fn goes_on(&self, machine: &Machine, site: &Site) -> Result<StreamWindow> {
        let window = self.next(machine, site)?;
        let process = Service::new(machine, NAME).process()?;
        let now = machine.attached(process.pid)?;
        ensure!(now == self.attached, "not {:?}, but {now:?}", self.attached);
        Ok(window)
    }
}
