//! `cargo +nightly fuzz run record fuzz/corpus/record fuzz/seeds/record`, from the root of the tree.

#![no_main]

#[path = "../record.rs"]
mod record;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    record::pass(bytes);
});
