//! The wiring: what comes from the brokers goes into the site, what is asked for comes out of it.

mod site;

pub use site::Site;
