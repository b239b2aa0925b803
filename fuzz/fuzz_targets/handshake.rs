//! The packets of the connection phase, both ways, and the scrambles.
#![no_main]

#[path = "../checks/handshake.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::check(data));
