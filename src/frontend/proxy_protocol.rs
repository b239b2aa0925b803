//! \[pure\] The PROXY protocol, versions 1 (text) and 2 (binary): the client's address as a load balancer tells it.
//!
//! Source: "The PROXY protocol", HAProxy's doc/proxy-protocol.txt. Only the source address is taken; TLVs are skipped.
//! Whether a header may be believed is the caller's to know: anybody can write one. A header never looks like a client's
//! first packet, whose fourth byte is 1.

use crate::wire::Malformed;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a version 2 header begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What a version 1 header begins with.
const TEXT: &[u8; 6] = b"PROXY ";
/// Longest version 1 header, its line end included.
const TEXT_MAX: usize = 107;
/// Shortest one: `PROXY UNKNOWN\r\n`.
const TEXT_MIN: usize = 15;
/// Bytes of a version 2 header before addresses and TLVs.
const BINARY_HEAD: usize = 16;
/// Longest addresses and TLVs of a version 2 header taken.
const BINARY_MAX: usize = 4096;

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// No header: the client's own first packet.
    Absent,
    /// Not to be told yet, or not all there: at least so many bytes more belong to the header.
    Needs(usize),
    /// A header of so many bytes. `source` is absent where the proxy speaks for itself (LOCAL, UNKNOWN) or for a client on
    /// a Unix socket: the connection's own address counts then.
    Header {
        /// Bytes to skip.
        length: usize,
        /// The client's address.
        source: Option<SocketAddr>,
    },
}

/// Reads the header at the start of `bytes`, what was read of a connection so far.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    // Four bytes are a client's packet header at least, and with them it is decided.
    let undecided = 4usize.saturating_sub(bytes.len());
    match (missing_of(bytes, TEXT), missing_of(bytes, SIGNATURE)) {
        // As a packet it would be out of order, too.
        (None, None) if bytes.starts_with(&TEXT[..4]) || bytes.starts_with(&SIGNATURE[..4]) => {
            Err(Malformed("neither a PROXY header nor a client's packet"))
        }
        (None, None) => Ok(Parsed::Absent),
        _ if undecided > 0 => Ok(Parsed::Needs(undecided)),
        (Some(0), _) => text(bytes),
        (_, Some(0)) => binary(bytes),
        (Some(missing), _) | (None, Some(missing)) => Ok(Parsed::Needs(missing)),
    }
}

/// How many bytes of `prefix` are still to come, or `None` if `bytes` begin otherwise.
fn missing_of(bytes: &[u8], prefix: &[u8]) -> Option<usize> {
    let n = bytes.len().min(prefix.len());
    (bytes[..n] == prefix[..n]).then_some(prefix.len() - n)
}

fn text(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let line = &bytes[..bytes.len().min(TEXT_MAX)];
    let Some(end) = memchr::memchr(b'\n', line) else {
        if bytes.len() >= TEXT_MAX {
            return Err(Malformed("a PROXY line is longer than 107 bytes"));
        }
        return Ok(Parsed::Needs(TEXT_MIN.saturating_sub(bytes.len()).max(1)));
    };
    let bad = Malformed("not a PROXY line");
    let line = line[..end].strip_suffix(b"\r").ok_or(bad)?;
    let line = std::str::from_utf8(&line[TEXT.len()..]).map_err(|_| bad)?;
    let mut words = line.split(' ');
    let source = match words.next() {
        Some("UNKNOWN") => None,
        Some(family @ ("TCP4" | "TCP6")) => {
            let mut address = || words.next()?.parse::<IpAddr>().ok().filter(|ip| ip.is_ipv4() == (family == "TCP4"));
            let (source, _) = (address().ok_or(bad)?, address().ok_or(bad)?);
            let mut port = || words.next()?.parse::<u16>().ok();
            let (port, _) = (port().ok_or(bad)?, port().ok_or(bad)?);
            if words.next().is_some() {
                return Err(bad);
            }
            Some(SocketAddr::new(source, port))
        }
        Some(_) | None => return Err(bad),
    };
    Ok(Parsed::Header { length: end + 1, source })
}

