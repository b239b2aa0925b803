//! A whole login: any client against the proxy's half of it.
#![no_main]

#[path = "../checks/login.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::check(data));
