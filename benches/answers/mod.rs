//! Answers of a server, to be forwarded.

use bytes::BytesMut;
use holdfast::wire::packet::write_packet;

/// A text result of one column with rows of `bytes` each.
pub fn result(rows: usize, bytes: usize) -> BytesMut {
    let (mut out, mut sequence) = (BytesMut::new(), 1);
    let row = [&[0xFC, bytes as u8, (bytes >> 8) as u8][..], &vec![b'r'; bytes]].concat();
    write_packet(&mut out, &mut sequence, &[1]);
    write_packet(&mut out, &mut sequence, &[b'd'; 48]);
    for _ in 0..rows {
        write_packet(&mut out, &mut sequence, &row);
    }
    write_packet(&mut out, &mut sequence, &[0xFE, 0, 0, 2, 0, 0, 0]);
    out
}
