//! Contract between the kernel side and the sampler: the layout of every byte that crosses.
//!
//! All structs are `repr(C)` with their sizes asserted at compile time. User space maps most of
//! them into its own memory, so nothing here may hold padding that either side relies on.
//! [`ABI_VERSION`] goes up with every change of a layout or of a meaning.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod address;
pub mod cells;
pub mod control;
pub mod flow;
pub mod hash;
pub mod histogram;
pub mod offsets;
pub mod rules;
pub mod walk;

/// Version of everything in this crate.
pub const ABI_VERSION: u32 = 2;
