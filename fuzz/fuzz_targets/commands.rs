//! Commands: text behind query attributes, executes and their parameter types.
#![no_main]

#[path = "../checks/commands.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::check(data));
