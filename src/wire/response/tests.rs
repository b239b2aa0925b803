//! Responses as a 9.7 put them on the wire, whole and cut at every byte.

use super::*;
use bytes::{Buf, BytesMut};

const OLD: Shape = Shape { deprecate_eof: false, optional_metadata: false };
const NEW: Shape = Shape { deprecate_eof: true, optional_metadata: false };
const OPTIONAL: Shape = Shape { deprecate_eof: true, optional_metadata: true };

fn packets(payloads: &[&[u8]]) -> Vec<u8> {
    let mut out = BytesMut::new();
    let mut sequence = 1;
    for payload in payloads {
        crate::wire::packet::write_packet(&mut out, &mut sequence, payload);
    }
    out.to_vec()
}

/// Feeds `response` in pieces of `size` bytes; answers the kinds handed out, checking that all bytes pass exactly once.
fn run(answer: Answer, shape: Shape, response: &[u8], size: usize) -> Result<(Vec<Kind>, u64), Malformed> {
    let mut scanner = Scanner::new(answer, shape);
    let mut kinds = Vec::new();
    let mut input = BytesMut::new();
    let mut forwarded = Vec::new();
    for piece in response.chunks(size) {
        assert!(!scanner.is_done(), "ended before {} bytes", response.len());
        input.extend_from_slice(piece);
        while let Step::Packet { kind, start, end } = scanner.scan(&input)? {
            assert!(start < end && end <= input.len());
            kinds.push(kind);
        }
        let n = scanner.passed();
        forwarded.extend_from_slice(&input[..n]);
        input.advance(n);
        scanner.consumed(n);
    }
    assert!(scanner.is_done(), "not at its end: {scanner:?}");
    assert_eq!(forwarded, response);
    Ok((kinds, scanner.rows))
}

fn check(answer: Answer, shape: Shape, payloads: &[&[u8]], kinds: &[Kind], rows: u64) {
    let response = packets(payloads);
    for size in 1..=response.len() {
        assert_eq!(run(answer, shape, &response, size), Ok((kinds.to_vec(), rows)), "pieces of {size}");
    }
}

const COLUMN: &[u8] = b"\x03def\x00\x00\x00\x01a\x00\x0c?\x00\x02\x00\x00\x00\x08\x81\x00\x00\x00\x00";
const EOF: &[u8] = b"\xfe\x00\x00\x02\x00";
const EOF_MORE: &[u8] = b"\xfe\x00\x00\x0a\x00";
const EOF_CURSOR: &[u8] = b"\xfe\x00\x00\x41\x00";
const OK_END: &[u8] = b"\xfe\x00\x00\x02\x00\x00\x00";
const OK_END_MORE: &[u8] = b"\xfe\x00\x00\x0a\x00\x00\x00";
const OK: &[u8] = b"\x00\x01\x05\x02\x00\x00\x00";
const OK_MORE: &[u8] = b"\x00\x01\x05\x0a\x00\x00\x00";
const ERR: &[u8] = b"\xff\x28\x04#42000syntax";
const ROW: &[u8] = b"\x011";
const NULL_ROW: &[u8] = b"\xfb";

#[test]
fn single_results() {
    check(Answer::Results, OLD, &[b"\x01", COLUMN, EOF, ROW, NULL_ROW, EOF], &[Kind::Eof, Kind::Eof], 2);
    check(Answer::Results, NEW, &[b"\x01", COLUMN, ROW, NULL_ROW, OK_END], &[Kind::Ok], 2);
    check(Answer::Results, OPTIONAL, &[b"\x01\x01", COLUMN, ROW, OK_END], &[Kind::Ok], 1);
    check(Answer::Results, OPTIONAL, &[b"\x01\x00", ROW, OK_END], &[Kind::Ok], 1);
    for shape in [OLD, NEW, OPTIONAL] {
        check(Answer::Results, shape, &[OK], &[Kind::Ok], 0);
        check(Answer::Results, shape, &[ERR], &[Kind::Err], 0);
        check(Answer::Results, shape, &[b"\xfb/etc/passwd", OK], &[Kind::LocalInfile, Kind::Ok], 0);
    }
    check(Answer::Results, OLD, &[b"\x01", COLUMN, EOF, ROW, ERR], &[Kind::Eof, Kind::Err], 1);
}

#[test]
fn several_results_in_one_response() {
    check(
        Answer::Results,
        OLD,
        &[b"\x01", COLUMN, EOF_MORE, ROW, EOF_MORE, OK_MORE, b"\x01", COLUMN, EOF, ROW, EOF],
        &[Kind::Eof, Kind::Eof, Kind::Ok, Kind::Eof, Kind::Eof],
        2,
    );
    check(
        Answer::Results,
        NEW,
        &[b"\x01", COLUMN, ROW, OK_END_MORE, OK_MORE, ERR],
        &[Kind::Ok, Kind::Ok, Kind::Err],
        1,
    );
}

