#![no_std]
//! Kernel side.
