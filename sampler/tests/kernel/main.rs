//! The sampler on the real kernel: the built binary, real sockets, the kernel's own counters.
//!
//! Needs root and BPF. Without them each test says so and passes, except where
//! `FLOWVITALS_REQUIRE_KERNEL` is set (as in CI): there it fails.

mod bounds;
mod exact;
mod foreign;
mod hammer;
mod handshakes;
mod harness;
mod kafka;
mod late;
mod lives;
mod others;
mod reload;
mod rtt;
mod rules;
mod sampling;
mod size;
mod stalls;
mod trace;