fn binary(bytes: &[u8]) -> Result<Parsed, Malformed> {
    if bytes.len() < BINARY_HEAD {
        return Ok(Parsed::Needs(BINARY_HEAD - bytes.len()));
    }
    let (command, family) = (bytes[12], bytes[13]);
    let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if length > BINARY_MAX {
        return Err(Malformed("a PROXY header is longer than 4 KiB"));
    }
    let Some(body) = bytes.get(BINARY_HEAD..BINARY_HEAD + length) else {
        return Ok(Parsed::Needs(BINARY_HEAD + length - bytes.len()));
    };
    let short = Malformed("a PROXY header is shorter than its addresses");
    let source = match (command, family >> 4) {
        // LOCAL: a health check of the proxy's own, whatever the family.
        (0x20, _) => None,
        (0x21, 1) => {
            let body: &[u8; 12] = body.first_chunk().ok_or(short)?;
            let [a, b, c, d, .., high, low, _, _] = *body;
            Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([high, low])))
        }
        (0x21, 2) => {
            let body: &[u8; 36] = body.first_chunk().ok_or(short)?;
            let address: &[u8; 16] = body.first_chunk().ok_or(short)?;
            Some(SocketAddr::new(Ipv6Addr::from(*address).into(), u16::from_be_bytes([body[32], body[33]])))
        }
        // UNSPEC, and Unix sockets.
        (0x21, 0 | 3) => None,
        _ => return Err(Malformed("a PROXY header of an unknown version, command or family")),
    };
    Ok(Parsed::Header { length: BINARY_HEAD + length, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend([command, family]);
        header.extend((body.len() as u16).to_be_bytes());
        header.extend(body);
        header
    }

    /// Feeds `bytes` as they are asked for: what comes out, and how many bytes were asked for.
    fn feed(bytes: &[u8]) -> (Result<Parsed, Malformed>, usize) {
        let mut have = 0;
        loop {
            match parse(&bytes[..have]) {
                Ok(Parsed::Needs(more)) => {
                    assert!(more > 0);
                    if have + more > bytes.len() {
                        return (Ok(Parsed::Needs(more)), have);
                    }
                    have += more;
                }
                done => return (done, have),
            }
        }
    }

    #[test]
    fn headers_are_read_and_not_a_byte_more() {
        let v4: SocketAddr = "192.0.2.1:5000".parse().unwrap();
        let v6: SocketAddr = "[2001:db8::1]:5000".parse().unwrap();
        let ipv4 = [192, 0, 2, 1, 10, 0, 0, 1, 0x13, 0x88, 0x0C, 0xEA];
        let mut ipv6 = [0u8; 36];
        ipv6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        ipv6[15] = 1;
        ipv6[32..34].copy_from_slice(&[0x13, 0x88]);
        for (header, source) in [
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 5000 3306\r\n".to_vec(), Some(v4)),
            (b"PROXY TCP6 2001:db8::1 ::1 5000 3306\r\n".to_vec(), Some(v6)),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN whatever 1 2\r\n".to_vec(), None),
            (v2(0x21, 0x11, &ipv4), Some(v4)),
            (v2(0x21, 0x11, &[&ipv4[..], &[0x04, 0, 2, 0, 0]].concat()), Some(v4)),
            (v2(0x21, 0x21, &ipv6), Some(v6)),
            (v2(0x21, 0x31, &[0; 216]), None),
            (v2(0x20, 0, &[]), None),
            (v2(0x21, 0, &[]), None),
        ] {
            let mut wire = header.clone();
            wire.extend_from_slice(b"\x20\0\0\x01 the client's own");
            let (parsed, asked) = feed(&wire);
            assert_eq!(parsed, Ok(Parsed::Header { length: header.len(), source }));
            assert_eq!(asked, header.len());
        }
    }

    #[test]
    fn a_clients_packet_is_no_header_and_only_four_bytes_are_taken_to_see_it() {
        for packet in [&b"\x20\0\0\x01\x85"[..], b"P\0\0\x01x", b"\r\0\0\x01x"] {
            assert_eq!(feed(packet).0, Ok(Parsed::Absent));
            assert!(feed(packet).1 <= 4);
        }
    }

    #[test]
    fn broken_headers_are_refused() {
        let long = [&b"PROXY UNKNOWN "[..], &[b'x'; 100], b"\r\n"].concat();
        for bad in [
            b"PROXY TCP4 192.0.2.1 10.0.0.1 5000\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::1 10.0.0.1 5000 3306\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 5000 99999\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 5000 3306 1\r\n".to_vec(),
            b"PROXY TCP5 192.0.2.1 10.0.0.1 5000 3306\r\n".to_vec(),
            b"PROXY UNKNOWN\n and more".to_vec(),
            b"PROXIMA CENTAURI".to_vec(),
            b"\r\n\r\n\0\r QUIT\n".to_vec(),
            long,
            v2(0x11, 0x11, &[0; 12]),
            v2(0x22, 0x11, &[0; 12]),
            v2(0x21, 0x11, &[0; 11]),
            v2(0x21, 0x21, &[0; 35]),
            v2(0x21, 0x41, &[0; 35]),
            v2(0x21, 0x11, &[0; 5000]),
        ] {
            assert!(feed(&bad).0.is_err(), "{}", String::from_utf8_lossy(&bad));
        }
    }
}
