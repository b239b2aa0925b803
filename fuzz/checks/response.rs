//! What must hold for any bytes a server may send: the scanner never panics, and what it finds does not depend on how the
//! bytes are cut into reads.

use bytes::{Buf, BytesMut};
use holdfast::wire::command::Answer;
use holdfast::wire::response::{Kind, Prepared, Scanner, Shape, Step};
use holdfast::wire::session_track::{Ok as OkPacket, Rewrite, TrackedVariables, Tracking, rewrite};

/// First byte: shape and answer; second: size of the pieces; the rest is the response.
pub fn check(data: &[u8]) {
    let [how, piece, response @ ..] = data else { return };
    let shape = Shape { deprecate_eof: how & 1 != 0, optional_metadata: how & 2 != 0 };
    let answer = match how >> 2 & 3 {
        0 => Answer::Results,
        1 => Answer::Prepared,
        2 => Answer::Rows,
        _ => Answer::OnePacket,
    };
    let whole = scan(answer, shape, response, response.len().max(1));
    let pieces = scan(answer, shape, response, usize::from(*piece).max(1));
    assert_eq!(whole, pieces, "cut into pieces of {piece}");
    for packet in whole.0 {
        tell(packet, shape);
    }
}

type Found = (Vec<(Kind, Vec<u8>)>, Vec<u8>, bool, bool, u64);

/// Speaking packets, forwarded bytes, whether it is done, whether it was malformed, rows.
fn scan(answer: Answer, shape: Shape, response: &[u8], piece: usize) -> Found {
    let mut scanner = Scanner::new(answer, shape);
    let (mut input, mut packets, mut forwarded) = (BytesMut::new(), Vec::new(), Vec::new());
    for piece in response.chunks(piece) {
        input.extend_from_slice(piece);
        loop {
            match scanner.scan(&input) {
                Err(_) => return (packets, Vec::new(), false, true, 0),
                Ok(Step::NeedMore) => break,
                Ok(Step::Packet { kind, start, end }) => packets.push((kind, input[start + 4..end].to_vec())),
            }
        }
        assert!(scanner.whole() <= scanner.passed() && scanner.passed() <= input.len());
        let n = scanner.whole();
        forwarded.extend_from_slice(&input[..n]);
        input.advance(n);
        scanner.consumed(n);
        if scanner.is_done() {
            break;
        }
    }
    (packets, forwarded, scanner.is_done(), false, scanner.rows)
}

/// A packet that could be read can be rewritten for any client, and read again with nothing lost that was wanted.
fn tell((kind, payload): (Kind, Vec<u8>), shape: Shape) {
    if kind == Kind::Prepared {
        let _ = Prepared::read(&payload, shape);
    }
    let Ok(ok) = OkPacket::read(&payload) else { return };
    for tracking in [Tracking::Off, Tracking::Variables(TrackedVariables::All)] {
        let mut out = BytesMut::new();
        rewrite(&ok, &tracking, Rewrite::default(), &mut out);
        assert!(out.len() <= payload.len() + 9, "an OK packet grew");
        let again = OkPacket::read(&out).expect("what was written can be read");
        assert_eq!((again.affected_rows, again.last_insert_id), (ok.affected_rows, ok.last_insert_id));
        assert_eq!(again.info, ok.info);
    }
}
