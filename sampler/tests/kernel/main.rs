//! The sampler on the real kernel: the built binary, real sockets, the kernel's own counters.
//!
//! Most need root and BPF. Without them each of these says so and passes, except where
//! `FLOWVITALS_REQUIRE_KERNEL` is set (as in CI): there it fails.

mod bounds;
mod control;
mod detached;
mod exact;
mod exits;
mod foreign;
mod hammer;
mod handshakes;
mod harness;
mod kafka;
mod kept;
mod killed;
mod late;
mod limits;
mod lives;
mod others;
mod pickup;
mod privacy;
mod reload;
mod rtt;
mod rules;
mod sampling;
mod size;
mod stalls;
mod supervisor;
mod trace;
