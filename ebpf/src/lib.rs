//! The kernel side: pick a flow, fold its counters. Nothing else.
//!
//! This library is the part that needs no kernel and is tested on the host; the program
//! itself is the `probe` binary.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod chrono;
pub mod stall;
