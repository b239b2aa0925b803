//! Compressed frames.
#![no_main]

#[path = "../checks/compress.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::check(data));
