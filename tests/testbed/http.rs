//! The admin ports of the programs under test.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// All of the answer to `GET /path` or `POST /path` of a port of 127.0.0.1.
pub fn exchange(port: u16, request: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    write!(socket, "{request} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    socket.read_to_string(&mut text)?;
    Ok(text)
}

/// Status and body of that answer.
pub fn http(port: u16, request: &str) -> std::io::Result<(u16, String)> {
    let text = exchange(port, request)?;
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok((status, text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()))
}

/// Sum of the samples of /metrics whose line begins with `name` and has all of `labels`.
pub fn metric(port: u16, name: &str, labels: &[&str]) -> f64 {
    let (_, text) = http(port, "GET /metrics").expect("the admin port answers");
    let of = |line: &&str| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|r| r.starts_with(['{', ' '])) && labels.iter().all(|label| line.contains(label))
    };
    text.lines().filter(of).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}
