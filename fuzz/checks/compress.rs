//! What must hold for any compressed frames. Shared by the fuzz target and the test that replays its corpus.

use bytes::BytesMut;
use holdfast::wire::compress::{Algorithm, Compression};

/// Frames unpack to the same bytes in whatever pieces they come, never to more than they say, and what is packed comes
/// back. The first byte chooses the algorithm and the size of the pieces.
pub fn check(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let algorithm = match choice & 3 {
        0 | 1 => Algorithm::Zlib,
        level => Algorithm::Zstd { level },
    };
    let step = usize::from(choice >> 2) + 1;
    let whole = unpack(algorithm, data, data.len().max(1), usize::MAX);
    let pieces = unpack(algorithm, data, step, 1000);
    match (&whole, &pieces) {
        (Ok(whole), Ok(pieces)) => assert!(whole == pieces),
        // Where it breaks is the same; what was unpacked before may differ by a piece.
        (Err(_), Err(_)) => {}
        (whole, pieces) => panic!("{} as a whole, {} in pieces", whole.is_ok(), pieces.is_ok()),
    }

    let mut packed = BytesMut::new();
    Compression::new(algorithm).encode(data, &mut packed);
    assert!(unpack(algorithm, &packed, packed.len().max(1), usize::MAX).is_ok_and(|plain| plain == data));
}

fn unpack(algorithm: Algorithm, wire: &[u8], step: usize, limit: usize) -> Result<Vec<u8>, ()> {
    let mut compression = Compression::new(algorithm);
    let (mut raw, mut all) = (BytesMut::new(), Vec::new());
    for piece in wire.chunks(step) {
        raw.extend_from_slice(piece);
        loop {
            let mut out = BytesMut::new();
            let n = compression.decode(&mut raw, &mut out, limit).map_err(|_| ())?;
            assert_eq!(n, out.len());
            assert!(n <= limit.saturating_add(64 * 1024));
            if n == 0 {
                break;
            }
            all.extend_from_slice(&out);
        }
    }
    Ok(all)
}
