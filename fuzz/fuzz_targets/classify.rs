//! The classifier: any bytes under any dialect.
#![no_main]

#[path = "../checks/classify.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::check(data));
