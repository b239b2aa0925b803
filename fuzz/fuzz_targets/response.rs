//! Where responses end and what their packets say.
#![no_main]

#[path = "../checks/response.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::check(data));
