//! The sampler on the real kernel: the built binary, real sockets, the kernel's own counters.
//!
//! Needs root and BPF. Without them each test says so and passes, except where
//! `FLOWVITALS_REQUIRE_KERNEL` is set (as in CI): there it fails.

mod exact;
mod harness;
