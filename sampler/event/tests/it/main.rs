//! Tests of the crate from outside, in one binary.

mod coverage;
mod fixture;
mod golden;
mod histogram;
mod recorded;
#[path = "../../examples/coverage/simulation.rs"]
mod simulation;
mod size;
mod sum;
