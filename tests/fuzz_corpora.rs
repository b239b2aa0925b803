//! Replays the committed corpora of the fuzz targets: seeds, and each crash that was ever found.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../fuzz/checks/classify.rs"]
mod classify;
#[path = "../fuzz/checks/commands.rs"]
mod commands;
#[path = "../fuzz/checks/compress.rs"]
mod compress;
#[path = "../fuzz/checks/config.rs"]
mod config;
#[path = "../fuzz/checks/handshake.rs"]
mod handshake;
#[path = "../fuzz/checks/login.rs"]
mod login;
#[path = "../fuzz/checks/proxy_protocol.rs"]
mod proxy_protocol;
#[path = "../fuzz/checks/response.rs"]
mod response;

use std::path::Path;

/// Runs `check` over every file of `fuzz/corpus/NAME`, of which there are at least `least`.
fn replay(name: &str, least: usize, check: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut count = 0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        check(&std::fs::read(&path).unwrap());
        count += 1;
    }
    assert!(count >= least, "{} has {count} files", directory.display());
}

#[test]
fn classify_holds() {
    replay("classify", 20, classify::check);
}

#[test]
fn commands_hold() {
    replay("commands", 7, commands::check);
}

#[test]
fn compress_holds() {
    replay("compress", 6, compress::check);
}

#[test]
fn config_holds() {
    replay("config", 8, config::check);
}

#[test]
fn handshake_holds() {
    replay("handshake", 8, handshake::check);
}

#[test]
fn login_holds() {
    replay("login", 6, login::check);
}

#[test]
fn proxy_protocol_holds() {
    replay("proxy_protocol", 8, proxy_protocol::check);
}

#[test]
fn response_holds() {
    replay("response", 14, response::check);
}
