//! The wiring: what comes from the brokers goes into the site, what is asked for comes out of it.

mod run;
mod site;
pub mod store;

pub use run::{Failure, run};
pub use site::Site;
