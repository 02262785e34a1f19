//! Exit codes of `flowvitals-sampler` (sysexits numbers, part of the product's outer surface).

/// Done.
pub const OK: u8 = 0;
/// The command line is wrong.
pub const USAGE: u8 = 2;
/// This kernel cannot do it.
pub const UNSUPPORTED: u8 = 69;
/// A bug in this program.
pub const BUG: u8 = 70;
/// Start it again: what kept it from its work is gone, and only a new process has the privileges for it.
pub const AGAIN: u8 = 75;
/// A privilege is missing.
pub const NO_PRIVILEGE: u8 = 77;
/// The configuration is wrong.
pub const CONFIG: u8 = 78;
