//! Tests of the crate from outside, in one binary.

mod coverage;
mod histogram;
#[path = "../../examples/coverage/simulation.rs"]
mod simulation;
