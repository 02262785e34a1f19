//! Faults between window stage and broker, with the spool in between: synthetic windows, real brokers, real disks.
//!
//! Instants are random; the seed is printed when a test fails, and `FLOWVITALS_SEED=…` runs it again.
//! `FLOWVITALS_KILLS=100` and `FLOWVITALS_AWAY_EDGES=600` make the short runs long.
//! Needs Java and Maven for brokers, and root for disks; what is missing is said, and is a failure where
//! `FLOWVITALS_REQUIRE_KERNEL` is set.

mod disk;
mod harness;
mod kills;
mod ledger;
mod outage;
mod refused;
mod rotation;