#[test]
fn prepared_statements_and_cursors() {
    let none = b"\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let both = b"\x00\x01\x00\x00\x00\x01\x00\x01\x00\x00\x00\x00";
    check(Answer::Prepared, OLD, &[none], &[Kind::Prepared], 0);
    check(Answer::Prepared, OLD, &[both, COLUMN, EOF, COLUMN, EOF], &[Kind::Prepared], 0);
    check(Answer::Prepared, NEW, &[both, COLUMN, COLUMN], &[Kind::Prepared], 0);
    check(Answer::Prepared, OPTIONAL, &[b"\x00\x01\x00\x00\x00\x02\x00\x01\x00\x00\x00\x00\x00"], &[Kind::Prepared], 0);
    check(Answer::Prepared, NEW, &[ERR], &[Kind::Err], 0);
    check(Answer::Results, OLD, &[b"\x01", COLUMN, EOF_CURSOR], &[Kind::Eof], 0);
    check(Answer::Results, NEW, &[b"\x01", COLUMN, b"\xfe\x00\x00A\x00\x00\x00"], &[Kind::Ok], 0);
    check(Answer::Rows, OLD, &[b"\x00\x00\x01a", EOF], &[Kind::Eof], 1);
    check(Answer::Rows, NEW, &[COLUMN, COLUMN, OK_END], &[Kind::Ok], 2);
}

#[test]
fn one_packet_answers() {
    check(Answer::OnePacket, OLD, &[b"Uptime: 1  Threads: 2"], &[Kind::Other], 0);
    check(Answer::OnePacket, OLD, &[EOF], &[Kind::Eof], 0);
    check(Answer::OnePacket, NEW, &[OK_END], &[Kind::Ok], 0);
    check(Answer::OnePacket, OLD, &[ERR], &[Kind::Err], 0);
}

#[test]
fn a_row_over_16_mib_is_one_row_and_its_0xfe_is_no_end() {
    let mut row = b"\xfe\x00\x00\x00\x01\x00\x00\x00\x00".to_vec();
    row.resize(9 + (1 << 24), b'x');
    for shape in [OLD, NEW] {
        let end = if shape.deprecate_eof { OK_END } else { EOF };
        let mut payloads: Vec<&[u8]> = vec![b"\x01", COLUMN];
        if !shape.deprecate_eof {
            payloads.push(EOF);
        }
        payloads.extend([&row[..], ROW, end]);
        let response = packets(&payloads);
        for size in [1 << 14, 99_991, response.len()] {
            assert_eq!(run(Answer::Results, shape, &response, size).unwrap().1, 2);
        }
    }
}

#[test]
fn broken_responses_are_malformed_not_fatal() {
    for payload in [&b"\x00"[..], b"\x00\xfc\x01", b"\xfc\x01"] {
        assert!(run(Answer::Results, NEW, &packets(&[payload]), 64).is_err(), "{payload:?}");
    }
    assert!(run(Answer::Prepared, NEW, &packets(&[b"\x00\x01"]), 64).is_err());
}

#[test]
fn an_error_stands_where_the_client_expects_a_first_packet_an_eof_or_a_row() {
    let definition = b"\x03def\x00\x00\x00\x01n\x00\x0c\x2d\x00\x0b\x00\x00\x00\x08\x00\x00\x00\x00\x00";
    let (eof, row) = (&b"\xfe\x00\x00\x02\x00"[..], &b"\x01n"[..]);
    let ok = &b"\xfe\x00\x00\x02\x00\x00\x00"[..];
    for (shape, all, legal) in [
        (NEW, packets(&[b"\x02", definition, definition, row, ok]), vec![0, 3, 4]),
        (OLD, packets(&[b"\x02", definition, definition, eof, row, eof]), vec![0, 3, 4, 5]),
    ] {
        // Behind how many whole packets a cut leaves the client.
        let mut ends = vec![0];
        while ends[ends.len() - 1] < all.len() {
            let at = ends[ends.len() - 1];
            ends.push(at + HEADER + usize::from(all[at]));
        }
        for cut in 0..all.len() {
            let mut scanner = Scanner::new(Answer::Results, shape);
            let mut input = BytesMut::from(&all[..cut]);
            while let Step::Packet { .. } = scanner.scan(&input).unwrap() {}
            let whole = scanner.whole();
            input.advance(whole);
            scanner.consumed(whole);
            let passed = ends.iter().filter(|end| **end <= cut).count() - 1;
            assert_eq!(whole, ends[passed]);
            assert_eq!(scanner.takes_error(), legal.contains(&passed), "{shape:?} cut at {cut}, behind {passed}");
        }
    }
}
