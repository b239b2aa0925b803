//! PROXY protocol headers.
#![no_main]

#[path = "../checks/proxy_protocol.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::check(data));
